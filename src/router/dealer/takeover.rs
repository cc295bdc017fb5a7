//! Takeover: a client that comes back registers what its last session still seems to hold.
//!
//! Only among sessions of one authid, and never among anonymous ones. The holder is asked whether it is there, by a ping
//! whose pong it has a moment to send; the REGISTER waits for what comes of that.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::collections::BTreeSet;

use super::queue::{Home, Work};
use super::registration::{Registration, Serves};
use super::{Dealer, Revoked};
use crate::router::Router;
use crate::router::effects::Effects;
use crate::router::peer::{
    CoreId, PeerMessage, RealmIndex, RegisterLetter, RegisterOutcome, SessionKey, Sitting,
};
use crate::wamp::RegistrationId;

/// Why a callee lost its registration to its successor.
const TAKEN_OVER: &str = "crosspoint.reason.taken_over";

/// The REGISTERs of a realm that wait for the holder of what they want.
#[derive(Debug)]
pub(super) struct Takeovers {
    /// In the order in which they came. Ends with the holder's answer, when it loses what it holds, and with who asked.
    by_holder: HashMap<(RegistrationId, Sitting), Vec<RegisterLetter>, FixedState>,
    /// The same, so that the end of who asked finds them.
    by_callee: BTreeSet<(Sitting, RegistrationId, Sitting)>,
}

impl Takeovers {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self { by_holder: HashMap::with_hasher(hasher), by_callee: BTreeSet::new() }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.by_holder.is_empty(), self.by_callee.is_empty());
        self.by_holder.values().map(Vec::len).sum()
    }

    fn take(&mut self, id: RegistrationId, holder: Sitting) -> Vec<RegisterLetter> {
        let letters = self.by_holder.remove(&(id, holder)).unwrap_or_default();
        for letter in &letters {
            self.by_callee.remove(&(letter.callee, id, holder));
        }
        letters
    }

    /// Who asked is gone.
    pub(super) fn forget(&mut self, callee: Sitting) {
        let key = SessionKey { slot: 0, generation: 0 };
        let least = (callee, RegistrationId(0), Sitting { core: CoreId(0), number: 0, key });
        while let Some(&(asker, id, holder)) = self.by_callee.range(least..).next()
            && asker == callee
        {
            self.by_callee.remove(&(callee, id, holder));
            if let Some(letters) = self.by_holder.get_mut(&(id, holder)) {
                letters.retain(|letter| letter.callee != callee);
                if letters.is_empty() {
                    self.by_holder.remove(&(id, holder));
                }
            }
        }
    }
}

/// What a REGISTER waits for.
pub(super) enum Takeover {
    /// It does not.
    No,
    /// The word of this holder, which may have been asked already.
    Of { holder: Sitting, id: RegistrationId, is_asked: bool },
}

impl Home<'_> {
    /// Whether a REGISTER may get what another session of its own holds.
    pub(super) fn takeover_of(&self, letter: &RegisterLetter) -> Takeover {
        let Some(authid) = letter.authid.as_deref().filter(|_| !letter.force_reregister) else {
            return Takeover::No;
        };
        let entry = self.dealer.registrations.find(letter.match_policy, &letter.procedure);
        let Some(registration) = entry.and_then(|entry| self.dealer.registrations.get(entry)) else {
            return Takeover::No;
        };
        match self.dealer.sole_holder(registration, letter) {
            Some((holder, whose)) if whose == Some(authid) && holder != letter.callee => {
                let id = registration.id;
                let is_asked = self.dealer.takeovers.by_holder.contains_key(&(id, holder));
                Takeover::Of { holder, id, is_asked }
            }
            _ => Takeover::No,
        }
    }

    pub(super) fn wait_for_holder(
        &mut self,
        id: RegistrationId,
        holder: Sitting,
        mut letter: RegisterLetter,
    ) {
        letter.has_waited = true;
        let takeovers = &mut self.dealer.takeovers;
        takeovers.by_callee.insert((letter.callee, id, holder));
        takeovers.by_holder.entry((id, holder)).or_default().push(letter);
    }

    /// A callee holds a registration no longer: who waited for it may try again.
    pub(super) fn end_takeover(&mut self, id: RegistrationId, holder: Sitting) {
        if self.dealer.takeovers.by_callee.is_empty() {
            return;
        }
        // Before the calls that waited there are routed anew: they shall find it.
        let ahead = self.work.iter().take_while(|work| matches!(work, Work::Register(_))).count();
        for (place, letter) in (ahead..).zip(self.dealer.takeovers.take(id, holder)) {
            self.work.insert(place, Work::Register(letter.into()));
        }
    }
}

impl Dealer {
    /// Who holds what a callee wants of a registration that is not shared, and its authid.
    fn sole_holder<'a>(
        &'a self,
        registration: &'a Registration,
        letter: &RegisterLetter,
    ) -> Option<(Sitting, Option<&'a str>)> {
        let authid = registration.authid.as_deref();
        match registration.serves {
            Serves::One(callee) => Some((callee, authid)),
            Serves::Database(_) => None,
            Serves::Pool(pool) => {
                let pool = self.pools.get(&pool).filter(|_| registration.is_exclusive())?;
                // Nodes stand beside each other, whoever they are.
                let Some(nodes) = pool.nodes() else {
                    return pool.callees().next().map(|callee| (callee.sitting, authid));
                };
                let node = nodes.get(self.node_of(letter)?)?;
                let callee = pool.callee(*node.callees.first()?)?;
                Some((callee.sitting, node.authid.as_deref()))
            }
        }
    }
}

impl Router {
    /// At home: a REGISTER waits until its procedure's holder is found there, or not.
    pub(super) fn wait_for_holder(
        &mut self,
        (holder, id): (Sitting, RegistrationId),
        is_asked: bool,
        letter: RegisterLetter,
        effects: &mut impl Effects,
    ) {
        let (realm, callee, request) = (letter.realm, letter.callee, letter.request);
        let has_waited = letter.has_waited;
        let Some(mut home) = self.home(realm) else { return };
        home.wait_for_holder(id, holder, letter);
        // Its credit must not wait for another client (R8).
        if !has_waited {
            self.reply_to_registrar(callee, request, RegisterOutcome::Waits, false, effects);
        }
        if is_asked {
            return;
        }
        if holder.core == self.core {
            self.probe_callee(holder, id, effects);
        } else {
            effects.peer(holder.core, PeerMessage::Probe { callee: holder, registration: id });
        }
    }

    /// On the holder's core: is it there? If its session is not, home has been told.
    pub(in crate::router) fn probe_callee(
        &mut self,
        callee: Sitting,
        registration: RegistrationId,
        effects: &mut impl Effects,
    ) {
        if self.sessions.sitting(callee).is_none() {
            return;
        }
        let key = callee.key;
        let asked = self.probes.entry(key).or_default();
        asked.push(registration);
        // One ping is enough for all that it holds; and where none can be sent, the kernel's keepalive has to find out.
        if asked.len() == 1 && !effects.probe(key) {
            self.answer_probe(key, true, effects);
        }
    }

    /// A client that was to be probed has answered, or has not.
    pub(in crate::router) fn answer_probe(
        &mut self,
        key: SessionKey,
        is_there: bool,
        effects: &mut impl Effects,
    ) {
        let Some(asked) = self.probes.remove(&key) else { return };
        let callee = self.sitting(key);
        let (realm, session) = self.realm_and_session(key);
        let (realm, home) = (session.realm, realm.home);
        for registration in asked {
            if home == self.core {
                self.decide_takeover(realm, callee, registration, is_there, effects);
            } else {
                effects.peer(home, PeerMessage::Probed { realm, callee, registration, is_there });
            }
        }
    }

    /// At home: the holder keeps its registration, or loses it to who waits.
    pub(in crate::router) fn decide_takeover(
        &mut self,
        realm: RealmIndex,
        callee: Sitting,
        registration: RegistrationId,
        is_there: bool,
        effects: &mut impl Effects,
    ) {
        let Some(home) = self.home(realm) else { return };
        if !home.dealer.takeovers.by_holder.contains_key(&(registration, callee)) {
            // Nobody wants it any longer.
            return;
        }
        if !is_there {
            // Who waits gets it when it ends.
            let revoked: Vec<Revoked> =
                self.revoke_registration(realm, registration, Some(callee), TAKEN_OVER, effects);
            effects.counters().takeovers += revoked.len() as u64;
            return;
        }
        let Some(home) = self.home(realm) else { return };
        for letter in home.dealer.takeovers.take(registration, callee) {
            let outcome = RegisterOutcome::AlreadyExists { uri_bytes: letter.uri_bytes() };
            self.reply_to_registrar(letter.callee, letter.request, outcome, true, effects);
        }
    }
}
