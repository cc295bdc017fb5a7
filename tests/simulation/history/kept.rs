//! Events that the router keeps: what was published, in one order, the last ones, and no more than may be.

use std::collections::{BTreeMap, BTreeSet};

use crosspoint::wamp::error::uri;
use crosspoint::wamp::{Arguments, MatchPolicy};
use serde_json::Value;

use super::{Content, End, History, Kept, Violation, broken, matches};
use crate::content::{EVENT, TESTAMENT};

/// Of what events are kept, and how many.
pub const RECORDS: [(MatchPolicy, &str, usize); 3] =
    [(MatchPolicy::Exact, "a.b.c", 5), (MatchPolicy::Prefix, "a.b", 1000), (MatchPolicy::Wildcard, "..c", 8)];

/// A publication: its session, whether it is a testament, and its number.
type Key = (usize, bool, u64);

/// Something that was asked for.
#[derive(Debug)]
pub struct Query {
    pub asker: usize,
    pub record: usize,
    pub limit: usize,
    pub is_reversed: bool,
    /// Nothing else happened meanwhile.
    pub is_final: bool,
    found: Option<Vec<Key>>,
}

impl Query {
    pub fn new(asker: usize, record: usize, limit: usize, is_reversed: bool, is_final: bool) -> Self {
        Self { asker, record, limit, is_reversed, is_final, found: None }
    }
}

/// What is known of the order of a record, by realm and record: the next of each, and the one before.
pub type Order = BTreeMap<(usize, usize, bool, Key), Key>;

impl History {
    /// The id by which events of a record are asked for, if anybody knows it.
    pub fn record_id(&self, realm: usize, record: usize) -> Option<u64> {
        let (policy, pattern, _) = RECORDS[record];
        let sessions = self.sessions.iter().filter(|session| session.realm == realm);
        let mut held = sessions.flat_map(|session| &session.subscriptions);
        let is_it = |held: &&super::Subscription| {
            held.since.is_some() && (held.policy, held.pattern) == (policy, pattern)
        };
        held.find(is_it).map(|held| held.id)
    }

    /// The answer to who asked for events.
    pub fn receive_events(&mut self, number: usize, answer: &Result<Arguments, &str>) -> Kept {
        let query = &self.queries[number];
        let answer = match answer {
            Ok(answer) => answer,
            Err(uri::UNAVAILABLE | uri::PAYLOAD_SIZE_EXCEEDED) => return Ok(()),
            Err(error) => return broken("history", format!("{query:?}: {error}")),
        };
        let mut found = Vec::new();
        for event in &answer.args {
            found.push(self.kept_event(query, event)?);
        }
        if query.is_reversed {
            found.reverse();
        }
        let (record, realm) = (query.record, self.sessions[query.asker].realm);
        let (limit, is_full) = (RECORDS[record].2, answer.kwargs["is_limit_reached"] == true);
        let unique: BTreeSet<Key> = found.iter().copied().collect();
        if found.len() > query.limit.min(limit) || unique.len() < found.len() {
            return broken("history", format!("{query:?}: too many, or twice: {found:?}"));
        }
        if is_full && found.len() < query.limit {
            return broken("history", format!("{query:?}: there are said to be more than {found:?}"));
        }
        // Whoever asks, and whenever: what stands behind something stands there for ever.
        for pair in found.windows(2) {
            for (is_next, of, other) in [(true, pair[0], pair[1]), (false, pair[1], pair[0])] {
                let before = self.order.insert((realm, record, is_next, of), other);
                if before.is_some_and(|before| before != other) {
                    return broken("history", format!("{query:?}: {other:?} by {of:?}, and once {before:?}"));
                }
            }
        }
        let last = |of: &Key| {
            found
                .iter()
                .filter(|(session, is_testament, _)| (*session, *is_testament) == (of.0, false))
                .map(|(_, _, number)| *number)
                .collect::<Vec<_>>()
        };
        if let Some(key) = found.iter().find(|key| !last(key).is_sorted()) {
            return broken(
                "history",
                format!("{query:?}: session {} published in another order: {found:?}", key.0),
            );
        }
        self.happened.kept += found.len() as u64;
        self.queries[number].found = Some(found);
        Ok(())
    }

    /// An event of an answer is one that was published, as it was.
    fn kept_event(&self, query: &Query, event: &Value) -> Result<Key, Violation> {
        let (policy, pattern, _) = RECORDS[query.record];
        let realm = self.sessions[query.asker].realm;
        let content = Content::of_value(&event["args"]);
        let key =
            content.map(|content| (content.session as usize, content.kind == TESTAMENT, content.number));
        let session = key.and_then(|key| self.sessions.get(key.0)).filter(|session| session.realm == realm);
        let topic = session.zip(content).and_then(|(session, content)| {
            let number = content.number as usize;
            match content.kind {
                EVENT => {
                    let publication = session.publications.get(number)?;
                    // What is not for some sessions is not kept.
                    publication.exclude.is_empty().then_some(publication.topic)
                }
                TESTAMENT => session.testaments.get(number).map(|testament| testament.topic),
                _ => None,
            }
        });
        let named = topic.filter(|_| policy != MatchPolicy::Exact);
        let is_kept = topic.is_some_and(|topic| matches(policy, pattern, topic));
        match key {
            Some(key) if is_kept && event["details"]["topic"].as_str() == named => Ok(key),
            _ => broken("history", format!("{query:?}: {event}, which nobody published to {pattern}")),
        }
    }

    /// When all is quiet: the last ones are the last that were published, and if there are fewer than may be, all.
    pub fn check_kept(&self) -> Kept {
        for query in self.queries.iter().filter(|query| query.is_final) {
            let Some(found) = &query.found else { continue };
            let (policy, pattern, limit) = RECORDS[query.record];
            let realm = self.sessions[query.asker].realm;
            let is_all = found.len() < query.limit.min(limit);
            for (place, session) in self.sessions.iter().enumerate() {
                let published = session.publications.iter().enumerate().filter(|(_, publication)| {
                    publication.exclude.is_empty() && matches(policy, pattern, publication.topic)
                });
                let published: Vec<u64> = published.map(|(number, _)| number as u64).collect();
                let of_this = found.iter().filter(|key| (key.0, key.1) == (place, false));
                let got: Vec<u64> = of_this.map(|(_, _, number)| *number).collect();
                let is_settled = matches!(session.end, End::Open | End::Left) && session.realm == realm;
                let is_right = if is_settled {
                    published.ends_with(&got) && (!is_all || got == published)
                } else {
                    got.is_empty() || published.windows(got.len()).any(|part| *part == got[..])
                };
                if !is_right {
                    let text = format!("{got:?} of session {place}, which published {published:?}");
                    return broken("history", format!("{query:?}: {text}"));
                }
            }
        }
        Ok(())
    }
}
