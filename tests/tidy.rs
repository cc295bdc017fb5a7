//! Rules that the whole tree keeps, read off its files: what the pure modules may not name, sizes, words, documentation.
//!
//! Each rule is a function from text to what is wrong with it, and each has a test that it can find something.

use std::path::{Path, PathBuf};
use std::process::Command;

use crosspoint::wamp::close_reason::CloseReason;
use crosspoint::wamp::error::uri;

const LINES_MAX: usize = 900;
/// Folders that name no clock, socket, thread, file, runtime or random source (ARCHITECTURE.md).
const PURE: [&str; 4] = ["src/wamp", "src/router", "src/link", "src/config"];
const IMPURE: [&str; 14] = [
    "Instant::now",
    "SystemTime::now",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::",
    "std::thread",
    "std::fs",
    "std::env",
    "glommio",
    "libc",
    "rustix",
    "rand",
    "getrandom",
    "RandomState",
];
/// The tables of std take their hasher from a random source; these names must come from hashbrown or be BTree ones.
const RANDOM_TABLES: [&str; 3] = ["HashMap", "HashSet", "hash_map"];
const UNFINISHED: [&str; 5] = ["dbg!", "todo!", "unimplemented!", "FIXME", "XXX"];

/// What jumps when somebody sets the clock. No timeout may read it: all of them run on `monotonic_us`.
const WALL_CLOCK: [&str; 3] = ["wall_us", "Realtime", "SystemTime"];
/// Where it is read, where it is handed over, where challenges and tokens are dated by it, and where it is told to people.
const WALL_CLOCK_PLACES: [&str; 6] = [
    "src/shard/clock.rs",
    "src/router/mod.rs",
    "src/router/authenticate/mod.rs",
    "src/router/authenticate/bearer.rs",
    "src/router/meta/news.rs",
    "src/token.rs",
];

/// A line that breaks a rule: its number from 1, and what is wrong.
type Finding = (usize, String);

/// The code of each line: no comments, no text in quotes, and no tests at the end of the file.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, String)> {
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..tests].lines().enumerate().map(|(index, line)| {
        let line = line.replace("\\\"", "").replace("'\"'", "");
        let unquoted: String = line.split('"').step_by(2).collect();
        (index + 1, unquoted.split("//").next().unwrap_or_default().to_owned())
    })
}

/// Whether `word` stands in `code` with no letter, digit or underscore around it.
fn has_word(code: &str, word: &str) -> bool {
    let is_part = |found: Option<char>| found.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).any(|(at, _)| {
        let inside = word.ends_with(':') || !is_part(code[at + word.len()..].chars().next());
        inside && !is_part(code[..at].chars().next_back())
    })
}

/// What a pure module may not name.
fn impurities(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, code) in code_lines(text) {
        // `std::net` has address types too, which are plain values.
        let sockets =
            ["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "UnixListener", "ToSocketAddrs"];
        for word in IMPURE.iter().chain(&sockets).filter(|word| has_word(&code, word)) {
            findings.push((number, format!("names {word}")));
        }
        let from_std = code.contains("std::collections");
        for word in RANDOM_TABLES.iter().filter(|word| from_std && has_word(&code, word)) {
            findings.push((
                number,
                format!("{word} of std has a random hasher; take hashbrown with a seed, or BTreeMap"),
            ));
        }
    }
    // `use std::collections::{...}` over several lines.
    for (at, _) in text.match_indices("std::collections::{") {
        let list = text[at..].split('}').next().unwrap_or_default();
        if list.contains('\n') && RANDOM_TABLES.iter().any(|word| has_word(list, word)) {
            findings
                .push((text[..at].lines().count(), "imports a table of std with a random hasher".to_owned()));
        }
    }
    findings
}

/// Who reads the wall clock.
fn wall_clock(text: &str) -> Vec<Finding> {
    let word = |code: &str| WALL_CLOCK.iter().find(|word| has_word(code, word)).copied();
    code_lines(text)
        .filter_map(|(number, code)| Some((number, format!("names {}, which may jump", word(&code)?))))
        .collect()
}

/// What is left of unfinished work.
fn unfinished(text: &str) -> Vec<Finding> {
    let words =
        |line: &str| UNFINISHED.iter().find(|word| has_word(line, word)).map(|word| format!("has {word}"));
    text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, words(line)?))).collect()
}

/// A source file says in its first line what it is, and ends before it is too long.
fn shape(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let first = text.lines().next().unwrap_or_default();
    let sentence = first.strip_prefix("//! ").unwrap_or_default();
    if !sentence.starts_with(|c: char| c.is_uppercase() || c == '`') {
        findings.push((1, "does not begin with a sentence after `//! `".to_owned()));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        findings.push((lines, format!("has {lines} lines, more than {LINES_MAX}")));
    }
    findings
}

/// Places of one machine and of one package registry.
fn machine_places(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for root in ["/work/", "/root/", "/home/", "/farm/"] {
            let absolute =
                |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_.-/~}".contains(c));
            if line.match_indices(root).any(|(at, _)| absolute(at)) {
                findings.push((index + 1, format!("names a path under {root}")));
            }
        }
        let fetched = ["\"resolved\": \"http", "--index-url", "--extra-index-url", "--registry"];
        if let Some(word) = fetched.iter().find(|word| line.contains(**word)) {
            findings.push((index + 1, format!("names a registry: {word}")));
        }
    }
    findings
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files under a folder of the checkout that end so.
fn files_under(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("an entry of a folder that can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {ending} under {folder}");
    found
}

/// Applies a rule to files and fails with every finding.
fn require(files: &[PathBuf], rule: impl Fn(&str) -> Vec<Finding>) {
    let mut report = String::new();
    for path in files {
        // A file that is no text has no lines to judge.
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        let name = path.strip_prefix(root()).unwrap_or(path).display().to_string();
        for (line, problem) in rule(&text) {
            report.push_str(&format!("\n{name}:{line}: {problem}"));
        }
    }
    assert!(report.is_empty(), "{report}");
}

/// Sources without those that are tests from their first line to the last.
fn sources(folder: &str) -> Vec<PathBuf> {
    let is_test = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name == "tests.rs")
            || path.components().any(|part| part.as_os_str() == "tests")
    };
    files_under(folder, ".rs").into_iter().filter(|path| !is_test(path)).collect()
}

#[test]
fn pure_modules_stay_pure() {
    for folder in PURE {
        require(&sources(folder), impurities);
    }
}

#[test]
fn nothing_goes_by_the_wall_clock() {
    let mut files = sources("src");
    files.retain(|path| !WALL_CLOCK_PLACES.iter().any(|place| path.ends_with(place)));
    require(&files, wall_clock);
    // Where it is handed over it is declared, and no more.
    let router = std::fs::read_to_string(root().join("src/router/mod.rs")).unwrap();
    assert_eq!(wall_clock(&router).len(), 1, "{:?}", wall_clock(&router));
}

#[test]
fn nothing_is_left_unfinished() {
    require(&files_under("src", ".rs"), unfinished);
}

#[test]
fn every_source_has_a_sentence_and_an_end() {
    require(&files_under("src", ".rs"), shape);
}

#[test]
fn every_error_is_documented() {
    let page = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let documented = |word: &str| page.contains(&format!("`{word}`"));
    let missing: Vec<_> = uri::ALL.iter().filter(|word| !documented(word)).collect();
    assert!(missing.is_empty(), "docs/errors.md says nothing of {missing:?}");
    let missing: Vec<_> =
        CloseReason::ALL.iter().map(|reason| reason.info().key).filter(|key| !documented(key)).collect();
    assert!(missing.is_empty(), "docs/errors.md has no row for the close reasons {missing:?}");
}

#[test]
fn tracked_files_name_no_machine() {
    let listing = Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output();
    let files: Vec<_> = match listing {
        Ok(output) if output.status.success() => {
            let names = String::from_utf8(output.stdout).unwrap();
            names.split('\0').filter(|name| !name.is_empty()).map(|name| root().join(name)).collect()
        }
        // An unpacked archive is no checkout: its sources stand for all.
        _ => files_under("src", ""),
    };
    // This file spells out what it looks for.
    let files: Vec<_> = files.into_iter().filter(|path| !path.ends_with("tests/tidy.rs")).collect();
    require(&files, machine_places);
}

/// Lines at which a rule found something.
fn lines(findings: &[Finding]) -> Vec<usize> {
    findings.iter().map(|(line, _)| *line).collect()
}

#[test]
fn impurities_are_found() {
    for bad in [
        "let now = Instant::now();",
        "std::time::SystemTime::now()",
        "use std::net::TcpStream;",
        "use std::net::{IpAddr, UdpSocket};",
        "std::thread::spawn(work);",
        "use std::fs;",
        "let text = std::fs::read(path)?;",
        "std::env::var(name)",
        "use std::os::fd::AsRawFd;",
        "use std::os::unix::net::UnixStream;",
        "use glommio::LocalExecutor;",
        "libc::poll(fds, 1, 0)",
        "rustix::io::read(fd, buffer)",
        "let seed = rand::random();",
        "getrandom::fill(&mut seed)",
        "let state = RandomState::new();",
        "use std::collections::HashMap;",
        "use std::collections::{BTreeMap, HashSet};",
        "use std::collections::hash_map::Entry;",
    ] {
        assert_eq!(
            lines(&impurities(&format!("//! A file.\n{bad}\n"))),
            vec![2; impurities(bad).len()],
            "{bad}"
        );
        assert!(!impurities(bad).is_empty(), "{bad}");
    }
    assert_eq!(
        lines(&impurities("//! A file.\nuse std::collections::{\n    BTreeMap,\n    HashMap,\n};\n")),
        [2]
    );
    for good in [
        "use std::net::IpAddr;",
        "use std::collections::BTreeMap;",
        "use hashbrown::HashMap;",
        "// Instant::now would read a clock",
        "//! no thread: std::thread is for others",
        "let brand = operand.random_walk;",
        "[(\"glommio\", Runtime::Glommio)]",
        "let duration = Duration::from_millis(1);",
        "fn pure() {}\n#[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n}",
    ] {
        assert_eq!(impurities(good), [], "{good}");
    }
}

#[test]
fn readers_of_the_wall_clock_are_found() {
    for bad in ["now.wall_us + 1", "ClockId::Realtime", "std::time::SystemTime::now()"] {
        assert_eq!(lines(&wall_clock(&format!("fn f() {{}}\n{bad}\n"))), [2], "{bad}");
    }
    assert_eq!(wall_clock("now.monotonic_us + 1 // wall_us would jump\n"), []);
}

#[test]
fn unfinished_work_is_found() {
    for bad in ["dbg!(x);", "todo!()", "unimplemented!(\"later\")", "// FIXME: later", "// XXX"] {
        assert_eq!(lines(&unfinished(&format!("fn f() {{}}\n{bad}\n"))), [2], "{bad}");
    }
    assert_eq!(unfinished("// what is to do next is in the issue, as `\\uXXXX`\n"), []);
}

#[test]
fn shapes_are_judged() {
    for bad in [
        "",
        "use std::fmt;\n",
        "// A comment.\n",
        "//!\n//! Late.\n",
        "//! lower case.\n",
        "/// Of an item.\n",
    ] {
        assert_eq!(lines(&shape(bad)), [1], "{bad}");
    }
    assert_eq!(shape("//! A file.\n"), []);
    assert_eq!(shape("//! `x` and more.\n"), []);
    let filled = |count: usize| format!("//! A file.\n{}", "\n".repeat(count - 1));
    assert_eq!(shape(&filled(LINES_MAX)), []);
    assert_eq!(lines(&shape(&filled(LINES_MAX + 1))), [LINES_MAX + 1]);
}

#[test]
fn machine_places_are_found() {
    for bad in [
        "cd /work/main",
        "\"/root/.pyenv/bin\"",
        "see /home/somebody/notes",
        "      \"resolved\": \"https://packages.example/a.tgz\",",
        "pip install --index-url https://packages.example/simple x",
        "npm install --registry=https://packages.example/ x",
    ] {
        assert_eq!(lines(&machine_places(&format!("fine\n{bad}\n"))), [2], "{bad}");
    }
    for good in ["src/work/mod.rs", "$HOME/work/x", "https://example.com/home/page", "~/root/x", "a workshop"]
    {
        assert_eq!(machine_places(good), [], "{good}");
    }
}
