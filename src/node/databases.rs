//! The databases of a node: started with the cores, and ended after them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::config::{
    Config, Database, DatabaseInside, DatabaseKind, DatabaseProcedure, DatabaseSubscription, Limits,
};
use crate::database::inside::{Calls, DeclaredSubscription, Inside, InsideOptions, News, Threads};
use crate::database::pool::Notice;
use crate::database::postgres::inside::PostgresInside;
use crate::database::postgres::{Exposed, Postgres};
use crate::database::sqlite::inside::SqliteInside;
use crate::database::sqlite::{Publishes, Sqlite};
use crate::database::{DatabaseEnd, Declared, Driver, Numbers, Pool, PoolOptions, PublicationLimits};
use crate::router::database::{DatabaseIndex, Publisher};
use crate::router::peer::RealmIndex;
use crate::shard::clock;
use crate::shard::entrance::Entrance;
use crate::shard::mesh::CoreWaker;
use crate::wamp::codec::DecodeLimits;

/// Their threads.
#[derive(Debug, Default)]
pub(super) struct Databases {
    /// Their names.
    names: Vec<String>,
    pools: Vec<Pool>,
    /// Of each that calls and subscribes.
    insides: Vec<Option<Threads>>,
}

/// The ways in of databases that call and subscribe, in their order.
pub(super) type Entrances = Vec<Arc<Entrance>>;

impl Databases {
    /// Starts those of the configuration, for cores with these doorbells. None of them need be there.
    pub(super) fn start(
        config: &Config,
        wakers: &[CoreWaker],
        entrances: &[Arc<Entrance>],
    ) -> io::Result<Self> {
        let (mut entrances, mut insides) = (entrances.iter(), Vec::new());
        let mut pools = Vec::with_capacity(config.databases.len());
        for (number, database) in (0..).zip(&config.databases) {
            let names = (realm_of(config, database), DatabaseIndex(number));
            let options = PoolOptions {
                queue_max: database.queue_max,
                queue_bytes_max: database.queue_bytes_max,
                refresh: database.refresh,
                replay_timeout: database.replay_timeout,
            };
            let name = database.name.clone();
            let notify = Arc::new(move |notice: &Notice| log(&name, notice));
            let missing = || io::Error::other(format!("the url of database {} was not read", database.name));
            let entrance = database.inside.as_ref().and_then(|_| entrances.next());
            let calls = database.inside.as_ref().map(|inside| Calls::new(inside.calls_max)).transpose()?;
            let calls = calls.map(Arc::new);
            let sqlite = (database.kind == DatabaseKind::Sqlite).then(|| sqlite_of(database, &config.limits));
            let parts = (calls.clone(), sqlite.clone());
            let driver = driver_of(database, &config.limits, parts).ok_or_else(missing)?;
            let pool = Pool::start(driver, names, options, wakers.to_vec(), notify)?;
            if let (Some(inside), Some(entrance), Some(calls)) = (&database.inside, entrance, calls) {
                let (driver, options) =
                    inside_of(database, inside, (&config.limits, sqlite)).ok_or_else(missing)?;
                let (name, kind) = (database.name.clone(), database.kind);
                let tell = Arc::new(move |news: &News| log_inside(&name, kind, news));
                let ways = (Arc::clone(entrance), calls);
                insides.push(Some(Threads::start(driver, options, ways, (tell, pool.reload()))?));
            } else {
                insides.push(None);
            }
            pools.push(pool);
        }
        let names = config.databases.iter().map(|database| database.name.clone()).collect();
        Ok(Self { names, pools, insides })
    }

    /// Asks each how much it has not published; [`Self::report`] waits for the answers.
    pub(super) fn ask(&self) -> Vec<u32> {
        self.pools.iter().map(Pool::ask).collect()
    }

    /// A line for each. A database that does not answer by then has no backlog in it.
    pub(super) fn report(&self, asked: &[u32], deadline_us: u64) {
        let pools = self.names.iter().zip(&self.pools).zip(&self.insides);
        for (((name, pool), inside), asked) in pools.zip(asked) {
            let patience = Duration::from_micros(deadline_us.saturating_sub(clock::now().monotonic_us));
            let mut counted = pool.counted(*asked, patience).named();
            counted.extend(inside.iter().flat_map(|inside| inside.counts().named()));
            let counts: Vec<_> = counted.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            info!(database = name, "of this database: {}", counts.join(" "));
        }
    }

    /// One core's end; `None` where there are no databases.
    pub(super) fn end(&self, core: usize) -> Option<DatabaseEnd> {
        let ends = || self.pools.iter().map(|pool| pool.end(core)).collect();
        (!self.pools.is_empty()).then(|| DatabaseEnd::new(ends()))
    }

    /// Ends them: what still runs is cancelled.
    pub(super) fn stop(&mut self) {
        self.pools.iter().for_each(Pool::stop);
        self.insides.iter().flatten().for_each(Threads::stop);
        let of_insides = self.insides.iter_mut().flatten().map(|inside| !inside.join());
        let are_stuck = of_insides.chain(self.pools.iter_mut().map(|pool| !pool.join()));
        let are_stuck = are_stuck.filter(|stuck| *stuck).count();
        if are_stuck > 0 {
            warn!(databases = are_stuck, "calls of databases are given up: their servers say nothing");
        }
    }
}

/// Those of the configuration that publish.
pub(super) fn publishers(config: &Config) -> Vec<Publisher> {
    let numbered = (0..).map(DatabaseIndex).zip(&config.databases).filter(|(_, database)| database.publish);
    numbered
        .map(|(index, database)| Publisher {
            realm: realm_of(config, database),
            database: index,
            name: database.name.as_str().into(),
        })
        .collect()
}

/// That there is such a realm the configuration has checked, and that there are not too many.
fn realm_of(config: &Config, database: &Database) -> RealmIndex {
    let realm = config.realms.iter().position(|realm| realm.name == database.realm);
    RealmIndex(realm.unwrap_or_default() as u16)
}

fn sqlite_of(database: &Database, limits: &Limits) -> Sqlite {
    let path = database.path.clone().unwrap_or_default();
    let mut driver = Sqlite::new(path, database.readers, database.result_bytes_max);
    driver.procedures = declared(database);
    driver.numbers = numbers(database);
    driver.publishing = database.publish.then(|| Publishes {
        watches: database.watches.iter().map(|it| (it.table.clone(), it.topic.clone())).collect(),
        limits: publication_limits(limits),
    });
    driver
}

fn driver_of(
    database: &Database,
    limits: &Limits,
    (calls, sqlite): (Option<Arc<Calls>>, Option<Sqlite>),
) -> Option<Arc<dyn Driver>> {
    let default_ms = database.timeout.as_millis() as u64;
    Some(match database.kind {
        DatabaseKind::Sqlite => Arc::new(sqlite?),
        DatabaseKind::Postgresql => {
            // Without settings nothing was read; the configuration has refused that.
            let settings = database.url.settings.as_deref().cloned();
            let mut driver = Postgres::new(settings?, &database.realm);
            driver.feedback = database.feedback;
            driver.registers = calls.is_some();
            driver.calls = calls;
            driver.connections = database.connections;
            driver.timeout_ms = default_ms;
            driver.numbers = numbers(database);
            driver.result_bytes_max = database.result_bytes_max;
            driver.replay_timeout = database.replay_timeout;
            driver.publishing = database.publish.then(|| publication_limits(limits));
            driver.exposed = database
                .exposed
                .iter()
                .map(|it| Exposed {
                    schema: it.schema.clone(),
                    prefix: it.prefix.clone(),
                    allow: it.allow.clone(),
                    deny: it.deny.clone(),
                })
                .collect();
            driver.procedures = declared(database);
            driver.roles = roles(database);
            Arc::new(driver)
        }
        DatabaseKind::Oracle => return oracle(database, limits, calls),
    })
}

fn numbers(database: &Database) -> Numbers {
    Numbers { large_as_text: database.large_as_text, exact_as_float: database.exact_as_float }
}

fn roles(database: &Database) -> Option<HashMap<String, String>> {
    let roles = database.roles.iter().map(|it| (it.role.clone(), it.runs_as.clone()));
    (!database.roles.is_empty()).then(|| roles.collect())
}

#[cfg(feature = "oracle")]
fn oracle(database: &Database, limits: &Limits, calls: Option<Arc<Calls>>) -> Option<Arc<dyn Driver>> {
    let mut driver = oracle_driver(database, limits)?;
    driver.calls = calls;
    Some(Arc::new(driver))
}

#[cfg(feature = "oracle")]
fn oracle_driver(database: &Database, limits: &Limits) -> Option<crate::database::oracle::Oracle> {
    use crate::database::oracle::{Exposed, Oracle};

    let settings = database.url.oracle.as_deref().cloned();
    let mut driver = Oracle::new(settings?, &database.realm);
    driver.client.clone_from(&database.client_path);
    driver.connections = database.connections;
    driver.connection_class.clone_from(&database.connection_class);
    if let Some(owner) = &database.wamp_schema {
        driver.owner.clone_from(owner);
    }
    driver.timeout_ms = database.timeout.as_millis() as u64;
    driver.numbers = numbers(database);
    driver.result_bytes_max = database.result_bytes_max;
    driver.publishing = database.publish.then(|| publication_limits(limits));
    let exposed = database.exposed.iter().map(|it| Exposed {
        schema: it.schema.clone(),
        package: it.package.clone(),
        prefix: it.prefix.clone(),
        allow: it.allow.clone(),
        deny: it.deny.clone(),
    });
    driver.exposed = exposed.collect();
    driver.procedures = declared(database);
    driver.roles = roles(database);
    driver.feedback = database.feedback;
    driver.json_columns.clone_from(&database.json_columns);
    Some(driver)
}

/// The configuration has refused it before.
#[cfg(not(feature = "oracle"))]
fn oracle(_database: &Database, _limits: &Limits, _calls: Option<Arc<Calls>>) -> Option<Arc<dyn Driver>> {
    None
}

#[cfg(feature = "oracle")]
fn oracle_inside(
    database: &Database,
    limits: &Limits,
    (timeout, subscriptions): (Duration, Vec<DeclaredSubscription>),
) -> Option<Arc<dyn Inside>> {
    let driver = oracle_driver(database, limits)?;
    Some(Arc::new(crate::database::oracle::inside::OracleInside { driver, timeout, subscriptions }))
}

#[cfg(not(feature = "oracle"))]
fn oracle_inside(
    _database: &Database,
    _limits: &Limits,
    _rest: (Duration, Vec<DeclaredSubscription>),
) -> Option<Arc<dyn Inside>> {
    None
}

/// What is to be said to the inside of a database, and its bounds.
fn inside_of(
    database: &Database,
    inside: &DatabaseInside,
    (limits, sqlite): (&Limits, Option<Sqlite>),
) -> Option<(Arc<dyn Inside>, InsideOptions)> {
    let of = |it: &DatabaseSubscription| DeclaredSubscription {
        topic: it.topic.clone(),
        policy: it.match_policy,
        runs: it.function.clone().or_else(|| it.sql.clone()).unwrap_or_default(),
        attempts: it.attempts,
        timeout: it.timeout,
    };
    let (subscriptions, timeout) = (database.subscriptions.iter().map(of).collect(), inside.timeout);
    // Of SQLite one connection writes at a time.
    let connections = if sqlite.is_some() { 1 } else { inside.connections };
    let driver: Arc<dyn Inside> = match sqlite {
        Some(driver) => Arc::new(SqliteInside { driver, timeout, subscriptions }),
        None if database.kind == DatabaseKind::Oracle => {
            oracle_inside(database, limits, (timeout, subscriptions))?
        }
        None => {
            let driver = Postgres::new(database.url.settings.as_deref().cloned()?, &database.realm);
            Arc::new(PostgresInside { driver, timeout, subscriptions })
        }
    };
    let options = InsideOptions {
        name: database.name.clone(),
        realm: database.realm.clone(),
        connections,
        attempts: inside.attempts,
        depth_max: inside.depth_max,
        queue_max: inside.queue_max,
        queue_bytes_max: inside.queue_bytes_max,
        call_timeout: inside.call_timeout,
        answer_bytes_max: database.result_bytes_max,
    };
    Some((driver, options))
}

fn publication_limits(limits: &Limits) -> PublicationLimits {
    let decode = DecodeLimits { depth_max: limits.depth_max, list_max: limits.option_list_max };
    PublicationLimits { uri: limits.uri_limits(), decode }
}

fn declared(database: &Database) -> Vec<Declared> {
    let of = |procedure: &DatabaseProcedure| Declared {
        uri: procedure.uri.clone(),
        sql: procedure.sql.clone(),
        shape: procedure.shape,
        timeout_ms: procedure.timeout.unwrap_or(database.timeout).as_millis() as u64,
        concurrency: procedure.concurrency,
    };
    database.procedures.iter().map(of).collect()
}

fn log_inside(name: &str, kind: DatabaseKind, news: &News) {
    match news {
        News::Subscribes(count) => info!(database = name, subscriptions = count, "its functions subscribe"),
        News::Problem(problem) => warn!(database = name, "{problem}"),
        News::Overflow(count) => {
            warn!(database = name, events = count, "events were not given to functions: too many wait");
        }
        News::Buried(count, last) if kind == DatabaseKind::Postgresql => {
            warn!(database = name, count, "in wamp.dead_letter, and not tried any more: {last}");
        }
        News::Buried(count, last) if kind == DatabaseKind::Oracle => {
            warn!(database = name, count, "in wamp_dead_letter, and not tried any more: {last}");
        }
        News::Buried(count, last) => warn!(database = name, count, "not tried any more: {last}"),
    }
}

fn log(name: &str, notice: &Notice) {
    match notice {
        Notice::Offers(count, problems) => {
            info!(database = name, procedures = count, "the database is there");
            for problem in problems {
                warn!(database = name, "{problem}");
            }
        }
        Notice::Publishes => info!(database = name, "what the database publishes is read"),
        Notice::PublishesNothing(problem) => {
            warn!(
                database = name,
                "nothing that the database publishes is read: {problem}; it is tried again"
            );
        }
        Notice::ReplaysNothing(problem) => {
            warn!(
                database = name,
                "nobody resumes: what the database has published cannot be read: {problem}"
            );
        }
        Notice::SetAside(problem) => warn!(database = name, "not published, and set aside: {problem}"),
        Notice::Away(problem) => warn!(database = name, "the database is away: {problem}; it is tried again"),
    }
}
