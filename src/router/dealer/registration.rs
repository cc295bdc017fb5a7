//! Who serves a procedure or pattern: coming, going, and being made to go.

use super::nodes::Nodes;
use super::pool::{Pool, Sequence};
use super::queue::{Home, Work};
use super::told::{Change, ChangeKind};
use super::{Dealer, PoolId};
use crate::router::database::DatabaseIndex;
use crate::router::peer::{RegisterLetter, RegisterOutcome, Sitting};
use crate::router::sharding::{KeyHash, node_hash};
use crate::router::uri_map::EntryKey;
use crate::wamp::options::InvocationPolicy;
use crate::wamp::{MatchPolicy, RegistrationId, SessionId};

/// How the callees of a registration share it: all of them say the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::router) struct Sharing {
    pub(in crate::router) policy: InvocationPolicy,
    /// `hash`: by this kwarg, or by caller.
    pub(in crate::router) kwarg: Option<Box<str>>,
}

/// Who serves a registration.
#[derive(Debug)]
pub(super) enum Serves {
    /// One callee, of whose calls nobody counts anything: the ordinary case.
    One(Sitting),
    /// Some callees, or one whose calls are counted. Ends with the last of them.
    Pool(PoolId),
    /// A database. Ends with what it offers (`offered.rs`).
    Database(DatabaseIndex),
}

/// A procedure or pattern, and who serves it.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) id: RegistrationId,
    pub(super) serves: Serves,
    pub(super) sharing: Sharing,
    /// For people, in microseconds since 1970.
    pub(super) created_us: u64,
    /// The one callee wants to know who calls.
    pub(super) disclose_caller: bool,
    /// Who the first callee is; `None` for an anonymous session. Only of that one may it be taken over.
    pub(super) authid: Option<Box<str>>,
}

impl Registration {
    /// Whether there is no place for a second callee.
    pub(super) fn is_exclusive(&self) -> bool {
        self.sharing.policy == InvocationPolicy::Single
    }
}

/// A registration as its callee holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) entry: EntryKey,
    /// The pool it is in, and its place there.
    pool: Option<(PoolId, Sequence)>,
    /// The node that it belongs to.
    node: Option<KeyHash>,
    pub(super) session: SessionId,
    /// What it counts in the session's account.
    uri_bytes: u32,
    disclose_caller: bool,
}

impl Held {
    fn new(
        entry: EntryKey,
        (pool, node): (Option<(PoolId, Sequence)>, Option<KeyHash>),
        letter: &RegisterLetter,
    ) -> Self {
        let (session, disclose_caller) = (letter.session, letter.disclose_caller);
        Self { entry, pool, node, session, uri_bytes: letter.uri_bytes(), disclose_caller }
    }
}

/// A registration that a callee did not give up itself.
#[derive(Clone, Copy, Debug)]
pub(in crate::router) struct Revoked {
    pub(in crate::router) callee: Sitting,
    pub(in crate::router) registration: RegistrationId,
    pub(in crate::router) uri_bytes: u32,
}

impl Home<'_> {
    /// The first one gets it, and says who may join: the only sequencer there is, for what databases offer too. Whoever has to go for it is put into `revoked`.
    pub(super) fn register(
        &mut self,
        letter: &RegisterLetter,
        revoked: &mut Vec<Revoked>,
    ) -> RegisterOutcome {
        let uri_bytes = letter.uri_bytes();
        if let Some(entry) = self.dealer.registrations.find(letter.match_policy, &letter.procedure) {
            let serves = self.dealer.registrations.get(entry).map(|registration| &registration.serves);
            // What a database offers is not a client's to take.
            if !letter.force_reregister || matches!(serves, Some(Serves::Database(_))) {
                return self.join(entry, letter);
            }
            // What waits there is routed once the new callee is in its place.
            match self.node_to_replace(entry, letter) {
                Some(callees) => {
                    let id = self.dealer.registrations.get(entry).map(|registration| registration.id);
                    let gone = callees.into_iter().filter_map(|callee| self.remove_one(callee, id?));
                    revoked.extend(gone.collect::<Vec<_>>());
                    // It may have been the only one.
                    if let Some(entry) =
                        self.dealer.registrations.find(letter.match_policy, &letter.procedure)
                    {
                        return self.join(entry, letter);
                    }
                }
                None => revoked.extend(self.remove_all(entry)),
            }
        }
        let shapes_max = self.limits.wildcard_shapes_max;
        let dealer = &mut *self.dealer;
        if !dealer.registrations.has_room(letter.match_policy, &letter.procedure, shapes_max) {
            return RegisterOutcome::LimitReached { uri_bytes };
        }
        let id = RegistrationId(dealer.last_id.0 + 1);
        dealer.last_id = id;
        let registration = Registration {
            id,
            serves: Serves::One(letter.callee),
            sharing: letter.sharing.clone(),
            created_us: self.created_us,
            disclose_caller: letter.disclose_caller,
            authid: letter.authid.clone(),
        };
        let entry = dealer.registrations.insert(letter.match_policy, &letter.procedure, registration);
        dealer.by_id.insert(id, entry);
        let node = dealer.node_of(letter);
        let is_plain =
            letter.sharing.policy == InvocationPolicy::Single && letter.concurrency == 0 && node.is_none();
        let pool = (!is_plain).then(|| {
            let pool = dealer.new_pool(id, entry, letter);
            (pool, dealer.enter(pool, letter))
        });
        if let (Some((pool, _)), Some(registration)) = (pool, dealer.registrations.get_mut(entry)) {
            registration.serves = Serves::Pool(pool);
        }
        dealer.hold(letter, Held::new(entry, (pool, node), letter));
        if self.is_told {
            let (uri, policy) = (letter.procedure.clone(), letter.match_policy);
            let (invoke, created_us) = (letter.sharing.policy, self.created_us);
            self.tell(letter.session, id, ChangeKind::Created { uri, policy, invoke, created_us });
            self.tell(letter.session, id, ChangeKind::Registered);
        }
        RegisterOutcome::Registered(id)
    }

    /// For the meta API.
    pub(super) fn tell(&mut self, session: SessionId, registration: RegistrationId, kind: ChangeKind) {
        if self.is_told {
            self.changes.push((self.realm, Change { session, registration, kind, payment: None }));
        }
    }

    /// One more callee of a procedure (advanced profile, "Shared Registration").
    fn join(&mut self, entry: EntryKey, letter: &RegisterLetter) -> RegisterOutcome {
        let uri_bytes = letter.uri_bytes();
        let dealer = &mut *self.dealer;
        let Some(registration) = dealer.registrations.get(entry) else {
            return RegisterOutcome::AlreadyExists { uri_bytes };
        };
        let id = registration.id;
        let Serves::Pool(pool) = registration.serves else {
            return RegisterOutcome::AlreadyExists { uri_bytes };
        };
        let node = dealer.node_of(letter);
        let nodes = dealer.pools.get(&pool).and_then(Pool::nodes);
        let is_new_node = node.is_some_and(|node| nodes.is_none_or(|nodes| nodes.get(node).is_none()));
        // Of those that are not shared each node has one callee, and there is no other beside them.
        let is_taken = registration.is_exclusive() && (nodes.is_none() || !is_new_node);
        if is_taken || dealer.held(letter.callee, entry).is_some() {
            return RegisterOutcome::AlreadyExists { uri_bytes };
        }
        if registration.sharing != letter.sharing {
            return RegisterOutcome::SharedOtherwise { uri_bytes };
        }
        if is_new_node && nodes.map_or(0, Nodes::len) >= self.limits.nodes_per_registration_max {
            return RegisterOutcome::TooManyNodes { uri_bytes };
        }
        let sequence = dealer.enter(pool, letter);
        dealer.hold(letter, Held::new(entry, (Some((pool, sequence)), node), letter));
        self.tell(letter.session, id, ChangeKind::Registered);
        self.callee_came(pool);
        RegisterOutcome::Registered(id)
    }

    /// Whom a REGISTER by force takes the place of, where that is not everybody: the callees of its node.
    fn node_to_replace(&self, entry: EntryKey, letter: &RegisterLetter) -> Option<Vec<Sitting>> {
        let dealer = &*self.dealer;
        let registration = dealer.registrations.get(entry)?;
        let Serves::Pool(pool) = registration.serves else { return None };
        let pool = dealer.pools.get(&pool)?;
        let (nodes, node) = (pool.nodes()?, dealer.node_of(letter)?);
        if registration.sharing != letter.sharing {
            return None;
        }
        let callees = nodes.get(node).into_iter().flat_map(|node| &node.callees);
        Some(callees.filter_map(|sequence| Some(pool.callee(*sequence)?.sitting)).collect())
    }

    pub(super) fn unregister(&mut self, callee: Sitting, id: RegistrationId) -> RegisterOutcome {
        match self.remove_one(callee, id) {
            Some(removed) => RegisterOutcome::Unregistered { uri_bytes: removed.uri_bytes },
            None => RegisterOutcome::NoSuchRegistration,
        }
    }

    /// Takes a registration from one callee.
    pub(super) fn remove_one(&mut self, callee: Sitting, id: RegistrationId) -> Option<Revoked> {
        let entry = self.dealer.by_id.get(&id).copied()?;
        let place = self.dealer.held(callee, entry)?;
        let all = self.dealer.by_callee.get_mut(&callee)?;
        let held = all.swap_remove(place);
        if all.is_empty() {
            self.dealer.by_callee.remove(&callee);
        }
        self.leave(callee, held);
        Some(Revoked { callee, registration: id, uri_bytes: held.uri_bytes })
    }

    /// Takes a registration from all its callees.
    pub(super) fn remove_all(&mut self, entry: EntryKey) -> Vec<Revoked> {
        let Some(registration) = self.dealer.registrations.get(entry) else { return Vec::new() };
        let id = registration.id;
        let callees = match registration.serves {
            Serves::One(callee) => vec![callee],
            Serves::Pool(pool) => {
                let pool = self.dealer.pools.get(&pool);
                pool.map_or_else(Vec::new, |pool| pool.callees().map(|callee| callee.sitting).collect())
            }
            Serves::Database(_) => Vec::new(),
        };
        callees.into_iter().filter_map(|callee| self.remove_one(callee, id)).collect()
    }

    pub(super) fn callee_gone(&mut self, callee: Sitting) {
        self.dealer.takeovers.forget(callee);
        // What it waited for may have ended by the same input, and its turn not have come.
        self.work.retain(|work| !matches!(work, Work::Register(letter) if letter.callee == callee));
        for held in self.dealer.by_callee.remove(&callee).unwrap_or_default() {
            self.leave(callee, held);
        }
    }

    /// A callee leaves a registration, which ends with the last of them.
    fn leave(&mut self, callee: Sitting, held: Held) {
        let id = self.dealer.registrations.get(held.entry).map(|registration| registration.id);
        if let Some(id) = id {
            self.tell(held.session, id, ChangeKind::Unregistered);
        }
        let dealer = &mut *self.dealer;
        dealer.disclosing -= usize::from(held.disclose_caller);
        let is_last = match held.pool {
            None => true,
            Some((id, sequence)) => {
                let pool = dealer.pools.get_mut(&id);
                let is_last = pool.is_none_or(|pool| pool.remove(sequence) && pool.is_empty());
                self.callee_left(id, sequence, held.node);
                is_last
            }
        };
        if let Some(id) = id {
            self.end_takeover(id, callee);
        }
        if !is_last {
            return;
        }
        if let Some((pool, _)) = held.pool {
            self.dealer.pools.remove(&pool);
        }
        let is_wanted = !self.dealer.shadowed.is_empty();
        let uri = self.dealer.registrations.uri(held.entry).filter(|_| is_wanted);
        let uri = uri.map(|(uri, _)| Box::from(uri));
        if let Some(registration) = self.dealer.registrations.remove(held.entry) {
            self.dealer.by_id.remove(&registration.id);
            self.tell(held.session, registration.id, ChangeKind::Deleted);
            if let Some(uri) = uri {
                self.freed(uri);
            }
        }
    }
}

impl Dealer {
    /// The place of a registration among those that a callee holds.
    fn held(&self, callee: Sitting, entry: EntryKey) -> Option<usize> {
        self.by_callee.get(&callee)?.iter().position(|held| held.entry == entry)
    }

    fn hold(&mut self, letter: &RegisterLetter, held: Held) {
        self.disclosing += usize::from(letter.disclose_caller);
        self.by_callee.entry(letter.callee).or_default().push(held);
    }

    /// The node that a callee says it is of.
    pub(super) fn node_of(&self, letter: &RegisterLetter) -> Option<KeyHash> {
        letter.nkey.as_deref().map(|nkey| node_hash(&self.node_hasher, nkey))
    }

    fn new_pool(&mut self, id: RegistrationId, entry: EntryKey, letter: &RegisterLetter) -> PoolId {
        self.last_pool.0 += 1;
        let is_pattern = letter.match_policy != MatchPolicy::Exact;
        let pool = Pool::new(id, entry, is_pattern, letter.sharing.policy, self.seed);
        self.pools.insert(self.last_pool, pool);
        self.last_pool
    }

    fn enter(&mut self, pool: PoolId, letter: &RegisterLetter) -> Sequence {
        let sequence = Sequence::after(&mut self.last_sequence);
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.insert(sequence, letter, &self.node_hasher);
        }
        sequence
    }
}
