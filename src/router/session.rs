//! Sessions of this core: from the connection to HELLO, and what a session holds.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::calls::OpenCall;
use super::identity::Identity;
use super::peer::{RealmIndex, SessionKey, Sitting};
use super::testaments::Testaments;
use super::uri_map::EntryKey;
use crate::config::AuthMethod;
use crate::config::authentication::ANONYMOUS_PREFIX;
use crate::wamp::features::ClientFeatures;
use crate::wamp::{RequestId, SessionId};

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No connection has this slot.
    Vacant,
    /// No session yet, or no longer: HELLO may come.
    Connected,
    /// CHALLENGE was sent: AUTHENTICATE has to come.
    Challenging,
    /// WELCOME was sent.
    Open,
}

/// A subscription of a session, and its place among the subscribers: leaving a topic is O(1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscribed {
    pub(super) entry: EntryKey,
    pub(super) index: u32,
}

/// What only sessions that do something have.
#[derive(Debug)]
pub(super) struct Active {
    /// Ends with UNSUBSCRIBE and with the session.
    pub(super) subscriptions: Vec<Subscribed>,
    /// Ends with the call's answer, and with the session.
    pub(super) calls: HashMap<RequestId, OpenCall, FixedState>,
    /// Ends with the callee's answer, a cancel, and with the session; the value is an index into `Invocations`.
    pub(super) invocations: HashMap<RequestId, u32, FixedState>,
    /// The last INVOCATION.Request: counts 1, 2, 3, … per session.
    pub(super) last_invocation: RequestId,
    /// Registrations held or asked for.
    pub(super) registrations: u32,
    /// Whether the dealer must hear of the session's end.
    pub(super) ever_registered: bool,
    /// Bytes of the URIs that are subscribed and registered.
    pub(super) uri_bytes: u32,
    /// Events that were dropped since the last one that was sent.
    pub(super) events_lost: u64,
    /// What is published when the session ends.
    pub(super) testaments: Option<Box<Testaments>>,
    /// What `wamp.session.modify_details` has said of it.
    pub(super) details: Option<Box<serde_json::Map<String, serde_json::Value>>>,
}

/// One connection of this core and the session on it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) generation: u32,
    /// How many sessions of this connection have ended.
    pub(super) number: u16,
    pub(super) state: State,
    /// There are at most 256.
    pub(super) listener: u8,
    pub(super) realm: RealmIndex,
    pub(super) role: u16,
    pub(super) features: ClientFeatures,
    pub(super) id: SessionId,
    /// The last request of the client.
    pub(super) last_request: RequestId,
    pub(super) active: Option<Box<Active>>,
    /// `None` for an anonymous session.
    pub(super) identity: Option<Box<Identity>>,
}

// The cost sheet: what every connection pays, and what those pay that do something.
const _: () = assert!(size_of::<Session>() <= 48);
const _: () = assert!(size_of::<Active>() <= 192);

impl Session {
    fn vacant(generation: u32) -> Self {
        Self {
            generation,
            number: 0,
            state: State::Vacant,
            listener: 0,
            realm: RealmIndex(0),
            role: 0,
            features: ClientFeatures::default(),
            id: SessionId(0),
            last_request: RequestId(0),
            active: None,
            identity: None,
        }
    }

    /// What the session holds, made when it first holds something.
    pub(super) fn active(&mut self, hash_seed: u64) -> &mut Active {
        self.active.get_or_insert_with(|| {
            let hasher = FixedState::with_seed(hash_seed);
            Box::new(Active {
                subscriptions: Vec::new(),
                calls: HashMap::with_hasher(hasher.clone()),
                invocations: HashMap::with_hasher(hasher),
                last_invocation: RequestId(0),
                registrations: 0,
                ever_registered: false,
                uri_bytes: 0,
                events_lost: 0,
                testaments: None,
                details: None,
            })
        })
    }

    /// The authid; that of an anonymous session is its own, so that rules about one never reach another.
    pub(super) fn authid(&self) -> String {
        match &self.identity {
            Some(identity) => identity.authid.to_string(),
            None => format!("{ANONYMOUS_PREFIX}{:x}", self.id.0),
        }
    }

    pub(super) fn authmethod(&self) -> &'static str {
        self.identity.as_ref().map_or(AuthMethod::Anonymous, |identity| identity.authmethod).as_str()
    }

    pub(super) fn authprovider(&self) -> &'static str {
        self.identity.as_ref().map_or("static", |identity| identity.authprovider)
    }

    /// What the provider says beside: a map in JSON.
    pub(super) fn authextra(&self) -> Option<&str> {
        self.identity.as_ref().map(|identity| &*identity.authextra).filter(|extra| !extra.is_empty())
    }
}

/// All sessions of a core, by slot.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: Vec<Session>,
    /// The slots of open sessions; ends with the session.
    by_id: HashMap<SessionId, u32, FixedState>,
}

impl Sessions {
    /// A new connection takes a slot.
    pub(super) fn open(&mut self, key: SessionKey, listener: u8) {
        let slot = key.slot as usize;
        while self.slots.len() <= slot {
            self.slots.push(Session::vacant(0));
        }
        self.slots[slot] = Session { state: State::Connected, listener, ..Session::vacant(key.generation) };
    }

    /// The connection, unless it is gone.
    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        let session = self.slots.get_mut(key.slot as usize)?;
        (session.generation == key.generation && session.state != State::Vacant).then_some(session)
    }

    /// The connection, unless it is gone.
    pub(super) fn get(&self, key: SessionKey) -> Option<&Session> {
        let session = self.slots.get(key.slot as usize)?;
        (session.generation == key.generation && session.state != State::Vacant).then_some(session)
    }

    /// The session that a message of a peer is for, unless it has ended.
    pub(super) fn sitting(&mut self, of: Sitting) -> Option<&mut Session> {
        self.get_mut(of.key).filter(|session| session.state == State::Open && session.number == of.number)
    }

    /// Whoever has this slot: for lists that hold slots and are cleared when a session ends.
    pub(super) fn at(&self, slot: u32) -> &Session {
        &self.slots[slot as usize]
    }

    /// As [`Self::at`].
    pub(super) fn at_mut(&mut self, slot: u32) -> &mut Session {
        &mut self.slots[slot as usize]
    }

    /// The connection is gone.
    pub(super) fn free(&mut self, key: SessionKey) {
        if self.get(key).is_some() {
            self.slots[key.slot as usize] = Session::vacant(key.generation);
        }
    }

    /// A session has opened.
    pub(super) fn list(&mut self, id: SessionId, slot: u32) {
        self.by_id.insert(id, slot);
    }

    /// A session has ended.
    pub(super) fn unlist(&mut self, id: SessionId) {
        self.by_id.remove(&id);
        if self.by_id.capacity() > 1024 && self.by_id.capacity() / 8 > self.by_id.len() {
            self.by_id.shrink_to(self.by_id.len() * 2);
        }
    }

    /// An open session, by its id.
    pub(super) fn find(&self, id: SessionId) -> Option<(SessionKey, &Session)> {
        let slot = *self.by_id.get(&id)?;
        let session = self.at(slot);
        Some((SessionKey { slot, generation: session.generation }, session))
    }

    /// All open sessions. It looks at every slot.
    pub(super) fn open_ones(&self) -> impl Iterator<Item = (SessionKey, &Session)> {
        let slots = (0..).zip(&self.slots).filter(|(_, session)| session.state == State::Open);
        slots.map(|(slot, session)| (SessionKey { slot, generation: session.generation }, session))
    }

    /// How many slots there are.
    pub(super) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// How many sessions are open.
    pub(super) fn open_count(&self) -> usize {
        self.by_id.len()
    }

    /// How many connections there are; for tests.
    pub(super) fn count(&self) -> usize {
        self.slots.iter().filter(|session| session.state != State::Vacant).count()
    }
}
