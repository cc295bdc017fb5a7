//! A database with the schema `wamp`, and what the tests do with it.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crosspoint::database::postgres::install::{Options, Plan};
use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, NoTls, Row};

use super::server::{PATIENCE, Server, Setup};

const SUPERUSER: &str = "postgres";

/// One server for all tests of this process, which ends with it.
pub(super) fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(Server::start)
}

/// A database of one test. Roles belong to the whole server, so their names begin with the database's.
pub(super) struct Database {
    socket: PathBuf,
    port: u16,
    pub(super) name: String,
}

/// An error as tests look at it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) detail: Option<String>,
    pub(super) hint: Option<String>,
}

impl Database {
    /// Empty, owned by a role of its own that is no superuser.
    pub(super) fn empty() -> Self {
        Self::empty_on(shared())
    }

    fn empty_on(server: &Server) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let database = Self { socket: server.directory().to_owned(), port: server.port(), name };
        let mut client = database.connect_to(SUPERUSER, "postgres");
        database.create_role(&mut client, "owner");
        let name = &database.name;
        client
            .batch_execute(&format!("CREATE DATABASE {name} OWNER {name}_owner TEMPLATE template0"))
            .unwrap();
        database
    }

    /// With the newest version installed, the role `router` trusted, and `ann`, who may publish below `com.shop.`.
    pub(super) fn installed() -> Self {
        Self::installed_on(shared())
    }

    /// As [`Database::installed`], on a server where nothing else goes on.
    pub(super) fn alone() -> Self {
        let server = Setup::default().setting("autovacuum", "off").start();
        // It ends with the process.
        Self::installed_on(Box::leak(Box::new(server)))
    }

    /// As [`Database::installed`], on a server of one's own.
    pub(super) fn installed_on(server: &Server) -> Self {
        let database = Self::empty_on(server);
        let mut client = database.superuser();
        database.create_role(&mut client, "router");
        database.create_role(&mut client, "ann");
        let options = Options { router: Some(database.role("router")), ..Options::default() };
        let mut owner = database.connect("owner");
        run(&mut owner, &Plan::upgrade(None, &options).unwrap()).unwrap();
        database.allow(&mut owner, "ann", "publish", "com.shop.", "prefix");
        database
    }

    pub(super) fn role(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }

    pub(super) fn create_role(&self, client: &mut Client, name: &str) {
        client.batch_execute(&format!("CREATE ROLE {} LOGIN", self.role(name))).unwrap();
    }

    pub(super) fn allow(&self, owner: &mut Client, role: &str, action: &str, uri: &str, policy: &str) {
        let role = if role == "public" { role.to_owned() } else { self.role(role) };
        owner.execute("SELECT wamp.allow($1, $2, $3, $4)", &[&role, &action, &uri, &policy]).unwrap();
    }

    pub(super) fn superuser(&self) -> Client {
        self.connect_to(SUPERUSER, &self.name)
    }

    pub(super) fn connect(&self, role: &str) -> Client {
        self.connect_to(&self.role(role), &self.name)
    }

    /// As [`Database::connect`]; what the server tells beside its answers is heard.
    pub(super) fn connect_and_hear(&self, role: &str, hear: impl Fn(&str) + Send + Sync + 'static) -> Client {
        let mut config = self.config(&self.role(role), &self.name);
        config.notice_callback(move |notice| {
            hear(notice.message());
            hear(notice.detail().unwrap_or_default());
        });
        config.connect(NoTls).unwrap()
    }

    fn connect_to(&self, user: &str, database: &str) -> Client {
        self.config(user, database).connect(NoTls).unwrap()
    }

    fn config(&self, user: &str, database: &str) -> postgres::Config {
        let mut config = postgres::Config::new();
        config.host_path(&self.socket).port(self.port).user(user).dbname(database).connect_timeout(PATIENCE);
        config
    }

    /// A connection that drains, and its epoch.
    pub(super) fn lead(&self) -> (Client, i64) {
        let mut client = self.connect("router");
        let epoch = client.query_one("SELECT epoch FROM wamp.lead('test')", &[]).unwrap().get(0);
        (client, epoch)
    }
}

/// Runs a plan as the program will.
pub(super) fn run(client: &mut Client, plan: &Plan) -> Result<(), postgres::Error> {
    for statement in plan.statements() {
        if let Err(error) = client.batch_execute(&statement.sql) {
            client.batch_execute("ROLLBACK").unwrap();
            return Err(error);
        }
    }
    Ok(())
}

/// What a statement was refused with.
pub(super) fn refusal(client: &mut Client, sql: &str) -> Refusal {
    let error = client.batch_execute(sql).expect_err(sql);
    refusal_of(&error)
}

pub(super) fn refusal_of(error: &postgres::Error) -> Refusal {
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    Refusal {
        code: error.code().code().to_owned(),
        message: error.message().to_owned(),
        detail: error.detail().map(str::to_owned),
        hint: error.hint().map(str::to_owned),
    }
}

/// Every one of these is refused for want of a right.
pub(super) fn assert_denied(client: &mut Client, statements: &[&str]) {
    for sql in statements {
        let refused = refusal(client, sql);
        assert_eq!(refused.code, SqlState::INSUFFICIENT_PRIVILEGE.code(), "{sql}: {refused:?}");
    }
}

/// The first column of the first row.
pub(super) fn value<T: for<'a> postgres::types::FromSql<'a>>(client: &mut Client, sql: &str) -> T {
    client.query_one(sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

pub(super) fn publish(client: &mut Client, topic: &str, kwargs: &str) -> i64 {
    client.query_one("SELECT wamp.publish($1, NULL, $2::text::jsonb)", &[&topic, &kwargs]).unwrap().get(0)
}

/// What was claimed: (id, position, topic, kwargs, why it was set aside).
pub(super) type Claimed = (i64, Option<i64>, String, Option<String>, Option<String>);

/// Claims with the bounds of a router.
pub(super) fn claim(client: &mut Client, epoch: i64) -> Vec<Claimed> {
    claim_at_most(client, epoch, 10_000, 16 << 20, 16 << 20)
}

pub(super) fn claim_at_most(
    client: &mut Client,
    epoch: i64,
    rows: i32,
    bytes: i64,
    row: i32,
) -> Vec<Claimed> {
    let sql = "SELECT id, position, uri, kwargs::text, set_aside FROM wamp.claim($1, $2, $3, $4)";
    client.query(sql, &[&epoch, &rows, &bytes, &row]).unwrap().iter().map(claimed).collect()
}

fn claimed(row: &Row) -> Claimed {
    (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))
}

pub(super) fn mark(client: &mut Client, epoch: i64, upto: i64) {
    client.execute("SELECT wamp.mark($1, $2)", &[&epoch, &upto]).unwrap();
}

/// Whether there were notifications on a channel.
pub(super) fn notified(client: &mut Client, channel: &str) -> bool {
    // The server sends them between two statements at the latest.
    client.batch_execute("SELECT 1").unwrap();
    client.batch_execute("SELECT 1").unwrap();
    let mut found = false;
    let mut notifications = client.notifications();
    let mut received = notifications.iter();
    while let Some(notification) = received.next().unwrap() {
        found |= notification.channel() == channel;
    }
    found
}
