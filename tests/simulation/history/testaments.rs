//! Testaments: published once when their session has ended, in order, and only what it did not take back.

use crosspoint::wamp::error::uri;
use crosspoint::wamp::message::Event;

use super::{Content, End, History, Kept, MatchPolicy, broken, matches};

/// What was taken back, as far as the session knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    No,
    Asked,
    Done,
}

#[derive(Debug)]
pub struct Testament {
    pub topic: &'static str,
    /// Detached is published first.
    pub is_detached: bool,
    pub sent_at: u64,
    /// What the router answered; `None` before, or where it could not say.
    pub is_added: Option<bool>,
    pub flushed: Flushed,
    pub is_retained: bool,
}

impl History {
    /// EVENT arrives that is a testament.
    pub fn receive_testament(&mut self, subscriber: usize, event: &Event<'_>, content: Content) -> Kept {
        let (publisher, number) = (content.session as usize, content.number);
        let what = format!("testament {number} of session {publisher} to session {subscriber}");
        let Some(session) = self.sessions.get(publisher) else { return broken("integrity", what) };
        let Some(testament) = session.testaments.get(number as usize) else {
            return broken("integrity", what);
        };
        let (realm, topic) = (session.realm, testament.topic);
        if self.went_silently(session) {
            return broken("kill", format!("{what}, which was ended with all others"));
        }
        let is_void = testament.flushed == Flushed::Done || testament.is_added == Some(false);
        if is_void || (event.details.retained && !testament.is_retained) {
            return broken("testament", format!("{what}: {testament:?}"));
        }
        let order = |number: u64| (!session.testaments[number as usize].is_detached, number);
        let subscriptions = &self.sessions[subscriber].subscriptions;
        let id = event.subscription.0;
        let place = subscriptions.iter().rposition(|held| held.since.is_some() && held.id == id);
        let Some(place) = place.filter(|place| !subscriptions[*place].is_over) else {
            return broken("O2", format!("{what}: without a subscription"));
        };
        let held = &subscriptions[place];
        let named = if held.policy == MatchPolicy::Exact { None } else { Some(topic) };
        if realm != self.sessions[subscriber].realm
            || !matches(held.policy, held.pattern, topic)
            || event.details.topic.as_deref() != named
        {
            return broken("integrity", format!("{what}: by {held:?}"));
        }
        if event.details.retained {
            return Ok(());
        }
        let last = held.testaments.get(&publisher).and_then(|numbers| numbers.last());
        if last.is_some_and(|last| order(*last) >= order(number)) {
            return broken("testament", format!("{what}: after {last:?}"));
        }
        let session = &mut self.sessions[subscriber];
        session.subscriptions[place].testaments.entry(publisher).or_default().push(number);
        session.events_lost += u64::from(event.details.lost);
        self.happened.events_lost += u64::from(event.details.lost);
        // Nothing of it may come behind.
        session.last_events.insert(publisher, (u64::MAX, std::collections::BTreeSet::new()));
        self.happened.testaments += 1;
        Ok(())
    }

    /// The answer to who left one.
    pub fn receive_testament_answer(&mut self, session: usize, number: usize, answer: Option<&str>) -> Kept {
        let is_added = match answer {
            None => Some(true),
            Some(uri::LIMIT_REACHED) => Some(false),
            Some(uri::UNAVAILABLE) => None,
            Some(other) => return broken("testament", format!("session {session} was answered {other}")),
        };
        let testaments = &mut self.sessions[session].testaments;
        testaments[number].is_added = is_added;
        let kept = testaments.iter().filter(|it| it.is_added == Some(true) && it.flushed == Flushed::No);
        let (kept, count_max) = (kept.count(), self.testaments_max);
        if kept > count_max || is_added == Some(false) && testaments.len() < count_max {
            return broken("testament", format!("session {session} may leave {count_max}, not {kept}"));
        }
        Ok(())
    }

    /// It takes back what it left in a scope.
    pub fn flush(&mut self, session: usize, is_detached: bool, to: Flushed, count: usize) {
        let testaments = self.sessions[session].testaments[..count].iter_mut();
        for testament in testaments.filter(|testament| testament.is_detached == is_detached) {
            if testament.flushed != Flushed::Done {
                testament.flushed = to;
            }
        }
    }

    /// When all is quiet: of who ended all came to those who had subscribed before it was left, and of nobody else.
    pub(super) fn check_testaments(&self) -> Kept {
        let is_sure = !self.may_drop && !self.may_refuse;
        for (number, subscriber) in self.sessions.iter().enumerate() {
            for held in &subscriber.subscriptions {
                let living = |publisher: &&usize| self.sessions[**publisher].end == End::Open;
                if let Some(publisher) = held.testaments.keys().find(living) {
                    return broken("testament", format!("session {publisher} lives, but not for {number}"));
                }
                if subscriber.end == End::Open && !held.is_ending && is_sure {
                    self.check_inheritance(number, held)?;
                }
            }
        }
        Ok(())
    }

    fn check_inheritance(&self, subscriber: usize, held: &super::Subscription) -> Kept {
        let Some(since) = held.since else { return Ok(()) };
        for (publisher, session) in self.sessions.iter().enumerate() {
            let has_ended = matches!(session.end, End::Left | End::Lost);
            if session.realm != self.sessions[subscriber].realm
                || !has_ended
                || self.may_have_gone_silently(session)
            {
                continue;
            }
            let got = held.testaments.get(&publisher);
            for (number, testament) in session.testaments.iter().enumerate() {
                let is_due = testament.is_added == Some(true)
                    && testament.flushed == Flushed::No
                    && testament.sent_at > since
                    && matches(held.policy, held.pattern, testament.topic);
                if is_due && !got.is_some_and(|got| got.contains(&(number as u64))) {
                    let text = format!(
                        "session {subscriber} did not get testament {number} of {publisher}: {testament:?}"
                    );
                    return broken("testament", text);
                }
            }
        }
        Ok(())
    }
}
