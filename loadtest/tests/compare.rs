//! The table of `loadtest/compare`, whose tests are in its own language.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

#[test]
fn the_table_says_what_was_measured_and_what_is_missing() {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compare.py");
    let output = Command::new("python3").arg(tests).output().expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("Ran 8 tests"), "{said}");
}
