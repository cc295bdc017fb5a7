//! Meta events that wait at home, in their order: nobody who could be held back for them is there any more.
//!
//! What a session does is charged to it, and it is not read while too much of that is under way (R8). Its end is not: it may be
//! the end of as many subscriptions and registrations as it had, all in one input. Meta events of that are charged to home itself,
//! and while home is over the share of a session, or has delivered enough for one turn, whatever else is to be told waits here.

use std::collections::VecDeque;

use super::gather::Answer;
use super::news::{Cause, News};
use crate::router::Router;
use crate::router::dealer::Change;
use crate::router::effects::Effects;
use crate::router::peer::{Charge, MESSAGE_OVERHEAD_BYTES, NEWS_KEY, Payment, RealmIndex, SessionRef};

/// What waits.
#[derive(Debug)]
pub(super) enum Waiting {
    News(News),
    /// What happened to a registration, and when.
    Change(RealmIndex, Box<Change>, Option<Cause>),
    /// What a core did, for one that shall hear of it behind all that came of it.
    Answer(Box<Answer>),
}

impl Waiting {
    fn bytes(&self) -> usize {
        let more = match self {
            Self::News(news) => news.bytes(),
            Self::Change(..) => size_of::<Change>(),
            Self::Answer(answer) => answer.bytes(),
        };
        size_of::<Self>() + more
    }
}

/// All that waits. An entry ends when it is told: at the latest when those have read who are to hear of what is before it, or
/// are closed because they do not.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

impl Backlog {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.bytes();
        self.waiting.push_back(waiting);
    }

    fn pop(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        self.bytes -= first.bytes();
        if self.waiting.is_empty() {
            // It may have been long, and is empty almost always.
            self.waiting = VecDeque::new();
        }
        Some(first)
    }
}

impl Router {
    /// What waits to be told, in bytes; nothing almost always.
    #[must_use]
    pub(crate) fn news_waiting_bytes(&self) -> usize {
        self.meta.backlog.bytes
    }

    /// Tells what waits, as far as a turn and the account of this core permit.
    pub(crate) fn tell_waiting(&mut self, now: crate::router::Now, effects: &mut impl Effects) {
        self.now = now;
        while effects.may_tell()
            && let Some(waiting) = self.meta.backlog.pop()
        {
            match waiting {
                Waiting::News(news) => self.tell_news(&news, effects),
                Waiting::Change(realm, change, cause) => {
                    self.tell_registration_change(realm, &change, cause, effects);
                }
                Waiting::Answer(answer) => self.take_answer(*answer, effects),
            }
        }
        self.close_doomed(effects);
    }

    /// Whether something waits already, or must: what nobody can be held back for while this core is over its share.
    pub(super) fn must_wait(&self, is_paid: bool, effects: &impl Effects) -> bool {
        self.meta.backlog.len() > 0 || !is_paid && !effects.may_tell()
    }

    pub(super) fn let_wait(&mut self, waiting: Waiting, effects: &mut impl Effects) {
        effects.counters().meta_events_delayed += 1;
        self.meta.backlog.push(waiting);
    }

    /// What is charged for something that nobody else can be charged for.
    pub(super) fn pay_for(&self, bytes: usize, effects: &mut impl Effects) -> Payment {
        let bytes = bytes as u32 + MESSAGE_OVERHEAD_BYTES;
        let paused = effects.charge(NEWS_KEY, bytes);
        Payment { session: SessionRef { core: self.core, key: NEWS_KEY }, charge: Charge { bytes, paused } }
    }
}
