//! Configurations and what is said about them: tests/config/*.toml, each with the exact messages beside it.
//!
//! Lines at the top that begin with `#! ` are variables of the environment. `UPDATE_EXPECT=1 cargo test --test config`
//! rewrites the expectations; read the difference before you commit it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crosspoint::config::{Config, parse};

#[path = "../fuzz/bodies/config.rs"]
mod fuzz_body;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

fn files(extension: &str) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn variables(text: &str) -> Vec<(String, OsString)> {
    let lines = text.lines().map_while(|line| line.strip_prefix("#! "));
    lines
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect()
}

/// What stands in the file beside: the messages, or what the configuration is where it differs from the default.
fn outcome(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    match parse(name, &text, &variables(&text)) {
        Err(errors) => format!("{errors}\n"),
        Ok(config) => {
            let printed = config.to_toml();
            assert_eq!(parse("", &printed, &[]).as_ref(), Ok(&config), "{printed}");
            let default = Config::default().to_toml();
            let default: BTreeSet<&str> = default.lines().collect();
            let lines = printed.lines().filter(|line| !default.contains(line));
            lines.map(|line| format!("{line}\n")).collect()
        }
    }
}

/// A program without Oracle says something else about some of them.
const WITHOUT_ORACLE: &str = "expected_without_oracle";

fn expectation(path: &Path) -> PathBuf {
    let without = path.with_extension(WITHOUT_ORACLE);
    if cfg!(feature = "oracle") || !without.exists() { path.with_extension("expected") } else { without }
}

#[test]
fn every_file_has_the_outcome_beside_it() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let inputs = files("toml");
    assert!(!inputs.is_empty());
    let mut wrong = Vec::new();
    for path in &inputs {
        let expected_path = expectation(path);
        let outcome = outcome(path);
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if outcome == expected {
            continue;
        }
        if update {
            fs::write(&expected_path, outcome).unwrap();
        } else {
            wrong.push(format!("{}\nexpected:\n{expected}\nis:\n{outcome}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_expectation_is_left_over() {
    let inputs = files("toml");
    let expected = files("expected").into_iter().chain(files(WITHOUT_ORACLE));
    let orphans: Vec<_> = expected.filter(|path| !inputs.contains(&path.with_extension("toml"))).collect();
    assert_eq!(orphans, Vec::<PathBuf>::new());
}

#[test]
fn the_commented_default_is_the_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(parse("config.toml", &text, &[]), Ok(Config::default()));
    // A `#` without a space behind it hides a key. Taken away, but for those of keys that mean something wherever they stand, nothing
    // changes either, and then every key is there.
    let shown = text.lines().map(|line| match line.strip_prefix('#') {
        Some(key)
            if !key.starts_with(' ')
                && !["unix", "authorizer =", "authenticator", "users_file"]
                    .iter()
                    .any(|other| key.starts_with(other)) =>
        {
            key
        }
        _ => line,
    });
    let shown: Vec<&str> = shown.collect();
    assert_eq!(parse("config.toml", &shown.join("\n"), &[]), Ok(Config::default()));
    for line in Config::default().to_toml().lines() {
        assert!(shown.contains(&line), "config.toml lacks: {line}");
    }
}

#[test]
fn docs_limits_has_a_row_for_every_limit() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/limits.md");
    let text = fs::read_to_string(path).unwrap();
    let printed = Config::default().to_toml();
    let limits = printed.split("[limits]").nth(1).unwrap().split("\n[").next().unwrap();
    for line in limits.lines().filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(" = ").unwrap();
        let row = format!("| `{key}` | {} |", value.trim_matches('"'));
        assert!(text.contains(&row), "docs/limits.md lacks a row that begins with: {row}");
    }
}

#[test]
fn the_examples_of_the_docs_work_together() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(path).unwrap();
    let blocks: Vec<&str> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 11);
    let config = parse("docs/configuration.md", &blocks.concat(), &[]).map_err(|errors| errors.to_string());
    let config = config.unwrap();
    assert_eq!((config.realms[0].roles.len(), config.listeners.len()), (3, 3));
    assert_eq!(config.realms[0].users.len(), 5);
    // Each variable of the table leads to a key that is there.
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let variables: Vec<_> = rows
        .filter_map(|(variable, _)| variable.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    assert_eq!(variables.len(), 5);
    assert!(parse("", &blocks.concat(), &variables).is_ok());
}

/// What the fuzz target would try first: the corpus with bytes changed, taken away and brought in from other files.
#[test]
fn the_fuzz_target_holds_on_its_mutated_corpus() {
    const ROUNDS: usize = 60;
    let corpus: Vec<Vec<u8>> = files("toml").iter().map(|path| fs::read(path).unwrap()).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound as u64).unwrap()
    };
    for original in &corpus {
        fuzz_body::config(original);
        for _ in 0..ROUNDS {
            let mut data = original.clone();
            for _ in 0..=below(3) {
                let start = below(data.len());
                let end = (start + below(12)).min(data.len());
                let other = &corpus[below(corpus.len())];
                let from = below(other.len());
                let to = (from + below(30)).min(other.len());
                match below(4) {
                    0 => data[start] = u8::try_from(below(256)).unwrap(),
                    1 => drop(data.drain(start..end)),
                    2 => drop(data.splice(start..start, other[from..to].iter().copied())),
                    _ => drop(data.splice(start..start, b"\\u001b".iter().copied())),
                }
                if data.is_empty() {
                    break;
                }
            }
            fuzz_body::config(&data);
        }
    }
}
