//! The body of the fuzz target for configurations: any bytes, as a file and variables of the environment.
//!
//! A file of its own so that a target of cargo-fuzz and the tests run the same; tests/config is its corpus.

use std::ffi::OsString;

use crosspoint::config::parse;

/// Lines at the top that begin with `#! ` are variables, the whole is the file.
///
/// # Panics
/// Where a configuration does not survive being printed and read again, or where a message would not be shown as it is.
pub(crate) fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines = text.lines().map_while(|line| line.strip_prefix("#! "));
    let variables: Vec<(String, OsString)> = lines
        .map(|line| line.split_once('=').unwrap_or((line, "")))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    match parse("config", &text, &variables) {
        Ok(config) => {
            let printed = config.to_toml();
            assert_eq!(parse("printed", &printed, &[]).as_ref(), Ok(&config), "{printed}");
        }
        Err(errors) => {
            assert!(!errors.errors.is_empty());
            let shown = errors.to_string();
            // Whatever is in a file or a variable, a terminal gets no control sequence from it.
            assert!(!shown.chars().any(|shown| shown.is_control() && shown != '\n'), "{shown:?}");
            for error in &errors.errors {
                assert!(error.line <= text.matches('\n').count() + 1, "{error:?}");
                assert_eq!(error.line == 0, error.column == 0, "{error:?}");
            }
        }
    }
}
