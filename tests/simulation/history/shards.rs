//! Nodes that share what they subscribe to: one resource goes to one of them, and stays there as long as it is there.

use std::collections::{BTreeMap, BTreeSet};

use super::{End, History, Kept, Subscription, Violation, broken, matches};
use crosspoint::wamp::MatchPolicy;

/// Keys of nodes and of resources.
pub const NODES: [&str; 3] = ["n1", "n2", "n3"];
pub const RESOURCES: [&str; 5] = ["r1", "r2", "r3", "r4", "r5"];

/// Which node has a resource, by realm, subscription and resource.
pub type Placed = BTreeMap<(usize, MatchPolicy, &'static str, &'static str), &'static str>;

impl History {
    /// What was published while all was quiet (by session, its first number, and how many): each came to one node, to all that
    /// has this key there, whoever published it.
    pub fn placed(&mut self, published: &[(usize, usize, usize)]) -> Result<Placed, Violation> {
        let mut placed = Placed::new();
        for &(publisher, first, count) in published {
            // Who was closed meanwhile may not have said all of it.
            if self.sessions[publisher].end != End::Open {
                continue;
            }
            for number in first..first + count {
                self.place(publisher, number, &mut placed)?;
            }
        }
        self.happened.placed += placed.len() as u64;
        Ok(placed)
    }

    fn place(&self, publisher: usize, number: usize, placed: &mut Placed) -> Kept {
        let realm = self.sessions[publisher].realm;
        let publication = &self.sessions[publisher].publications[number];
        let Some(resource) = publication.rkey else { return Ok(()) };
        // Who is there, and whether it got it.
        let mut nodes: BTreeMap<(MatchPolicy, &str, &str), Vec<bool>> = BTreeMap::new();
        for session in self.sessions.iter().filter(|other| other.end == End::Open && other.realm == realm) {
            for held in session.subscriptions.iter().filter(|held| is_there(held)) {
                let Some(node) = held.nkey else { continue };
                if matches(held.policy, held.pattern, publication.topic) {
                    let got = held.events.get(&publisher);
                    let got = got.is_some_and(|got| got.contains(&(number as u64)));
                    nodes.entry((held.policy, held.pattern, node)).or_default().push(got);
                }
            }
        }
        let what = format!("publication {number} of session {publisher} with {resource}");
        let subscriptions: BTreeSet<_> =
            nodes.keys().map(|(policy, pattern, _)| (*policy, *pattern)).collect();
        for (policy, pattern) in subscriptions {
            let of_this = nodes.iter().filter(|((by, of, _), _)| (*by, *of) == (policy, pattern));
            let got: Vec<_> = of_this.filter(|(_, got)| got.contains(&true)).collect();
            let [((_, _, node), sessions)] = got[..] else {
                return broken("shards", format!("{what} by {pattern} came to {got:?} of {nodes:?}"));
            };
            if sessions.contains(&false) {
                return broken("shards", format!("{what} by {pattern} came to some of node {node}"));
            }
            let pattern = self.static_pattern(pattern);
            let node = NODES.iter().find(|known| *known == node).copied().unwrap_or_default();
            let before = placed.insert((realm, policy, pattern, resource), node);
            if before.is_some_and(|before| before != node) {
                return broken(
                    "shards",
                    format!("{what} by {pattern} came to {node}, and before to {before:?}"),
                );
            }
        }
        Ok(())
    }

    fn static_pattern(&self, pattern: &str) -> &'static str {
        let mut all = self.sessions.iter().flat_map(|session| &session.subscriptions);
        all.find(|held| held.pattern == pattern).map_or("", |held| held.pattern)
    }

    /// When a node has gone, or come, only what is its own has moved.
    pub fn check_moves(&self, before: &Placed, after: &Placed) -> Kept {
        for (what @ (realm, policy, pattern, resource), node) in before {
            let is_there = self.sessions.iter().any(|session| {
                let mut held = session.subscriptions.iter().filter(|held| is_there(held));
                session.end == End::Open
                    && session.realm == *realm
                    && held.any(|held| {
                        (held.policy, held.pattern, held.nkey) == (*policy, *pattern, Some(*node))
                    })
            });
            let now = after.get(what);
            if is_there && now.is_some_and(|now| now != node) {
                let text =
                    format!("{resource} of {pattern} has moved from {node}, which is there, to {now:?}");
                return broken("shards", text);
            }
        }
        Ok(())
    }
}

fn is_there(held: &Subscription) -> bool {
    held.since.is_some() && !held.is_ending && !held.is_over
}
