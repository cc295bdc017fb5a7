//! `[node]`: the process.

use std::time::Duration;

use super::kinds::{Integer, List, Or, Words, milliseconds, single};
use super::section::{Section, section};
use super::{Log, LogFormat, LogLevel, Node, Runtime};

/// The highest number of a processor that an affinity mask of the kernel's usual size holds.
pub(super) const CORE_MAX: usize = 1023;

const RUNTIMES: &[(&str, Runtime)] =
    &[("auto", Runtime::Auto), ("glommio", Runtime::Glommio), ("thread", Runtime::Thread)];

const LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

const FORMATS: &[(&str, LogFormat)] =
    &[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Cores, each once.
pub(super) const CORES: List<Integer<usize>> =
    List { name: "cores", of: Integer(0..=CORE_MAX), count: 1..=CORE_MAX + 1 };

section! {
    Node {
        cores: Or("auto", CORES), None;
        runtime: Words(RUNTIMES), Runtime::Auto;
        shutdown_timeout ["shutdown_timeout_ms"]: milliseconds(0..=600_000), Duration::from_secs(10);
        log: single(), Log::defaults();
    }
}

impl Section for Node {}

section! {
    Log {
        level: Words(LEVELS), LogLevel::Info;
        format: Words(FORMATS), LogFormat::Auto;
    }
}

impl Section for Log {}
