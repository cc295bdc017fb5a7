//! `crosspoint demo`: a router with a database in a file, and a page that uses both.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crosspoint::config::{self, Config, ListenAddress};
use crosspoint::node::Started;
use rusqlite::{Connection, OpenFlags};

const CONFIG: &str = include_str!("demo/demo.toml");
const TABLES: &str = include_str!("demo/demo.sql");

/// Where the database is in its folder.
const FILE: &str = "demo.sqlite3";

/// `pragma application_id` of databases that are the demo's.
const MARK: i64 = 0x4350_5444;

/// Folders that are there already are passed over, so many of them.
const FOLDERS_TRIED: u32 = 1_000;

/// What the user asked for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// `--port`
    pub(crate) port: Option<u16>,
    /// `--database`: a file that is kept.
    pub(crate) database: Option<PathBuf>,
}

/// What is there for the time of the demo.
#[derive(Debug)]
pub(crate) struct Demo {
    /// What to start.
    pub(crate) config: Config,
    /// The database.
    pub(crate) database: PathBuf,
    /// The folder that goes with the demo.
    folder: Option<TemporaryFolder>,
}

impl Demo {
    /// Makes the database, unless it is there, and the configuration. Variables are for a router that somebody set up:
    /// they do not count.
    pub(crate) fn prepare(wanted: Wanted) -> Result<Self, String> {
        let mut config = config::parse("demo.toml", CONFIG, &[]).map_err(|errors| errors.to_string())?;
        for address in config.listeners.iter_mut().map(|listener| &mut listener.address) {
            let ListenAddress::Tcp(host, port) = address else { continue };
            match wanted.port {
                Some(wanted) => *port = wanted,
                // Somebody who tries two routers need not know about ports.
                None if is_taken(*host, *port) => *port = 0,
                None => {}
            }
        }
        let (folder, database) = match wanted.database {
            Some(file) => (None, file),
            None => {
                let folder = TemporaryFolder::make().map_err(|error| {
                    let place = std::env::temp_dir();
                    format!(
                        "no folder can be made in {}: {error}; set TMPDIR to another one, or say `--database FILE`",
                        place.display()
                    )
                })?;
                let file = folder.0.join(FILE);
                (Some(folder), file)
            }
        };
        fill(&database).map_err(|problem| {
            let path = database.display();
            format!("the database {path} cannot be used for the demo: {problem}")
        })?;
        for entry in &mut config.databases {
            entry.path = Some(database.clone());
        }
        Ok(Self { config, database, folder })
    }

    /// What people get to read once it runs.
    pub(crate) fn greeting(&self, started: &Started) -> String {
        let database = self.database.display();
        let end = if self.folder.is_some() { "stops, and removes it" } else { "stops; the database stays" };
        let mut text = format!("\nThe demo of Crosspoint {} is ready.\n\n", env!("CARGO_PKG_VERSION"));
        text.push_str(&format!("  open        {}   in two tabs\n", page(started)));
        text.push_str(&format!("  database    {database}\n\n"));
        text.push_str("Any program may write to it, and the page shows it:\n\n");
        text.push_str(&format!(
            "  sqlite3 {} \"update item set stock = stock + 1 where name = 'tea'\"\n\n",
            quoted(&self.database)
        ));
        text.push_str(&format!("Ctrl-C {end}.\n\n"));
        text
    }
}

/// Where the page is.
pub(crate) fn page(started: &Started) -> String {
    let listener = started.listeners.first().map(String::as_str).unwrap_or_default();
    let host = listener.strip_prefix("ws://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    format!("http://{host}/")
}

fn is_taken(host: std::net::IpAddr, port: u16) -> bool {
    TcpListener::bind((host, port)).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-".contains(character);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Why a file is no database of the demo.
#[derive(Debug)]
enum Unfit {
    Sqlite(rusqlite::Error),
    /// There is something else in it.
    OfOthers,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(error) => write!(f, "{error}"),
            Self::OfOthers => f.write_str(
                "it is not one of the demo's, which writes to none but its own; name a file that is not there yet",
            ),
        }
    }
}

impl From<rusqlite::Error> for Unfit {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Makes the tables in a database that is empty.
fn fill(path: &Path) -> Result<(), Unfit> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    let mark: i64 = connection.query_row("pragma application_id", [], |row| row.get(0))?;
    if mark == MARK {
        return Ok(());
    }
    let count: i64 = connection.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
    if mark != 0 || count != 0 {
        return Err(Unfit::OfOthers);
    }
    connection.execute_batch(TABLES)?;
    Ok(())
}

/// A folder of one's own, which goes when this is dropped.
#[derive(Debug)]
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn make() -> io::Result<Self> {
        let (place, process) = (std::env::temp_dir(), std::process::id());
        let mut number = 0;
        loop {
            let path = place.join(format!("crosspoint-demo-{process}-{number}"));
            // Whatever is there already is somebody else's, a symbolic link too.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < FOLDERS_TRIED => {
                    number += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!("{} is left behind: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_made_once_and_goes_with_its_folder() {
        let demo = Demo::prepare(Wanted::default()).unwrap();
        let [database] = demo.config.databases.as_slice() else { panic!("{:?}", demo.config) };
        assert_eq!(database.path.as_ref(), Some(&demo.database));
        let file = demo.database.clone();
        let count = || -> i64 {
            let connection = Connection::open(&file).unwrap();
            connection.query_row("select count(*) from item", [], |row| row.get(0)).unwrap()
        };
        assert_eq!(count(), 3);
        Connection::open(&file).unwrap().execute("delete from item where id = 1", []).unwrap();
        let wanted = Wanted { port: Some(9), database: Some(file.clone()) };
        let again = Demo::prepare(wanted).unwrap();
        assert_eq!(again.config.listeners[0].address, ListenAddress::Tcp([127, 0, 0, 1].into(), 9));
        drop(again);
        assert_eq!(count(), 2);
        drop(demo);
        assert!(!file.parent().unwrap().exists());
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let folder = TemporaryFolder::make().unwrap();
        for (name, sql) in [("table", "create table item (id)"), ("mark", "pragma application_id = 7")] {
            let file = folder.0.join(name);
            Connection::open(&file).unwrap().execute_batch(sql).unwrap();
            let before = fs::read(&file).unwrap();
            let wanted = Wanted { port: None, database: Some(file.clone()) };
            let problem = Demo::prepare(wanted).unwrap_err();
            assert!(problem.contains("not one of the demo's"), "{problem}");
            assert_eq!(fs::read(&file).unwrap(), before);
        }
        let text = folder.0.join("text");
        fs::write(&text, "no database, but longer than the hundred bytes of a header: ".repeat(9)).unwrap();
        let wanted = Wanted { port: None, database: Some(text) };
        assert!(Demo::prepare(wanted).unwrap_err().contains("not a database"));
    }

    #[test]
    fn paths_for_a_shell() {
        assert_eq!(quoted(Path::new("/tmp/a-b_1.sqlite3")), "/tmp/a-b_1.sqlite3");
        assert_eq!(quoted(Path::new("it's here")), r"'it'\''s here'");
    }
}
