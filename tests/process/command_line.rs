//! What people type, and what they are told.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};

use crate::harness::{Folder, Start};

fn crosspoint(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crosspoint"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn version_and_help_are_for_standard_output() {
    for arguments in [["version"], ["--version"], ["-V"]] {
        let output = crosspoint(&arguments);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(text(&output.stdout), format!("crosspoint {}\n", env!("CARGO_PKG_VERSION")));
        assert_eq!(text(&output.stderr), "");
    }
    for arguments in [["help"], ["--help"], ["-h"]] {
        let output = crosspoint(&arguments);
        assert_eq!(output.status.code(), Some(0));
        for word in ["crosspoint check", "crosspoint version", "--config", "CROSSPOINT__"] {
            assert!(text(&output.stdout).contains(word), "{word}");
        }
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn what_nobody_understands_is_named_and_ends_with_2() {
    for (arguments, problem) in [
        (&["strat"][..], "strat"),
        (&["start", "--confg", "x"], "--confg"),
        (&["start", "--config"], "--config"),
        (&["check", "one.toml", "two.toml"], "two.toml"),
        (&["version", "--frobnicate"], "--frobnicate"),
        (&["demo", "--config", "x"], "--config"),
        (&["demo", "--port", "65536"], "65536"),
        (&["start", "--port", "1"], "--port"),
    ] {
        let output = crosspoint(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.lines().next().unwrap().contains(problem), "{arguments:?}: {said}");
        assert!(said.contains("Usage:"), "{said}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn a_file_that_is_taken_for_a_command_is_explained() {
    let folder = Folder::new();
    let path = folder.path().join("crosspoint.toml");
    fs::write(&path, "").unwrap();
    let output = crosspoint(&[path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("`crosspoint start {}`", path.display())), "{said}");
}

#[test]
fn check_prints_what_is_in_effect() {
    let output = crosspoint(&["check"]);
    assert_eq!(output.status.code(), Some(0));
    let printed = text(&output.stdout);
    assert!(printed.contains("port = 8080") && printed.contains("realm1"), "{printed}");
    // What it prints is a configuration, and says the same again, however it is named.
    let folder = Folder::new();
    let path = folder.path().join("crosspoint.toml");
    fs::write(&path, &printed).unwrap();
    let path = path.to_str().unwrap();
    for arguments in [&["check", "--config", path][..], &["check", "-c", path], &["check", path]] {
        let output = crosspoint(arguments);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), printed.clone()), "{arguments:?}");
    }
}

#[test]
fn check_says_all_that_is_wrong_and_where() {
    let folder = Folder::new();
    let path = folder.path().join("crosspoint.toml");
    fs::write(&path, "[[listener]]\nprot = 9000\nport = 70000\n").unwrap();
    let path = path.to_str().unwrap();
    // The router itself says the same, and opens nothing.
    for command in ["check", "start"] {
        let output = crosspoint(&[command, "--config", path]);
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        for piece in [&format!("{path}:2:1"), "did you mean `port`?", &format!("{path}:3:8"), "70000"] {
            assert!(said.contains(piece), "{piece} is missing in:\n{said}");
        }
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    for (path, why) in [("/nowhere/crosspoint.toml", "No such file"), ("/", "directory")] {
        let output = crosspoint(&["check", "--config", path]);
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        assert!(said.contains(path) && said.contains(why), "{said}");
    }
    let folder = Folder::new();
    let path = folder.path().join("binary.toml");
    fs::write(&path, [0xFF, 0xFE, 0x00]).unwrap();
    let output = crosspoint(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("binary.toml"), "{}", text(&output.stderr));
}

#[test]
fn variables_stand_above_the_file() {
    let check = |name: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crosspoint"));
        command.arg("check").env(name, value).output().unwrap()
    };
    let output = check("CROSSPOINT__LISTENER__0__PORT", "9123");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("port = 9123"), "{}", text(&output.stdout));
    let output = check("CROSSPOINT__LISTENER__0__PRT", "9123");
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("CROSSPOINT__LISTENER__0__PRT") && said.contains("port"), "{said}");
    // And they reach the router itself.
    let (code, said) = Start::new("").variable("CROSSPOINT__NODE__CORES", "[999]").refusal();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("node.cores names processor 999"), "{said}");
}

#[test]
fn variables_that_are_no_text_are_named_like_the_other_problems() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crosspoint"));
    let no_text = OsStr::from_bytes(b"info\xff");
    command.arg("check").env("CROSSPOINT__NODE__LOG__LEVEL", no_text).env("OF_SOMEBODY_ELSE", no_text);
    command.env(OsStr::from_bytes(b"CROSSPOINT__NODE__C\xd6RES"), "2");
    command.env("CROSSPOINT__LISTENER__0__PORT", "70000");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    for piece in [
        "node.log.level: the value is not UTF-8",
        "the environment variable CROSSPOINT__NODE__LOG__LEVEL",
        "the environment variable CROSSPOINT__NODE__C\u{fffd}RES",
        "listener[0].port: expected an integer",
        "the configuration has 3 problems",
    ] {
        assert!(said.contains(piece), "{piece} is missing in:\n{said}");
    }
}
