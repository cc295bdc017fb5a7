//! What the router tells of itself: who comes, who goes (R11).

use crosspoint::wamp::message::Event;
use serde_json::Value;

use super::{End, History, Kept, broken};

impl History {
    /// A meta event arrives: each session comes once, goes once, and in that order; nobody hears of its own coming (R11).
    pub fn receive_meta_event(&mut self, subscriber: usize, event: &Event<'_>, args: &[Value]) -> Kept {
        let topic = event.details.topic.as_deref().unwrap_or_default();
        if !topic.starts_with("wamp.session.") {
            return self.receive_news(subscriber, event.subscription.0, topic, args);
        }
        let realm = self.sessions[subscriber].realm;
        let own = self.sessions[subscriber].id;
        let is_join = topic.ends_with("on_join");
        let id = match args {
            [details] if is_join => details["session"].as_u64(),
            [id, _, _] if !is_join => id.as_u64(),
            _ => None,
        };
        let Some(id) = id else { return broken("meta", format!("{topic} with {args:?}")) };
        if self.sessions.iter().any(|session| session.id == id && session.realm != realm) {
            return broken("meta", format!("{topic} of session {id}, which is in another realm"));
        }
        if !is_join && self.sessions.iter().any(|session| session.id == id && self.went_silently(session)) {
            return broken("kill", format!("{topic} of session {id}, which was ended with all others"));
        }
        let held = &mut self.sessions[subscriber].subscriptions;
        let held = held.iter_mut().find(|held| held.id == event.subscription.0 && !held.is_over);
        let Some(held) = held else { return broken("meta", format!("{topic} without a subscription")) };
        let is_new = if is_join {
            self.happened.joins += 1;
            id != own && !held.gone.contains(&id) && held.joined.insert(id)
        } else {
            self.happened.leaves += 1;
            held.gone.insert(id)
        };
        if is_new { Ok(()) } else { broken("meta", format!("{topic} of session {id}, twice or too late")) }
    }

    /// When all is quiet: whoever subscribed to comings and goings has heard of all that were behind that.
    pub(super) fn check_meta_events(&self) -> Kept {
        if self.may_drop || self.may_refuse {
            return Ok(());
        }
        for watcher in self.sessions.iter().filter(|session| session.end == End::Open) {
            let watching = watcher
                .subscriptions
                .iter()
                .filter(|held| held.pattern == "wamp.session." && !held.is_ending);
            for (held, since) in watching.filter_map(|held| Some((held, held.since?))) {
                for other in self.sessions.iter().filter(|other| other.realm == watcher.realm) {
                    if other.hello_at > since && !held.joined.contains(&other.id) {
                        return broken(
                            "meta",
                            format!("session {} did not hear that {} came", watcher.id, other.id),
                        );
                    }
                    let is_silent = self.went_silently(other);
                    let has_gone = other.end == End::Left || other.killed_by.is_some() && !is_silent;
                    if is_silent && held.gone.contains(&other.id) {
                        return broken("meta", format!("{} was told that {} went", watcher.id, other.id));
                    }
                    if has_gone && held.joined.contains(&other.id) && !held.gone.contains(&other.id) {
                        return broken(
                            "meta",
                            format!("session {} did not hear that {} went", watcher.id, other.id),
                        );
                    }
                }
            }
        }
        Ok(())
    }
}
