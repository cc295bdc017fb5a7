//! Dialogues with the pure router: tests/scenarios/*.txt, one file for each section of the specification.
//!
//! `A> [32, 1, {}, "com.topic"]` is what party A sends, `A< [33, 1, $subscription]` what it gets because of that. A
//! name stands for whatever was there first and must be the same everywhere; `$_` is anything. What is got and not
//! expected fails, what is expected and not got too. `A joins` opens a session and checks WELCOME; `$A` is then its
//! id, `$A_authid` its authid. tests/scenario/script.rs has all other lines.
//!
//! Each file runs on 1, 2 and 3 cores with the parties in every place and the realm at home on every core, unless it
//! says where, and the rings drained in both orders: who is where must not be seen. Messages pass the real codec.
//! Whenever the rings are empty every charge must be credited, and at the end, with all parties gone, every table be
//! empty.
//!
//! `UPDATE_EXPECT=1 cargo test --test scenario` writes down what is got; read the difference before you commit it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crosspoint::config;
use crosspoint::router::database::{DatabaseIndex, Publisher};
use crosspoint::router::fault::Fault;
use crosspoint::router::peer::RealmIndex;
use crosspoint::router::{FEATURES, RouterConfig, doors};
use crosspoint::wamp::CloseReason;
use crosspoint::wamp::codec::{Input as Encoded, Serializer};
use crosspoint::wamp::features::{ClientFeatures, Feature, RouterFeatures};
use serde_json::Value;

#[path = "scenario/databases.rs"]
mod databases;
#[path = "scenario/proofs.rs"]
mod proofs;
#[path = "scenario/script.rs"]
mod script;
#[path = "scenario/tables.rs"]
mod tables;
#[path = "scenario/values.rs"]
mod values;
#[path = "scenario/world.rs"]
mod world;

use script::{Act, Held, Input, Manner, Script};
use values::Captures;
use world::{Received, Setup, World};

/// What `A joins` says of itself, and what `A joins plainly` does.
const ROLES: &str = r#"{"roles": {"publisher": {}, "subscriber": {},
    "caller": {"features": {"call_canceling": true}}, "callee": {"features": {"call_canceling": true}}}}"#;
const PLAIN_ROLES: &str = r#"{"roles": {"publisher": {}, "subscriber": {}, "caller": {}, "callee": {}}}"#;

/// HELLO.Details of a client with all roles, and some features.
fn roles_with(has: impl Fn(&Feature) -> bool) -> String {
    let mut roles = serde_json::Map::new();
    for feature in ClientFeatures::ALL {
        let role = roles.entry(feature.role).or_insert_with(|| serde_json::json!({ "features": {} }));
        if !feature.key.is_empty() && has(feature) {
            role["features"][feature.key] = Value::Bool(true);
        }
    }
    serde_json::json!({ "roles": roles }).to_string()
}

/// What a party got, to be compared.
enum Got {
    Message(Value),
    Closed(CloseReason),
    Pinged,
    Cookie,
}

impl Got {
    fn is(&self, expected: &str, captures: &mut Captures) -> Result<bool, String> {
        match self {
            Self::Closed(reason) => Ok(expected == format!("closed {}", reason.info().key)),
            Self::Pinged => Ok(expected == "pinged"),
            Self::Cookie => Ok(expected == "cookie"),
            Self::Message(_) if expected.starts_with("closed ") => Ok(false),
            Self::Message(_) if matches!(expected, "pinged" | "cookie") => Ok(false),
            Self::Message(actual) => {
                let expected = values::expected(expected).map_err(|error| error.to_string())?;
                let mut attempt = captures.clone();
                let is = values::matches(&expected, actual, &mut attempt);
                if is {
                    *captures = attempt;
                }
                Ok(is)
            }
        }
    }

    fn describe(&self, captures: &mut Captures) -> String {
        match self {
            Self::Closed(reason) => format!("closed {}", reason.info().key),
            Self::Pinged => "pinged".to_owned(),
            Self::Cookie => "cookie".to_owned(),
            Self::Message(message) => values::describe(message, captures),
        }
    }
}

/// One run of a file.
struct Run<'a> {
    script: &'a Script,
    world: World,
    captures: Captures,
    /// What was got and not expected yet.
    pending: VecDeque<(usize, Got)>,
    /// The last CHALLENGE of each party, and the last answer of all.
    challenges: BTreeMap<usize, Value>,
    proof: Value,
}

impl<'a> Run<'a> {
    fn new(script: &'a Script, config: &RouterConfig, setup: &Setup) -> Self {
        let world = World::new(config, setup.clone());
        Self {
            script,
            world,
            captures: Captures::new(),
            pending: VecDeque::new(),
            challenges: BTreeMap::new(),
            proof: Value::Null,
        }
    }

    /// Runs the whole file. Returns its lines, with the expectations as they should be if `update` is set.
    fn run(&mut self, update: bool) -> Result<Vec<String>, String> {
        let script = self.script;
        let mut written = Vec::new();
        for (index, line) in script.lines.iter().enumerate() {
            let in_line = |problem: String| format!("line {}: {}\n  {problem}", index + 1, line.text);
            match &line.act {
                Act::Expect(..) if update => continue,
                Act::Expect(party, expected) => self.expect(*party, expected).map_err(in_line)?,
                Act::Do(input) => {
                    self.nothing_else().map_err(in_line)?;
                    self.perform(input).map_err(in_line)?;
                }
                Act::Nothing => {}
            }
            written.push(line.text.clone());
            if update && matches!(line.act, Act::Do(_)) {
                self.write_down(index, &mut written)?;
            }
        }
        self.nothing_else().map_err(|problem| format!("at the end: {problem}"))?;
        self.end();
        Ok(written)
    }

    fn perform(&mut self, input: &Input) -> Result<(), String> {
        let parties = &self.script.parties;
        match input {
            Input::Opens(party) => {
                let of = &parties[*party];
                self.world.open(*party, of.serializer, of.listener);
            }
            Input::OpensWithCookie(party, whose) => {
                let of = &parties[*party];
                self.world.open(*party, of.serializer, of.listener);
                self.world.bring_cookie(*party, *whose);
            }
            Input::Sends(party, _) | Input::SendsBytes(party, _) if !self.world.is_connected(*party) => {
                return Err("the party is not connected (any longer)".to_owned());
            }
            Input::Joins { party, realm, manner } => self.join(*party, realm, manner)?,
            Input::Sends(party, line) => {
                let line = values::substitute(line, &self.captures);
                let serializer = parties[*party].serializer;
                let bytes = values::bytes_of(&line, serializer)?;
                match serializer {
                    Serializer::Json => self.world.send(*party, Encoded::Text(&line)),
                    _ => self.world.send(*party, Encoded::Bytes(&bytes)),
                }
            }
            Input::Proves(party, words) => {
                let challenge = self.challenges.get(party).ok_or("nothing was challenged")?;
                self.proof = proofs::prove(words, challenge)?;
                self.send_proof(*party)?;
            }
            Input::ProvesAgain(party) => self.send_proof(*party)?,
            Input::SendsBytes(party, bytes) => self.world.send(*party, Encoded::Bytes(bytes)),
            Input::Closes(party, reason) => self.world.close(*party, *reason),
            Input::Outbox(party, outbox) => self.world.set_outbox(*party, *outbox),
            Input::Takes(party, bytes_max) => self.world.set_bytes_max(*party, *bytes_max),
            Input::TakesNoPings(party) => self.world.take_no_pings(*party),
            Input::Pongs(party, is_there) => self.world.pong(*party, *is_there),
            Input::Wait(ms) => self.world.wait(*ms),
            Input::Bar(barred) => self.world.bar_logins(*barred),
            Input::ChecksFull(full) => self.world.set_checks_full(*full),
            Input::Hold(held) => self.world.hold(*held),
            Input::Database(index, act) => self.world.database(*index, act)?,
        }
        self.receive()
    }

    fn send_proof(&mut self, party: usize) -> Result<(), String> {
        let serializer = self.script.parties[party].serializer;
        let bytes = values::bytes_of(&self.proof.to_string(), serializer)?;
        self.world.send(party, Encoded::Bytes(&bytes));
        Ok(())
    }

    fn receive(&mut self) -> Result<(), String> {
        for (party, received) in self.world.take_received() {
            let got = match received {
                Received::Closed(reason) => Got::Closed(reason),
                Received::Pinged => Got::Pinged,
                Received::Cookie => Got::Cookie,
                Received::Message(bytes) => {
                    let message = values::value_of(&bytes, self.script.parties[party].serializer)?;
                    if message[0] == 4 {
                        self.challenges.insert(party, message.clone());
                    }
                    Got::Message(message)
                }
            };
            self.pending.push_back((party, got));
        }
        Ok(())
    }

    fn join(&mut self, party: usize, realm: &str, manner: &Manner) -> Result<(), String> {
        let of = &self.script.parties[party];
        self.world.open(party, of.serializer, of.listener);
        let roles = match manner {
            Manner::Usual => ROLES.to_owned(),
            Manner::Plain => PLAIN_ROLES.to_owned(),
            Manner::Full => roles_with(|_| true),
            Manner::With(named) => roles_with(|feature| {
                named.iter().any(|(role, key)| feature.role == role && feature.key == key)
            }),
        };
        let hello = values::bytes_of(&format!("[1, \"{realm}\", {roles}]"), of.serializer)?;
        self.world.send(party, Encoded::Bytes(&hello));
        self.receive()?;
        // Others may have heard of it by then.
        let place = self.pending.iter().position(|(other, _)| *other == party);
        match place.and_then(|place| self.pending.remove(place)) {
            Some((_, Got::Message(welcome))) if welcome[0] == 2 => {
                self.captures.insert(of.name.clone(), welcome[1].clone());
                self.captures.insert(format!("{}_authid", of.name), welcome[2]["authid"].clone());
                Ok(())
            }
            Some((_, got)) => Err(format!("was not welcomed but got {}", got.describe(&mut self.captures))),
            None => Err("was not welcomed".to_owned()),
        }
    }

    fn expect(&mut self, party: usize, expected: &str) -> Result<(), String> {
        let Some(place) = self.pending.iter().position(|(other, _)| *other == party) else {
            return Err("got nothing".to_owned());
        };
        let Some((_, got)) = self.pending.remove(place) else { return Err("got nothing".to_owned()) };
        if got.is(expected, &mut self.captures)? {
            return Ok(());
        }
        Err(format!("got {}", got.describe(&mut self.captures)))
    }

    fn nothing_else(&mut self) -> Result<(), String> {
        let Some((party, got)) = self.pending.front() else { return Ok(()) };
        let name = &self.script.parties[*party].name;
        Err(format!("nobody expected before this: {name}< {}", got.describe(&mut self.captures)))
    }

    /// Writes what was got; a line that expects it already stays as it is.
    fn write_down(&mut self, input: usize, written: &mut Vec<String>) -> Result<(), String> {
        let rest = self.script.lines[input + 1..].iter();
        let mut expectations: VecDeque<(usize, &str)> = rest
            .take_while(|line| !matches!(line.act, Act::Do(_)))
            .filter_map(|line| match &line.act {
                Act::Expect(party, expected) => Some((*party, &**expected)),
                _ => None,
            })
            .collect();
        for (party, got) in std::mem::take(&mut self.pending) {
            let place = expectations.iter().position(|(other, _)| *other == party);
            let expected = place.and_then(|place| expectations.remove(place));
            let text = match expected {
                Some((_, expected)) if got.is(expected, &mut self.captures) == Ok(true) => {
                    expected.to_owned()
                }
                _ => got.describe(&mut self.captures),
            };
            written.push(format!("{}< {text}", self.script.parties[party].name));
        }
        Ok(())
    }

    /// Everybody leaves, and nothing stays behind.
    fn end(&mut self) {
        self.world.hold(Held::None);
        self.world.end_databases();
        for party in 0..self.script.parties.len() {
            if self.world.is_connected(party) {
                self.world.close(party, CloseReason::EndOfStream);
                let _ = self.world.take_received();
            }
        }
        self.world.assert_empty();
    }
}

/// Every setup that a file does not exclude; the first is the simplest one.
fn setups(script: &Script) -> Vec<Setup> {
    let mut setups = Vec::new();
    for cores in script.cores.map_or(1..=3, |cores| cores..=cores) {
        let mut placements = vec![Vec::new()];
        for party in &script.parties {
            let places = party.core.map_or(0..cores, |core| core..core + 1);
            placements = placements
                .iter()
                .flat_map(|placement: &Vec<u16>| {
                    places.clone().map(move |core| placement.iter().copied().chain([core]).collect())
                })
                .collect();
        }
        for placement in placements {
            for home in script.home.map_or(0..cores, |home| home..home + 1) {
                // With every third one backwards all pairs of home and place meet both orders.
                let backwards = cores > 1 && setups.len() % 3 == 2;
                setups.push(Setup {
                    cores,
                    home,
                    placement: placement.clone(),
                    backwards,
                    fault: Fault::None,
                });
            }
        }
    }
    setups
}

fn config_of(script: &Script) -> RouterConfig {
    let config = config::parse("the configuration of the scenario", &script.config, &[]);
    let mut config = config.unwrap_or_else(|errors| panic!("{errors}"));
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let file = |path: &Path| fs::read_to_string(beside.join(path)).map_err(|error| error.to_string());
    config.read_secrets(|_| None, file).unwrap();
    let doors = doors(&config);
    RouterConfig {
        realms: config.realms,
        limits: config.limits,
        doors,
        publishers: (0..)
            .zip(&script.databases)
            .map(|(number, name)| Publisher {
                realm: RealmIndex(0),
                database: DatabaseIndex(number),
                name: name.as_str().into(),
            })
            .collect(),
    }
}

fn run_in(
    script: &Script,
    config: &RouterConfig,
    setup: &Setup,
    update: bool,
) -> Result<Vec<String>, String> {
    let mut run = Run::new(script, config, setup);
    catch_unwind(AssertUnwindSafe(|| run.run(update)))
        .unwrap_or_else(|_| Err("panicked, see above".to_owned()))
}

fn check(path: &Path, update: bool) -> Result<usize, String> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut script = Script::parse(name, &fs::read_to_string(path).unwrap());
    let config = config_of(&script);
    let setups = setups(&script);
    if update {
        let lines =
            run_in(&script, &config, &setups[0], true).map_err(|problem| format!("{name}: {problem}"))?;
        let text = lines.join("\n") + "\n";
        script = Script::parse(name, &text);
        fs::write(path, text).unwrap();
    }
    for setup in &setups {
        run_in(&script, &config, setup, false)
            .map_err(|problem| format!("{name}: {problem}\n  with {setup:?}"))?;
    }
    Ok(setups.len())
}

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

#[test]
fn every_dialogue() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    // One file while it is being written.
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let mut wrong = Vec::new();
    let files: Vec<_> = files().into_iter().filter(|path| path.to_string_lossy().contains(&only)).collect();
    assert!(!files.is_empty());
    for path in files {
        if let Err(problem) = check(&path, update) {
            wrong.push(problem);
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n\n"));
}

/// Designs that break the order of a pair, or lose an interrupt, each fail a dialogue about that.
#[test]
fn wrong_designs_are_noticed() {
    for (fault, file) in [
        (Fault::SkipHome, "basic_ordering_one_core.txt"),
        (Fault::CancelDirect, "own_races.txt"),
        (Fault::ChunkFanOut, "basic_subscribing.txt"),
        (Fault::PublishByTopic, "basic_ordering_topics.txt"),
    ] {
        let path = files().into_iter().find(|path| path.ends_with(file)).unwrap();
        let script = Script::parse(file, &fs::read_to_string(path).unwrap());
        let config = config_of(&script);
        let setup = setups(&script).pop().unwrap();
        assert!(run_in(&script, &config, &setup, false).is_ok(), "{file}");
        let found = run_in(&script, &config, &Setup { fault, ..setup }, false);
        assert!(found.is_err(), "{fault:?} is not noticed in {file}");
    }
}

/// docs/conformance.md names every file, and no other; it says what WELCOME says.
#[test]
fn the_conformance_page_is_complete() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md")).unwrap();
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let words: BTreeSet<&str> = page.split(|character| !is_part(character)).collect();
    let files: Vec<String> =
        files().iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let is_file = |word: &&str| ["basic_", "advanced_", "own_"].iter().any(|kind| word.starts_with(kind));
    let named: Vec<&str> = words.into_iter().filter(is_file).collect();
    let mut sorted = files.clone();
    sorted.sort();
    assert_eq!(named, sorted);
    let (announced, missing) = page.split_once("## Not there yet").unwrap();
    for feature in RouterFeatures::ALL.iter().filter(|feature| !feature.key.is_empty()) {
        let row = format!("`{}`", feature.key);
        // A key of two roles may be there for one of them.
        let same = RouterFeatures::ALL.iter().filter(|other| other.key == feature.key);
        let is_announced: Vec<bool> = same.map(|of| FEATURES.contains(RouterFeatures(of.bit))).collect();
        assert_eq!(
            announced.contains(&format!("| {row} |")),
            is_announced.contains(&true),
            "{}",
            feature.key
        );
        assert_eq!(missing.contains(&row), is_announced.contains(&false), "{}", feature.key);
    }
}

/// The checker itself: a wrong expectation, a missing one and one too many each fail.
#[test]
fn wrong_expectations_fail() {
    for (text, problem) in [
        ("A joins\nA> [32, 1, {}, \"com.a\"]\nA< [33, 2, $s]", "line 3"),
        ("A joins\nA> [32, 1, {}, \"com.a\"]", "at the end: nobody expected"),
        ("A joins\nA> [16, 1, {}, \"com.a\"]\nA< [17, 1, $p]", "got nothing"),
        ("A joins\nA> [32, 1, {}, \"com.a\"]\nA> [32, 2, {}, \"com.a\"]\nA< [33, 2, $s]", "line 3"),
        (
            "A joins\nA> [32, 1, {}, \"com.a\"]\nA< [33, 1, $s]\nA> [32, 2, {}, \"com.b\"]\nA< [33, 2, $s]",
            "line 5",
        ),
        ("A opens\nA> [6, {}, \"a.b\"]\nA< $_\nA< closed goodbye", "line 4"),
        ("A joins realm9", "was not welcomed"),
    ] {
        let script = Script::parse("inline", text);
        let found = run_in(&script, &config_of(&script), &setups(&script)[0], false).unwrap_err();
        assert!(found.contains(problem), "{found}");
    }
}
