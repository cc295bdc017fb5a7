//! What the router tells of subscriptions and registrations: in the specified order, and nothing but what clients did.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{End, History, Kept, Session, Subscription, broken};

/// What is subscribed to for it.
pub const SUBSCRIPTIONS: &str = "wamp.subscription.";
pub const REGISTRATIONS: &str = "wamp.registration.";

/// What meta events name for a session where a database registers.
const OF_DATABASE: u64 = 0;

/// A subscription or registration, as somebody has heard of it.
#[derive(Debug, Default)]
pub struct Heard {
    /// What it is of, and how that is matched, if its creation was heard of.
    created: Option<(String, String)>,
    /// Who is in it, and who is known to have left.
    members: BTreeSet<u64>,
    left: BTreeSet<u64>,
    /// What alone may come next, and of whom.
    next: Option<(&'static str, u64)>,
    /// Its creation and its end were heard of.
    is_deleted: bool,
}

impl Heard {
    /// Something is told of it; why that cannot be, if so.
    /// Somebody may be in it of whom the watcher does not hear, where `is_partial`.
    fn hear(
        &mut self,
        word: &str,
        session: u64,
        details: &Value,
        is_partial: bool,
    ) -> Result<(), &'static str> {
        if self.next.take().is_some_and(|next| next != (word, session)) {
            return Err("something else had to come first");
        }
        match word {
            "on_create" => {
                if self.created.is_some() && !is_partial || !self.members.is_empty() {
                    return Err("it is there already");
                }
                let text = |key: &str| details[key].as_str().map(str::to_owned).ok_or("without all details");
                *self = Self { created: Some((text("uri")?, text("match")?)), ..Self::default() };
                // What a database offers has no callee.
                self.next = (session != OF_DATABASE).then_some(("on_join", session));
                Ok(())
            }
            _ if self.is_deleted => Err("it was deleted"),
            "on_join" => {
                self.left.remove(&session);
                if self.members.insert(session) { Ok(()) } else { Err("it is in it already") }
            }
            "on_part" => {
                let is_known = self.created.is_some() && !is_partial;
                let was_known = self.members.remove(&session) || !is_known;
                if !was_known || !self.left.insert(session) {
                    return Err("it is not in it");
                }
                if is_known && self.members.is_empty() {
                    self.next = Some(("on_delete", session));
                }
                Ok(())
            }
            "on_delete" if self.members.is_empty() => {
                // What was created on the watcher's core before it listened it does not hear of, nor that it was created again.
                *self = Self { is_deleted: self.created.is_some() && !is_partial, ..Self::default() };
                Ok(())
            }
            "on_delete" => Err("somebody is in it"),
            _ => Err("there is no such event"),
        }
    }
}

/// What somebody heard, by id.
pub type Watched = BTreeMap<u64, Heard>;

impl History {
    /// A meta event of a subscription or a registration arrives.
    pub(super) fn receive_news(&mut self, watcher: usize, id: u64, topic: &str, args: &[Value]) -> Kept {
        let held = &mut self.sessions[watcher].subscriptions;
        let held = held.iter_mut().find(|held| held.id == id && !held.is_over);
        let Some(held) = held else { return broken("meta", format!("{topic} without a subscription")) };
        let Some(word) = topic.strip_prefix(held.pattern) else {
            return broken("meta", format!("{topic} by {}", held.pattern));
        };
        let word = match word {
            "on_subscribe" | "on_register" => "on_join",
            "on_unsubscribe" | "on_unregister" => "on_part",
            word => word,
        };
        let (session, of) = match args {
            [session, details] if word == "on_create" => (session.as_u64(), details["id"].as_u64()),
            [session, of] => (session.as_u64(), of.as_u64()),
            _ => (None, None),
        };
        let (Some(session), Some(of)) = (session, of) else {
            return broken("meta", format!("{topic} with {args:?}"));
        };
        let realm = self.sessions[watcher].realm;
        if session == OF_DATABASE && (self.databases.all.is_empty() || realm != 0) {
            return broken("meta", format!("{topic} of session 0, and there are no databases"));
        }
        if self.sessions.iter().any(|other| other.id == session && other.realm != realm) {
            return broken("meta", format!("{topic} of session {session}, which is in another realm"));
        }
        self.happened.news += 1;
        let is_partial = self.may_hide(watcher, id, of);
        let held = &mut self.sessions[watcher].subscriptions;
        let Some(held) = held.iter_mut().find(|held| held.id == id && !held.is_over) else { return Ok(()) };
        let heard = held.watched.entry(of).or_default();
        let before = format!("{heard:?}");
        match heard.hear(word, session, args.last().unwrap_or(&Value::Null), is_partial) {
            // Events that were dropped for a slow reader leave gaps.
            Err(why) if !self.may_drop => broken(
                "meta",
                format!("{topic} of session {session} and {of} for {watcher}: {why}; {before}"),
            ),
            _ => Ok(()),
        }
    }

    /// Whether somebody may have subscribed on the core of the watcher before it listened: of that it does not hear, whatever
    /// home makes of it and when.
    fn may_hide(&self, watcher: usize, id: u64, of: u64) -> bool {
        let watcher = &self.sessions[watcher];
        let watching = watcher.subscriptions.iter().find(|held| held.id == id && !held.is_over);
        let Some(since) = watching.filter(|held| held.pattern == SUBSCRIPTIONS).and_then(|held| held.since)
        else {
            return false;
        };
        let is_hidden = |held: &Subscription| (held.id == of || held.id == 0) && held.asked_at <= since;
        self.sessions
            .iter()
            .filter(|other| (other.core, other.realm) == (watcher.core, watcher.realm))
            .any(|other| other.subscriptions.iter().any(is_hidden))
    }

    /// When all is quiet: who listens knows who is in what, of all that was asked for since it listens.
    pub(super) fn check_watchers(&self) -> Kept {
        if self.may_drop {
            return Ok(());
        }
        for watcher in self.sessions.iter().filter(|session| session.end == End::Open) {
            for held in watcher.subscriptions.iter().filter(|held| !held.is_ending) {
                match held.pattern {
                    SUBSCRIPTIONS => self.check_watcher(watcher, held, |session| {
                        let all = session.subscriptions.iter().filter(|held| !held.is_over);
                        all.map(|held| (held.id, held.asked_at, held.pattern, held.policy.as_str())).collect()
                    })?,
                    REGISTRATIONS => self.check_watcher(watcher, held, |session| {
                        let all = session.registrations.iter().filter(|held| !held.is_over);
                        all.map(|held| (held.id, held.asked_at, held.pattern, held.policy.as_str())).collect()
                    })?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn check_watcher<'a>(
        &'a self,
        watcher: &Session,
        held: &Subscription,
        holds: impl Fn(&'a Session) -> Vec<(u64, u64, &'a str, &'a str)>,
    ) -> Kept {
        let Some(since) = held.since else { return Ok(()) };
        let (what, listener) = (held.pattern, watcher.id);
        let mut there = BTreeSet::new();
        for session in &self.sessions {
            if session.end != End::Open || session.realm != watcher.realm {
                continue;
            }
            for (id, asked_at, uri, policy) in holds(session) {
                there.insert((id, session.id));
                let heard = held.watched.get(&id);
                let is_in = heard.is_some_and(|heard| heard.members.contains(&session.id));
                if asked_at > since && !is_in {
                    let text = format!("{listener} did not hear of {id} of {}, {uri}: {heard:?}", session.id);
                    return broken("meta", format!("{what}: {text}"));
                }
                let created = heard.and_then(|heard| heard.created.as_ref());
                if created.is_some_and(|(of, by)| (of.as_str(), by.as_str()) != (uri, policy)) {
                    return broken("meta", format!("{what}: {heard:?} is of {uri}, {policy}"));
                }
            }
        }
        for (id, heard) in &held.watched {
            let gone = heard.members.iter().find(|session| !there.contains(&(*id, **session)));
            if let Some(gone) = gone {
                return broken(
                    "meta",
                    format!("{what}: {listener} thinks that {gone} is in {id}: {heard:?}"),
                );
            }
            if heard.next.is_some() {
                return broken("meta", format!("{what}: {listener} was not told all of {id}: {heard:?}"));
            }
        }
        Ok(())
    }
}
