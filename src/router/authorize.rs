//! What a role may do: the permissions of the configuration, compiled.
//!
//! One permission decides about a URI: the exact one, else that with the longest prefix, else the wildcard pattern with
//! more named components before its first wildcard; of equals the first in the configuration. Where none matches, the
//! answer is no.
//!
//! **Patterns.** Who subscribes or registers a pattern gets whatever matches it, later and unseen. So the rule is: a pattern
//! is allowed if every URI that it can match is allowed. A pattern that reaches beyond what is allowed is denied, and so is one
//! that encloses a single denied URI.
//!
//! That is decided exactly, and without listing URIs. Any two patterns that have a URI in common have a *witness*: it carries
//! all that the two prescribe and otherwise only components that no permission knows. A permission that matches a
//! witness cannot tell it from the rest of what the two have in common, so it matches all of that. Hence it suffices to ask
//! for one witness of the request alone, which stands for what no permission singles out, and one for the request with
//! each permission.

use super::uri_map::UriMap;
use crate::config;
use crate::wamp::options::MatchPolicy;
use crate::wamp::uri::matches;

/// What a session wants to do with a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Action {
    Publish,
    Subscribe,
    Call,
    Register,
}

impl Action {
    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The word for it in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Call => "call",
            Self::Register => "register",
        }
    }
}

/// What the permissions of a role say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, to all that is asked for.
    Allowed,
    /// No, to some of it at least.
    Denied,
    /// Nothing about some of it, and yes to the rest.
    Open,
}

/// In the bits of a permission, beside those of the actions.
const DISCLOSE_CALLER: u8 = 1 << 6;
const DISCLOSE_PUBLISHER: u8 = 1 << 7;

/// The permissions of a role.
#[derive(Clone, Debug)]
pub struct Role {
    permissions: UriMap<Permission>,
    /// Whether any of them discloses anybody.
    may_disclose: bool,
    /// In no permission.
    stranger: char,
    /// Of the longest wildcard pattern.
    components_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Permission {
    /// Bits of the actions that it allows, and of whom it discloses; it denies the others.
    allowed: u8,
    /// Components before the first wildcard; `None` if it is no wildcard pattern.
    named_count: Option<u16>,
    /// The place in the configuration.
    order: u32,
}

// The cost sheet: roles are on every core.
const _: () = assert!(size_of::<Permission>() <= 12);

#[derive(Clone, Copy)]
struct Pattern<'a> {
    policy: MatchPolicy,
    uri: &'a str,
}

impl Role {
    /// Compiles the permissions. Of two for the same URI and match policy the first counts.
    #[must_use]
    pub fn new(role: &config::Role) -> Self {
        // Only the operator puts URIs into this map, so its seed need not be a secret.
        let mut permissions = UriMap::new(0);
        let mut components_max = 0;
        for (order, permission) in (0u32..).zip(&role.permissions) {
            let config::Permission { ref uri, match_policy, .. } = *permission;
            if permissions.find(match_policy, uri).is_some() {
                continue;
            }
            let mut named_count = None;
            if match_policy == MatchPolicy::Wildcard {
                components_max = components_max.max(uri.split('.').count());
                let count = uri.split('.').take_while(|component| !component.is_empty()).count();
                named_count = Some(u16::try_from(count).unwrap_or(u16::MAX));
            }
            let allowed = allowed_bits(permission);
            permissions.insert(match_policy, uri, Permission { allowed, named_count, order });
        }
        let may_disclose = role.permissions.iter().any(|it| it.disclose_caller || it.disclose_publisher);
        Self { stranger: stranger_to(&role.permissions), permissions, may_disclose, components_max }
    }

    /// Whether the permission that decides about a URI tells the other side who calls or publishes, asked or not.
    #[must_use]
    pub fn discloses(&self, action: Action, uri: &str) -> bool {
        let bit = match action {
            Action::Call => DISCLOSE_CALLER,
            Action::Publish => DISCLOSE_PUBLISHER,
            Action::Subscribe | Action::Register => return false,
        };
        self.may_disclose && self.decisive(uri).is_some_and(|permission| permission.allowed & bit != 0)
    }

    /// Whether the role may. `policy` is how a SUBSCRIBE or REGISTER matches; all else is exact.
    ///
    /// Does not allocate for an exact URI.
    #[must_use]
    pub fn allows(&self, action: Action, uri: &str, policy: MatchPolicy) -> bool {
        self.decide(action, uri, policy) == Decision::Allowed
    }

    /// As [`Self::allows`], and whether a no was said or nothing at all.
    #[must_use]
    pub fn decide(&self, action: Action, uri: &str, policy: MatchPolicy) -> Decision {
        match policy {
            MatchPolicy::Exact => self.decide_uri(action, uri),
            MatchPolicy::Prefix | MatchPolicy::Wildcard => {
                self.decide_pattern(action, Pattern { policy, uri })
            }
        }
    }

    fn decide_uri(&self, action: Action, uri: &str) -> Decision {
        match self.decisive(uri) {
            Some(permission) if permission.allowed & action.bit() != 0 => Decision::Allowed,
            Some(_) => Decision::Denied,
            None => Decision::Open,
        }
    }

    fn decide_pattern(&self, action: Action, request: Pattern<'_>) -> Decision {
        let mut witness = String::new();
        let mut all = if self.find_witness(request, request, &mut witness) {
            self.decide_uri(action, &witness)
        } else {
            Decision::Denied
        };
        for (_, uri, policy, permission) in self.permissions.iter() {
            if all == Decision::Denied {
                break;
            }
            // One that allows can only decide for the better.
            if permission.allowed & action.bit() != 0
                || !self.find_witness(request, Pattern { policy, uri }, &mut witness)
                || witness.split('.').any(str::is_empty)
            {
                continue;
            }
            match self.decide_uri(action, &witness) {
                Decision::Allowed => {}
                Decision::Denied => all = Decision::Denied,
                Decision::Open => all = Decision::Open,
            }
        }
        all
    }

    /// The permission that decides about a URI.
    fn decisive(&self, uri: &str) -> Option<Permission> {
        let mut matching =
            self.permissions.matching(uri).filter_map(|key| self.permissions.get(key)).copied();
        let first = matching.next()?;
        if first.named_count.is_none() {
            return Some(first);
        }
        // Wildcards come with more leading names first, but then by what is behind: here their place counts.
        let equals = matching.take_while(|permission| permission.named_count == first.named_count);
        Some(equals.fold(first, |best, next| if next.order < best.order { next } else { best }))
    }

    /// Writes the witness of what two patterns have in common; `false` if that is nothing.
    fn find_witness(&self, left: Pattern<'_>, right: Pattern<'_>, witness: &mut String) -> bool {
        witness.clear();
        match (left.policy, right.policy) {
            (MatchPolicy::Exact, _) => {
                witness.push_str(left.uri);
                matches(right.uri, right.policy, left.uri)
            }
            (_, MatchPolicy::Exact) => {
                witness.push_str(right.uri);
                matches(left.uri, left.policy, right.uri)
            }
            (MatchPolicy::Prefix, MatchPolicy::Prefix) => {
                let (short, long) = if left.uri.len() < right.uri.len() {
                    (left.uri, right.uri)
                } else {
                    (right.uri, left.uri)
                };
                witness.push_str(long);
                witness.push(self.stranger);
                // Longer than what any wildcard pattern matches.
                for _ in 0..self.components_max {
                    witness.push('.');
                    witness.push(self.stranger);
                }
                long.starts_with(short)
            }
            (MatchPolicy::Prefix, MatchPolicy::Wildcard) => self.fill(right.uri, left.uri, witness),
            (MatchPolicy::Wildcard, MatchPolicy::Prefix) => self.fill(left.uri, right.uri, witness),
            (MatchPolicy::Wildcard, MatchPolicy::Wildcard) => self.fill_both(left.uri, right.uri, witness),
        }
    }

    /// The witness of a wildcard pattern and a prefix, whose last component may be the beginning of one.
    fn fill(&self, pattern: &str, prefix: &str, witness: &mut String) -> bool {
        let mut components = pattern.split('.');
        let mut given = prefix.split('.').peekable();
        while let Some(part) = given.next() {
            let is_whole = given.peek().is_some();
            match components.next() {
                Some("") if is_whole => self.push(part, witness),
                Some("") => {
                    witness.push_str(part);
                    self.push("", witness);
                }
                Some(name) if name == part || !is_whole && name.starts_with(part) => self.push(name, witness),
                _ => return false,
            }
        }
        components.for_each(|component| self.push(component, witness));
        witness.pop();
        true
    }

    fn fill_both(&self, left: &str, right: &str, witness: &mut String) -> bool {
        let (mut left, mut right) = (left.split('.'), right.split('.'));
        loop {
            match (left.next(), right.next()) {
                (None, None) => break,
                (Some(""), Some(name)) => self.push(name, witness),
                (Some(name), Some(other)) if other.is_empty() || name == other => self.push(name, witness),
                _ => return false,
            }
        }
        witness.pop();
        true
    }

    /// Appends a component and a dot; an empty one becomes a stranger.
    fn push(&self, component: &str, witness: &mut String) {
        if component.is_empty() {
            witness.push(self.stranger);
        }
        witness.push_str(component);
        witness.push('.');
    }
}

fn allowed_bits(permission: &config::Permission) -> u8 {
    [
        (permission.publish, Action::Publish),
        (permission.subscribe, Action::Subscribe),
        (permission.call, Action::Call),
        (permission.register, Action::Register),
    ]
    .map(|(is_allowed, action)| (is_allowed, action.bit()))
    .into_iter()
    .chain([
        (permission.disclose_caller, DISCLOSE_CALLER),
        (permission.disclose_publisher, DISCLOSE_PUBLISHER),
    ])
    .filter(|(is_set, _)| *is_set)
    .fold(0, |bits, (_, bit)| bits | bit)
}

/// A character that no permission has.
fn stranger_to(permissions: &[config::Permission]) -> char {
    let is_stranger = |character: &char| !permissions.iter().any(|other| other.uri.contains(*character));
    // From the last plane, which nobody writes in: the first is nearly always one.
    ('\u{100000}'..='\u{10fffd}')
        .chain('a'..='\u{d7ff}')
        .find(is_stranger)
        .unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use MatchPolicy::{Exact, Prefix, Wildcard};

    fn permission(uri: &str, match_policy: MatchPolicy, actions: &str) -> config::Permission {
        config::Permission {
            uri: uri.to_owned(),
            match_policy,
            publish: actions.contains('p'),
            subscribe: actions.contains('s'),
            call: actions.contains('c'),
            register: actions.contains('r'),
            disclose_caller: actions.contains('C'),
            disclose_publisher: actions.contains('P'),
        }
    }

    fn role(permissions: Vec<config::Permission>) -> Role {
        Role::new(&config::Role {
            name: "r".to_owned(),
            slow: config::SlowPolicy::Close,
            trust_level: None,
            authorizer: None,
            authorizer_cache: Duration::ZERO,
            permissions,
        })
    }

    #[test]
    fn nothing_is_allowed_that_is_not_said() {
        for policy in [Exact, Prefix, Wildcard] {
            assert!(!role(Vec::new()).allows(Action::Subscribe, "com.a", policy));
        }
    }

    #[test]
    fn each_action_is_its_own() {
        let all = [Action::Publish, Action::Subscribe, Action::Call, Action::Register];
        for (letter, allowed) in ["p", "s", "c", "r"].into_iter().zip(all) {
            let role = role(vec![permission("com.a", Exact, letter)]);
            for action in all {
                assert_eq!(role.allows(action, "com.a", Exact), action == allowed);
                assert!(!role.allows(action, "com.b", Exact));
            }
        }
    }

    #[test]
    fn the_permission_that_decides_says_whether_somebody_is_disclosed() {
        let role = role(vec![
            permission("com.", Prefix, "pcC"),
            permission("com.secret", Exact, "pcP"),
            permission("com.quiet.", Prefix, "pc"),
            permission("com.denied", Exact, "PC"),
        ]);
        for (uri, caller, publisher) in [
            ("com.a", true, false),
            ("com.secret", false, true),
            ("com.quiet.a", false, false),
            ("com.denied", true, true),
            ("org.a", false, false),
        ] {
            assert_eq!(role.discloses(Action::Call, uri), caller, "{uri}");
            assert_eq!(role.discloses(Action::Publish, uri), publisher, "{uri}");
            assert!(!role.discloses(Action::Register, uri) && !role.discloses(Action::Subscribe, uri));
        }
    }

    #[test]
    fn precedence() {
        let role = role(vec![
            permission("..log", Wildcard, ""),
            permission("com.", Prefix, "s"),
            permission("com.secret.", Prefix, ""),
            permission("com.secret.door", Exact, "s"),
            permission("com.secret.door", Exact, ""),
            permission("net..a", Wildcard, "s"),
            permission("net.b.", Wildcard, ""),
            permission(".x.y.z", Wildcard, "s"),
            permission(".x..z", Wildcard, ""),
            permission("..y.q", Wildcard, ""),
            permission(".x..q", Wildcard, "s"),
        ]);
        for (uri, expected) in [
            ("com.log.log", true),
            ("com.secret.log", false),
            ("com.secret.door", true),
            ("org.any.log", false),
            ("net.c.a", true),
            ("net.b.a", false),
            ("a.x.y.z", true),
            ("a.x.b.z", false),
            // No leading name each: the first in the configuration, though the other one has a longer second run.
            ("a.x.y.q", false),
        ] {
            assert_eq!(role.allows(Action::Subscribe, uri, Exact), expected, "{uri}");
        }
    }

    #[test]
    fn patterns_are_allowed_if_all_that_they_match_is() {
        let role = role(vec![
            permission("com.", Prefix, "s"),
            permission("com.secret", Exact, ""),
            permission("com.staff.", Prefix, ""),
            permission("net..news", Wildcard, "s"),
            permission("net.intern.", Wildcard, ""),
        ]);
        for (uri, policy, expected) in [
            ("com.", Prefix, false),
            ("com.s", Prefix, false),
            ("com.secrets", Prefix, true),
            ("com.secret.", Prefix, true),
            ("com.shop", Prefix, true),
            ("com.staff.x", Prefix, false),
            ("com", Prefix, false),
            ("", Prefix, false),
            ("com.", Wildcard, false),
            ("com..a", Wildcard, false),
            ("com.shop.", Wildcard, true),
            ("com.secret", Wildcard, false),
            (".shop.a", Wildcard, false),
            ("net..news", Wildcard, false),
            ("net.open.news", Wildcard, true),
            ("net.open.news", Prefix, false),
        ] {
            assert_eq!(role.allows(Action::Subscribe, uri, policy), expected, "{uri:?} {policy:?}");
            assert!(!role.allows(Action::Register, uri, policy));
        }
    }

    #[test]
    fn the_empty_prefix_allows_every_pattern() {
        let role = role(vec![permission("", Prefix, "sr")]);
        for uri in ["", ".", "com..x", "com.\u{100000}"] {
            assert!(
                role.allows(Action::Register, uri, Wildcard) && role.allows(Action::Subscribe, uri, Prefix)
            );
        }
    }

    /// The rule as it is written, by sorting.
    fn allows_by_sorting(permissions: &[config::Permission], uri: &str) -> bool {
        let leading =
            |pattern: &str| pattern.split('.').take_while(|component| !component.is_empty()).count();
        let mut found: Vec<_> = permissions
            .iter()
            .filter(|permission| matches(&permission.uri, permission.match_policy, uri))
            .collect();
        // A stable sort: equals stay in the order of the configuration.
        found.sort_by_key(|permission| match permission.match_policy {
            Exact => (0, Reverse(0)),
            Prefix => (1, Reverse(permission.uri.len())),
            Wildcard => (2, Reverse(leading(&permission.uri))),
        });
        found.first().is_some_and(|permission| permission.subscribe)
    }

    fn any_pattern() -> impl Strategy<Value = (String, MatchPolicy)> {
        let component = prop::sample::select(vec!["", "a", "b", "ab"]);
        let uri = prop::collection::vec(component, 1..4).prop_map(|components| components.join("."));
        (uri, prop::sample::select(vec![Exact, Prefix, Prefix, Wildcard, Wildcard]))
    }

    /// Every URI of up to four of these components: those of the patterns, and what begins like them but is in none.
    fn all_uris() -> Vec<String> {
        let components = ["a", "b", "ab", "c", "ac", "bc", "abc"];
        let mut uris: Vec<String> = components.map(String::from).to_vec();
        let mut begin = 0;
        for _ in 1..4 {
            let end = uris.len();
            for index in begin..end {
                let longer = components.map(|component| format!("{}.{component}", uris[index]));
                uris.extend(longer);
            }
            begin = end;
        }
        uris
    }

    #[test]
    fn agrees_with_every_uri_of_a_small_alphabet() {
        let uris = all_uris();
        let permissions = prop::collection::vec((any_pattern(), any::<bool>()), 0..8);
        let requests = prop::collection::vec(any_pattern(), 12);
        let mut runner = proptest::test_runner::TestRunner::default();
        let outcome = runner.run(&(permissions, requests), |(permissions, requests)| {
            let permissions: Vec<_> = permissions
                .iter()
                .map(|((uri, policy), allow)| permission(uri, *policy, if *allow { "s" } else { "" }))
                .collect();
            let role = role(permissions.clone());
            let allowed: Vec<bool> = uris.iter().map(|uri| allows_by_sorting(&permissions, uri)).collect();
            for (uri, &expected) in uris.iter().zip(&allowed) {
                prop_assert_eq!(role.allows(Action::Subscribe, uri, Exact), expected, "{}", uri);
            }
            for (uri, policy) in requests {
                let mut matched =
                    uris.iter().zip(&allowed).filter(|(u, _)| matches(&uri, policy, u)).peekable();
                // An empty component in a prefix, but for its last: no URI is like that, so there is nothing to compare.
                if matched.peek().is_some() {
                    let expected = matched.all(|(_, allowed)| *allowed);
                    prop_assert_eq!(
                        role.allows(Action::Subscribe, &uri, policy),
                        expected,
                        "{} {:?}",
                        uri,
                        policy
                    );
                }
            }
            Ok(())
        });
        outcome.unwrap();
    }
}
