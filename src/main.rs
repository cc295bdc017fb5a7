//! The command line of Crosspoint; the one place that maps errors to exit codes.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crosspoint::config::{self, Config};
use crosspoint::node::{Node, NodeError, Started, log};
use crosspoint::password;
use crosspoint::shard::park::Host;

use lexopt::ValueExt;

mod credentials;
mod demo;
mod schema;

use credentials::{For, Hashing};
use demo::Demo;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
Crosspoint, a WAMP application router

Usage: crosspoint [start] [--config FILE]   runs the router
       crosspoint demo [OPTIONS]            runs a router with a database, and a page to try both: nothing to set up
           --port N                         instead of 8080, or of a free one where that is taken
           --database FILE                  a database that stays, instead of one in a temporary folder
       crosspoint check [--config FILE]     says what is wrong with a configuration, or prints what is in effect
       crosspoint keygen                    makes a pair of keys for a user (cryptosign)
       crosspoint hash-password [OPTIONS]   reads a password and prints what stands for it in a user:
           --method ticket|wampcra|wamp-scram|scram, --iterations N, --memory KIB, --pbkdf2
       crosspoint db install|status|upgrade|uninstall [--config FILE] [--database NAME | --url URL] [--dry-run]
           the schema `wamp`, by which a PostgreSQL database publishes, or the packages of an Oracle one; docs/postgresql.md and docs/oracle.md have its options
       crosspoint version                   prints the version

`crosspoint check FILE` is the same with less to type. Without a file the defaults hold: a router for this machine alone
at ws://127.0.0.1:8080/ws, realm realm1.
Variables such as CROSSPOINT__LISTENER__0__PORT=9000 stand above the file. See docs/configuration.md.
";

/// What the user wants.
enum Command {
    Start,
    Demo,
    Check,
    Keygen,
    HashPassword,
    Db,
    Version,
    Help,
}

struct Arguments {
    command: Command,
    config: Option<PathBuf>,
    hashing: Hashing,
    demo: demo::Wanted,
    db: schema::Request,
}

/// Why the program ended, by exit code.
enum Failure {
    /// 1: it failed to start or to run.
    Run(String),
    /// 2: the command line, the configuration, or the machine.
    Configuration(String),
}

fn main() -> ExitCode {
    let result = parse_arguments(std::env::args_os()).map_err(Failure::Configuration).and_then(run);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Run(text)) => complain(&text, 1),
        Err(Failure::Configuration(text)) => complain(&text, 2),
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Help => say(HELP),
        Command::Version => say(&format!("crosspoint {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Check => {
            let config = load(arguments.config)?;
            say(&config.to_toml());
        }
        Command::Keygen => say(&credentials::keygen().map_err(Failure::Run)?),
        Command::HashPassword => {
            say(&credentials::hash_password(&arguments.hashing).map_err(Failure::Run)?);
        }
        Command::Db => {
            let config = load(arguments.config)?;
            say(&arguments.db.run(&config).map_err(Failure::Run)?);
        }
        Command::Start => {
            let config = load(arguments.config)?;
            start(&config, greet)?;
        }
        Command::Demo => {
            let demo = Demo::prepare(arguments.demo).map_err(Failure::Configuration)?;
            start(&demo.config, |started| demo.greet(started))?;
        }
    }
    Ok(())
}

fn start(config: &Config, greet: impl FnOnce(&Started)) -> Result<(), Failure> {
    let _log = log::start(&config.node.log)
        .map_err(|error| Failure::Run(format!("there is no thread for the log: {error}")))?;
    let node = Node::start(config).map_err(|error| match error {
        NodeError::Preflight(text) => Failure::Configuration(text),
        NodeError::Failed(text) => Failure::Run(text),
    })?;
    greet(node.started());
    node.run().map_err(|error| Failure::Run(error.to_string()))
}

impl Demo {
    /// Says where the page is: to people on the terminal, to machines in the log.
    fn greet(&self, started: &Started) {
        log_ready(started);
        tracing::info!(page = demo::page(started), database = %self.database.display(), "the demo is ready");
        if io::stdout().is_terminal() {
            say_aside(self.greeting(started));
        }
    }
}

/// Says where the router is and how to try it: to people on the terminal, to machines in the log.
fn greet(started: &Started) {
    log_ready(started);
    if !io::stdout().is_terminal() {
        return;
    }
    let mut text = format!("\nCrosspoint {} is ready.\n\n", env!("CARGO_PKG_VERSION"));
    for listener in &started.listeners {
        text.push_str(&format!("  listens on  {listener}\n"));
    }
    text.push_str(&format!("  realms      {}\n", started.realms.join(", ")));
    text.push_str(&format!("  cores       {} ({})\n\n", started.processors.len(), name_of(started.host)));
    text.push_str("Try it: examples/README.md has a service and its clients in Python and JavaScript. Ctrl-C stops.\n\n");
    say_aside(text);
}

fn name_of(host: Host) -> &'static str {
    match host {
        Host::Glommio => "glommio",
        Host::Thread => "threads",
    }
}

fn log_ready(started: &Started) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listeners = ?started.listeners,
        realms = ?started.realms,
        processors = ?started.processors,
        host = name_of(started.host),
        "Crosspoint is ready"
    );
}

/// Says it without waiting for whoever reads.
fn say_aside(text: String) {
    // A terminal that is stopped (Ctrl-S) keeps whoever writes to it: not the thread that signals are for.
    let _ = std::thread::Builder::new().name("greeting".to_owned()).spawn(move || say(&text));
}

fn load(path: Option<PathBuf>) -> Result<Config, Failure> {
    // No key has a name that is no text, so it may be told with its bytes replaced.
    let environment: Vec<_> =
        std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value)).collect();
    let (name, text) = match path {
        None => (String::new(), String::new()),
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Failure::Configuration(format!("{name} cannot be read: {error}")))?;
            (name, text)
        }
    };
    let mut config = config::parse(&name, &text, &environment)
        .map_err(|errors| Failure::Configuration(errors.to_string()))?;
    let folder = Path::new(&name).parent().unwrap_or_else(|| Path::new(""));
    read_users(&mut config, folder)?;
    // Their files are beside the configuration, too.
    for database in &mut config.databases {
        for path in database.path.iter_mut().chain(&mut database.client_path) {
            *path = folder.join(&*path);
        }
    }
    read_secrets(&mut config)?;
    Ok(config)
}

/// Adds the users that are in files, which are looked for beside the configuration.
fn read_users(config: &mut Config, folder: &Path) -> Result<(), Failure> {
    for realm in &mut config.realms {
        let Some(path) = realm.users_file.take() else { continue };
        let path = folder.join(path);
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let realm = &realm.name;
            Failure::Configuration(format!(
                "error: users_file of realm `{realm}`: {name} cannot be read: {error}"
            ))
        })?;
        realm.add_users(&name, &text).map_err(|errors| Failure::Configuration(errors.to_string()))?;
    }
    Ok(())
}

/// Fetches the secrets that are in variables and files.
fn read_secrets(config: &mut Config) -> Result<(), Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    let file = |path: &Path| {
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        let mut text = String::new();
        // One byte more than a secret may have says that it is too long.
        let longest = config::authentication::SECRET_BYTES_MAX as u64 + 3;
        file.take(longest).read_to_string(&mut text).map_err(|error| error.to_string())?;
        Ok(text)
    };
    config.read_secrets(variable, file).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|problem| format!("error: {problem}")).collect();
        Failure::Configuration(lines.join("\n"))
    })
}

fn parse_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, String> {
    use lexopt::prelude::{Long, Short, Value};
    let mut parser = lexopt::Parser::from_iter(arguments);
    let mut command = None;
    let mut config = None;
    let mut hashing = Hashing::default();
    let mut demo = demo::Wanted::default();
    let mut db = schema::Request::default();
    while let Some(argument) = parser.next().map_err(|error| usage(&error.to_string()))? {
        match argument {
            Long("config") | Short('c') if !is_demo(&command) => {
                config = Some(PathBuf::from(parser.value().map_err(|error| usage(&error.to_string()))?));
            }
            Long("help") | Short('h') => command = Some(Command::Help),
            Long("version") | Short('V') => command = Some(Command::Version),
            Long("method") if is_hashing(&command) => {
                let word = parser.value().and_then(|word| word.string());
                let word = word.map_err(|error| usage(&error.to_string()))?;
                hashing.method = Some(For::of_word(&word).map_err(|problem| usage(&problem))?);
            }
            Long("iterations") if is_hashing(&command) => {
                hashing.iterations = Some(cost(&mut parser, password::ITERATIONS_MAX)?);
            }
            Long("memory") if is_hashing(&command) => {
                hashing.memory_kib = Some(cost(&mut parser, password::MEMORY_KIB_MAX)?);
            }
            Long("pbkdf2") if is_hashing(&command) => hashing.pbkdf2 = true,
            Long("port") if is_demo(&command) => {
                demo.port = Some(
                    parser
                        .value()
                        .and_then(|value| value.parse())
                        .map_err(|error| usage(&error.to_string()))?,
                );
            }
            Long("database") if is_demo(&command) => {
                demo.database =
                    Some(PathBuf::from(parser.value().map_err(|error| usage(&error.to_string()))?));
            }
            Value(word) if matches!(command, Some(Command::Db)) && db.wants_action() => {
                let word = word.string().map_err(|error| usage(&error.to_string()))?;
                db.take_action(&word).map_err(|problem| usage(&problem))?;
            }
            Long(name) if matches!(command, Some(Command::Db)) => {
                let name = name.to_owned();
                let mut value = || {
                    let value = parser.value().and_then(|value| value.string());
                    value.map_err(|error| error.to_string())
                };
                db.take_option(&name, &mut value).map_err(|problem| usage(&problem))?;
            }
            Value(word) if command.is_none() => {
                let word = word.string().map_err(|error| usage(&error.to_string()))?;
                command = Some(match word.as_str() {
                    "start" => Command::Start,
                    "demo" => Command::Demo,
                    "check" => Command::Check,
                    "keygen" => Command::Keygen,
                    "hash-password" => Command::HashPassword,
                    "db" => Command::Db,
                    "version" => Command::Version,
                    "help" => Command::Help,
                    other => return Err(usage(&no_command(other))),
                });
            }
            Value(file) if config.is_none() && matches!(command, Some(Command::Start | Command::Check)) => {
                config = Some(PathBuf::from(file));
            }
            other => return Err(usage(&other.unexpected().to_string())),
        }
    }
    Ok(Arguments { command: command.unwrap_or(Command::Start), config, hashing, demo, db })
}

/// Whether the options of `hash-password` may come.
fn is_hashing(command: &Option<Command>) -> bool {
    matches!(command, Some(Command::HashPassword))
}

/// Whether the options of `demo` may come.
fn is_demo(command: &Option<Command>) -> bool {
    matches!(command, Some(Command::Demo))
}

/// A cost of a hash.
fn cost(parser: &mut lexopt::Parser, most: u32) -> Result<u32, String> {
    let number: Result<u32, _> = parser.value().and_then(|value| value.parse());
    match number {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        Ok(_) => Err(usage(&format!("the cost must be from 1 to {most}"))),
        Err(error) => Err(usage(&error.to_string())),
    }
}

fn no_command(word: &str) -> String {
    if Path::new(word).exists() {
        return format!("there is no command `{word}`; to run with that file: `crosspoint start {word}`");
    }
    format!("there is no command `{word}`")
}

fn usage(problem: &str) -> String {
    format!("{problem}\n\n{HELP}")
}

/// Standard output may be closed or a pipe that is: that is nobody's failure.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "crosspoint: {}", text.trim_end());
    ExitCode::from(code)
}
