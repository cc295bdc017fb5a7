//! The ways in: listeners, and for each database that calls and subscribes one of its own.
//!
//! Who comes in by the door of a database is a thread of this process ([`crate::database::inside`]). It is taken at its word
//! who it is, and gets the role that the configuration gives the database; from there on it is a session like any other.

use std::time::Duration;

use super::Router;
use super::database::{DatabaseIndex, batch_of_key};
use super::effects::Effects;
use super::identity::{Identity, NEVER};
use super::joining::Admission;
use super::peer::{PublicationHead, RealmIndex, SessionKey};
use crate::config::{self, AuthMethod, Config};
use crate::wamp::error::uri;
use crate::wamp::message::Hello;

/// A way in, as far as it matters who comes in by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// The role of anonymous sessions, and of those of the database.
    pub role: String,
    /// How clients may log in; `None` is whatever their realm offers.
    pub authmethods: Option<Vec<AuthMethod>>,
    /// How long a login is good by its cookie; `None` where there are none.
    pub cookie_age: Option<Duration>,
    /// Whose door it is; `None` for clients.
    pub database: Option<DatabaseDoor>,
}

/// A door of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseDoor {
    /// Which database it is.
    pub database: DatabaseIndex,
    /// Whether those who come in here get what the database itself publishes.
    pub own_events: bool,
}

impl From<&config::Listener> for Door {
    fn from(listener: &config::Listener) -> Self {
        Self {
            role: listener.role.clone(),
            authmethods: listener.authmethods.clone(),
            cookie_age: listener.cookie.as_ref().map(|cookie| cookie.max_age),
            database: None,
        }
    }
}

/// All doors of a configuration: the listeners by their numbers, and behind them those of databases in their order.
#[must_use]
pub fn doors(config: &Config) -> Vec<Door> {
    let of_databases = (0..).map(DatabaseIndex).zip(&config.databases).filter_map(|(index, database)| {
        let inside = database.inside.as_ref()?;
        Some(Door {
            role: inside.role.clone(),
            authmethods: None,
            cookie_age: None,
            database: Some(DatabaseDoor { database: index, own_events: inside.own_events }),
        })
    });
    config.listeners.iter().map(Door::from).chain(of_databases).collect()
}

/// Those of databases, by their numbers.
#[derive(Debug)]
pub(super) struct DatabaseDoors {
    all: Box<[(u8, DatabaseDoor)]>,
}

impl DatabaseDoors {
    pub(super) fn new(doors: &[Door]) -> Self {
        let all = (0..).zip(doors).filter_map(|(number, door)| Some((number, door.database?))).collect();
        Self { all }
    }

    fn is_one(&self, number: u8) -> bool {
        self.all.iter().any(|(other, _)| *other == number)
    }

    /// By which door nobody gets a publication: a database is not told what it said itself, so that a function that
    /// publishes what it is subscribed to does not call itself for ever.
    #[inline]
    pub(super) fn spared_by(&self, head: &PublicationHead) -> Option<u8> {
        if self.all.is_empty() {
            return None;
        }
        let (database, _) = batch_of_key(head.publisher.key)?;
        let own = |(_, door): &&(u8, DatabaseDoor)| door.database == database && !door.own_events;
        self.all.iter().find(own).map(|(number, _)| *number)
    }
}

impl Router {
    /// Opens a session for who comes in by the door of a database; `false` where it is a door for clients.
    pub(super) fn open_for_database(
        &mut self,
        key: SessionKey,
        realm: RealmIndex,
        hello: &Hello<'_>,
        effects: &mut impl Effects,
    ) -> bool {
        let listener = self.sessions.at(key.slot).listener;
        if !self.database_doors.is_one(listener) {
            return false;
        }
        let roles = &self.realms[usize::from(realm.0)].anonymous_role;
        let Some(role) = roles.get(usize::from(listener)).copied().flatten() else {
            self.abort(key, uri::NO_SUCH_ROLE, "the realm does not have the role of the database", effects);
            return true;
        };
        let identity = Identity {
            authid: hello.details.authid.as_deref().unwrap_or("database").into(),
            // It has shown nothing.
            authmethod: AuthMethod::Anonymous,
            authprovider: "database",
            authextra: Box::default(),
            expires_us: NEVER,
        };
        let (id, features) = (self.random.session_id(), hello.details.features);
        let identity = Some(Box::new(identity));
        self.open_session(key, Admission { id, realm, role, features, identity }, effects);
        true
    }
}
