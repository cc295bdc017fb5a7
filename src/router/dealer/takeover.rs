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
use crate::router::peer::{PeerMessage, RealmIndex, RegisterLetter, RegisterOutcome, SessionKey, Sitting};
use crate::wamp::RegistrationId;

/// Why a callee lost its registration to its successor.
const TAKEN_OVER: &str = "crosspoint.reason.taken_over";

/// The REGISTERs of a realm that wait for the holder of what they want.
#[derive(Debug)]
pub(super) struct Takeovers {
    /// In the order in which they came. Ends with the holder's answer, the registration, and who asked.
    by_registration: HashMap<RegistrationId, Vec<RegisterLetter>, FixedState>,
    /// The same, so that the end of who asked finds them.
    by_callee: BTreeSet<(Sitting, RegistrationId)>,
}

impl Takeovers {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self { by_registration: HashMap::with_hasher(hasher), by_callee: BTreeSet::new() }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.by_registration.is_empty(), self.by_callee.is_empty());
        self.by_registration.values().map(Vec::len).sum()
    }

    fn take(&mut self, id: RegistrationId) -> Vec<RegisterLetter> {
        let letters = self.by_registration.remove(&id).unwrap_or_default();
        for letter in &letters {
            self.by_callee.remove(&(letter.callee, id));
        }
        letters
    }

    /// Who asked is gone.
    pub(super) fn forget(&mut self, callee: Sitting) {
        let of_callee = (callee, RegistrationId(0))..=(callee, RegistrationId(u64::MAX));
        while let Some(&(callee, id)) = self.by_callee.range(of_callee.clone()).next() {
            self.by_callee.remove(&(callee, id));
            if let Some(letters) = self.by_registration.get_mut(&id) {
                letters.retain(|letter| letter.callee != callee);
                if letters.is_empty() {
                    self.by_registration.remove(&id);
                }
            }
        }
    }
}

/// What a REGISTER waits for.
pub(super) enum Takeover {
    /// It does not.
    No,
    /// This holder has to be asked.
    Ask(Sitting, RegistrationId),
    /// It has been asked.
    Asked(RegistrationId),
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
        match self.dealer.sole_holder(registration) {
            Some(holder) if registration.authid.as_deref() == Some(authid) && holder != letter.callee => {
                let is_asked = self.dealer.takeovers.by_registration.contains_key(&registration.id);
                if is_asked {
                    Takeover::Asked(registration.id)
                } else {
                    Takeover::Ask(holder, registration.id)
                }
            }
            _ => Takeover::No,
        }
    }

    pub(super) fn wait_for_holder(&mut self, id: RegistrationId, mut letter: RegisterLetter) {
        letter.has_waited = true;
        let takeovers = &mut self.dealer.takeovers;
        takeovers.by_callee.insert((letter.callee, id));
        takeovers.by_registration.entry(id).or_default().push(letter);
    }

    /// A registration is over: who waited for it may try again.
    pub(super) fn end_takeover(&mut self, id: RegistrationId) {
        if self.dealer.takeovers.by_callee.is_empty() {
            return;
        }
        // Before the calls that waited there are routed anew: they shall find it.
        let ahead = self.work.iter().take_while(|work| matches!(work, Work::Register(_))).count();
        for (place, letter) in (ahead..).zip(self.dealer.takeovers.take(id)) {
            self.work.insert(place, Work::Register(letter.into()));
        }
    }
}

impl Dealer {
    /// Who holds a registration that is not shared.
    fn sole_holder(&self, registration: &Registration) -> Option<Sitting> {
        match registration.serves {
            Serves::One(callee) => Some(callee),
            Serves::Database(_) => None,
            Serves::Pool(pool) => {
                let pool = self.pools.get(&pool).filter(|pool| {
                    // Nodes stand beside each other, whoever they are.
                    registration.is_exclusive() && pool.nodes().is_none()
                })?;
                pool.callees().next().map(|callee| callee.sitting)
            }
        }
    }
}

impl Router {
    /// At home: a REGISTER waits until its procedure's holder is found there, or not.
    pub(super) fn ask_holder(
        &mut self,
        holder: Option<Sitting>,
        id: RegistrationId,
        letter: RegisterLetter,
        effects: &mut impl Effects,
    ) {
        let (realm, callee, request) = (letter.realm, letter.callee, letter.request);
        let has_waited = letter.has_waited;
        let Some(mut home) = self.home(realm) else { return };
        home.wait_for_holder(id, letter);
        // Its credit must not wait for another client (R8).
        if !has_waited {
            self.reply_to_registrar(callee, request, RegisterOutcome::Waits, false, effects);
        }
        match holder {
            Some(holder) if holder.core == self.core => self.probe_callee(holder, id, effects),
            Some(callee) => effects.peer(callee.core, PeerMessage::Probe { callee, registration: id }),
            None => {}
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
        if !home.dealer.takeovers.by_registration.contains_key(&registration) {
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
        for letter in home.dealer.takeovers.take(registration) {
            let outcome = RegisterOutcome::AlreadyExists { uri_bytes: letter.uri_bytes() };
            self.reply_to_registrar(letter.callee, letter.request, outcome, true, effects);
        }
    }
}
