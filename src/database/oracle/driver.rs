//! A database of Oracle, and how sessions of it are opened.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::time::Duration;

use oracle::conn::Purity;
use oracle::{Connector, InitParams};

use super::errors::problem;
use super::outbox::Outbox;
use super::readable::Known;
use super::settings::Settings;
use super::statements::Open;
use super::subprograms::Subprogram;
use crate::database::inside::Calls;
use crate::database::{
    Connection, Declared, Driver, Numbers, Problem, PublicationLimits, Replayer, Shape, Source,
};
use crate::router::database::Procedure;

/// How long it may take to be told what there is.
pub(super) const LOOK: Duration = Duration::from_secs(30);

/// Less than a millisecond would be no limit at all.
pub(super) const CALL_MIN: Duration = Duration::from_millis(1);

/// Statements that the client keeps for each session.
const STATEMENTS_KEPT: u32 = 100;

/// What values look like as text, where SQL of others makes them text, does not depend on how the server is set up.
const SET_UP: &str = "alter session set time_zone = '+00:00' \
    nls_date_format = 'YYYY-MM-DD\"T\"HH24:MI:SS' \
    nls_timestamp_format = 'YYYY-MM-DD\"T\"HH24:MI:SS.FF' \
    nls_timestamp_tz_format = 'YYYY-MM-DD\"T\"HH24:MI:SS.FFTZH:TZM' \
    nls_numeric_characters = '.,'";

/// A schema, or one of its packages, whose functions and procedures are procedures.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Exposed {
    pub schema: String,
    /// Only what is in this package.
    pub package: Option<String>,
    /// Before the name of each.
    pub prefix: String,
    /// Names that are offered, with `*` for anything; all of them where there is none.
    pub allow: Vec<String>,
    /// And of those the ones that are not.
    pub deny: Vec<String>,
}

/// A database of a server.
#[derive(Clone)]
pub struct Oracle {
    /// Where it is, and who goes there.
    pub settings: Settings,
    /// The folder of the client library; `None` is where the system looks. The first database that is connected to says it
    /// for all of the process.
    pub client: Option<PathBuf>,
    /// How many connections there are for calls.
    pub connections: usize,
    /// The realm that it serves, as it is told.
    pub realm: String,
    /// The schema that has the packages `wamp` and `wamp_ctx`.
    pub owner: String,
    /// What it offers.
    pub exposed: Vec<Exposed>,
    /// See `exposed`.
    pub procedures: Vec<Declared>,
    /// Which user of the database a call runs as, by the role of its caller, through who connects; `None`: all run as that.
    pub roles: Option<HashMap<String, String>>,
    /// The connection class of pooled servers (DRCP); `None`: servers of its own.
    pub connection_class: Option<String>,
    /// How long a call may take unless its procedure says otherwise, in milliseconds; 0 is no limit.
    pub timeout_ms: u64,
    /// The longest result, or part of one, in bytes.
    pub result_bytes_max: usize,
    /// How numbers are told that not every client can hold.
    pub numbers: Numbers,
    /// That it publishes by its package `wamp`, and the bounds of that; `None`: it does not.
    pub publishing: Option<PublicationLimits>,
    /// Whether it is noted in each row of the outbox how many sessions got it.
    pub feedback: bool,
    /// Columns of rows whose texts are JSON, with `*` for anything.
    pub json_columns: Vec<String>,
    /// Who makes the calls of its statements; `None`: nobody does.
    pub calls: Option<Arc<Calls>>,
    /// Whether there is a `wamp_ctx` to be told who calls, as all connections know.
    pub(super) identity: Arc<AtomicU8>,
    /// The last position that was offered here; 0 is none.
    pub(super) offered: Arc<AtomicU64>,
}

/// What is known of `wamp_ctx`.
pub(super) mod identity {
    pub(in super::super) const UNKNOWN: u8 = 0;
    pub(in super::super) const MISSING: u8 = 1;
    pub(in super::super) const THERE: u8 = 2;
}

/// What this driver keeps of a procedure.
#[derive(Debug)]
pub(super) enum Target {
    /// Functions and procedures of one name.
    Subprograms(Vec<Subprogram>),
    /// SQL of the configuration; and what is known of it.
    Sql(String, Shape, Known),
}

impl fmt::Debug for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oracle").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Oracle {
    /// A database that offers nothing so far.
    #[must_use]
    pub fn new(settings: Settings, realm: &str) -> Self {
        let owner = settings.schema();
        Self {
            settings,
            client: None,
            connections: 8,
            realm: realm.to_owned(),
            owner,
            exposed: Vec::new(),
            procedures: Vec::new(),
            roles: None,
            connection_class: None,
            timeout_ms: 0,
            result_bytes_max: 1 << 20,
            numbers: Numbers::default(),
            publishing: None,
            feedback: false,
            json_columns: Vec::new(),
            calls: None,
            identity: Arc::default(),
            offered: Arc::default(),
        }
    }

    /// Opens a session: as who connects, or through that as another user of the database.
    ///
    /// # Errors
    /// Why not, for people.
    pub(super) fn open(&self, user: &str) -> Result<oracle::Connection, Problem> {
        self.load_client()?;
        let base = &self.settings.user;
        let name = if user.is_empty() { base.clone() } else { format!("{base}[{user}]") };
        let mut connector = Connector::new(name, self.settings.password(), &self.settings.connect);
        connector.stmt_cache_size(STATEMENTS_KEPT);
        if base.is_empty() {
            connector.external_auth(true);
        }
        if let Some(class) = &self.connection_class {
            connector.connection_class(class.as_str()).purity(Purity::Self_);
        }
        let connection = connector.connect().map_err(|error| problem(&error))?;
        let set_up = || -> oracle::Result<()> {
            connection.set_call_timeout(Some(LOOK))?;
            connection.set_module("crosspoint")?;
            connection.execute(SET_UP, &[])?;
            Ok(())
        };
        set_up().map_err(|error| problem(&error))?;
        Ok(connection)
    }

    /// The client library is loaded once for the process; one that was not found is looked for again.
    fn load_client(&self) -> Result<(), Problem> {
        let Some(folder) = &self.client else { return Ok(()) };
        if InitParams::is_initialized() {
            return Ok(());
        }
        let mut parameters = InitParams::new();
        let loaded =
            parameters.oracle_client_lib_dir(folder.as_os_str()).and_then(|parameters| parameters.init());
        loaded.map(|_| ()).map_err(|error| problem(&error))
    }
}

impl Driver for Oracle {
    fn lanes(&self) -> Vec<usize> {
        vec![self.connections.max(1)]
    }

    fn lane_of(&self, _procedure: &Procedure) -> usize {
        0
    }

    fn connect(&self, _lane: usize) -> Result<Box<dyn Connection>, Problem> {
        let connection = self.open("")?;
        Ok(Box::new(Open::new(self.clone(), connection)))
    }

    fn source(&self) -> Result<Option<Box<dyn Source>>, Problem> {
        let Some(limits) = self.publishing else { return Ok(None) };
        Ok(Some(Box::new(Outbox::lead(self, limits)?)))
    }

    fn publishes(&self) -> bool {
        self.publishing.is_some()
    }

    fn replayer(&self) -> Result<Option<Box<dyn Replayer>>, Problem> {
        let Some(limits) = self.publishing else { return Ok(None) };
        Ok(Some(Box::new(Outbox::open(self, limits)?)))
    }
}
