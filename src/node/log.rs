//! Logs: written by a thread of their own, which loses lines rather than block anybody.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

use crate::config::{Log, LogFormat, LogLevel};

/// Lines that may wait for a slow reader; the others are lost, and counted.
const LINES_MAX: usize = 16_384;

/// Ends the thread that writes, after what it still has, or a second.
#[derive(Debug)]
pub struct LogGuard {
    _worker: WorkerGuard,
}

/// Starts the log of this process. Only the first call has an effect.
#[must_use]
pub fn start(config: &Log) -> LogGuard {
    let (writer, worker) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX).finish(io::stdout());
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let terminal = io::stdout().is_terminal();
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(writer).with_ansi(terminal);
    // An error says that there is a log already.
    let _ = if json {
        tracing::subscriber::set_global_default(
            builder.json().flatten_event(true).with_target(false).finish(),
        )
    } else {
        tracing::subscriber::set_global_default(builder.with_target(false).finish())
    };
    LogGuard { _worker: worker }
}
