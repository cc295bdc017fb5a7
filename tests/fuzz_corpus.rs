//! Every file under `fuzz/corpus`, once more: what the fuzzers began with, and what they found.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../fuzz/bodies/mod.rs"]
mod bodies;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_target_has_a_body_and_a_corpus() {
    let bodies: BTreeSet<String> = bodies::BODIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&corpus()), bodies);
    let targets = names(&corpus().with_file_name("fuzz_targets"));
    let targets: BTreeSet<String> =
        targets.iter().map(|file| file.strip_suffix(".rs").expect("a target").to_owned()).collect();
    assert_eq!(targets, bodies);
}

#[test]
fn every_file_of_the_corpus_is_taken() {
    for (name, body) in bodies::BODIES {
        let directory = corpus().join(name);
        let files = names(&directory);
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            let bytes = fs::read(directory.join(&file)).unwrap();
            // Said before it is tried, so that a crash names its file.
            println!("{name}/{file}");
            body(&bytes);
        }
    }
}
