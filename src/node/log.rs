//! Logs: written by a thread of their own. A reader that is slow, gone or blocked costs lines, and never anybody's time.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Log, LogFormat, LogLevel};

/// Lines that may wait for a slow reader; the others are lost, and counted.
const LINES_MAX: usize = 16_384;

/// What is gathered for one write, in bytes.
const WRITE_BYTES: usize = 64 * 1024;

/// How long the end of the process waits for lines that are not yet written.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Ends the thread that writes, after what it still has, or a second.
#[derive(Debug)]
pub struct LogGuard {
    lines: Lines,
    ending: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // If there is no room for this one, the thread is not waiting for it either.
        let _ = self.lines.sender.try_send(Vec::new());
        let _ = self.ended.recv_timeout(END_TIMEOUT);
    }
}

/// Starts the log of this process. Only the first call has an effect.
///
/// # Errors
/// The kernel's, for want of a thread.
pub fn start(config: &Log) -> io::Result<LogGuard> {
    let terminal = io::stdout().is_terminal();
    let (lines, guard) = start_writer(io::stdout())?;
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(lines).with_ansi(terminal);
    // An error says that there is a log already.
    let _ = if json {
        tracing::subscriber::set_global_default(
            builder.json().flatten_event(true).with_target(false).finish(),
        )
    } else {
        tracing::subscriber::set_global_default(builder.with_target(false).finish())
    };
    Ok(guard)
}

/// The near end: a line is handed over or lost, at once.
#[derive(Clone, Debug)]
struct Lines {
    sender: SyncSender<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(line.to_vec()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn start_writer(output: impl Write + Send + 'static) -> io::Result<(Lines, LogGuard)> {
    let (sender, waiting) = sync_channel(LINES_MAX);
    let (said_end, ended) = channel();
    let ending = Arc::new(AtomicBool::new(false));
    let lines = Lines { sender, lost: Arc::default() };
    let writer =
        Writer { output, waiting, lost: Arc::clone(&lines.lost), ending: Arc::clone(&ending), said_end };
    std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
    let guard = LogGuard { lines: lines.clone(), ending, ended };
    Ok((lines, guard))
}

/// The far end, which may be blocked for as long as the reader likes.
struct Writer<W> {
    output: W,
    waiting: Receiver<Vec<u8>>,
    lost: Arc<AtomicU64>,
    ending: Arc<AtomicBool>,
    said_end: Sender<()>,
}

impl<W: Write> Writer<W> {
    fn run(mut self) {
        let mut unwritten = 0;
        while let Ok(first) = self.waiting.recv() {
            // Asked before it is seen whether that is all: what comes while this is written, and before the end, counts.
            let is_ending = self.ending.load(Ordering::SeqCst);
            let (text, lines, is_all) = self.gather(first);
            if lines > 0 {
                match self.output.write_all(&text).and_then(|()| self.output.flush()) {
                    Ok(()) => self.confess(std::mem::take(&mut unwritten)),
                    Err(_) => unwritten += lines,
                }
            }
            if is_all && is_ending {
                break;
            }
        }
        // Nobody may be waiting any more.
        let _ = self.said_end.send(());
    }

    /// What waits, up to the size of a write: the text, how many lines it has, and whether that is all.
    fn gather(&self, first: Vec<u8>) -> (Vec<u8>, u64, bool) {
        let mut lines = u64::from(!first.is_empty());
        let mut text = first;
        while text.len() < WRITE_BYTES {
            let Ok(line) = self.waiting.try_recv() else { return (text, lines, true) };
            lines += u64::from(!line.is_empty());
            text.extend_from_slice(&line);
        }
        (text, lines, false)
    }

    /// Says how many lines were lost, now that something can be written again.
    fn confess(&self, unwritten: u64) {
        let lines = self.lost.swap(0, Ordering::Relaxed) + unwritten;
        if lines > 0 {
            warn!(lines, "log lines were lost: whoever reads this log did not take them in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::RecvTimeoutError;

    use super::*;

    /// A reader that takes something when the test says so, and then all of it.
    struct Gate {
        begin: Sender<()>,
        open: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.begin.send(()).map_err(io::Error::other)?;
            self.open.recv().map_err(io::Error::other)?;
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_takes_nothing_costs_lines_and_nobody_waits_for_it() {
        let ((open, gate), (written, output), (begin, _began)) = (channel(), channel(), channel());
        let (mut lines, guard) = start_writer(Gate { begin, open: gate, written }).unwrap();
        // The writer holds one write's worth beside what waits: WRITE_BYTES in lines of seven bytes.
        for _ in 0..LINES_MAX + WRITE_BYTES / 7 + 2 {
            lines.write_all(b"a line\n").unwrap();
        }
        assert!(lines.lost.load(Ordering::Relaxed) >= 1);
        assert_eq!(guard.ended.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
        // The end does not wait for ever: this returns.
        drop(guard);
        drop(open);
        drop(output);
    }

    #[test]
    fn what_waits_at_the_end_is_written_in_order() {
        let ((open, gate), (written, output), (begin, began)) = (channel(), channel(), channel());
        let (mut lines, guard) = start_writer(Gate { begin, open: gate, written }).unwrap();
        // The writer has taken the first line, and waits for its reader, when the others and the end come.
        lines.write_all(b"0\n").unwrap();
        began.recv().unwrap();
        for number in 1..100 {
            lines.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        let ending = Arc::clone(&guard.ending);
        let end = std::thread::spawn(move || drop(guard));
        while !ending.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        for _ in 0..100 {
            // Several lines go in one write, so it may have ended before the last of these.
            let _ = open.send(());
        }
        end.join().unwrap();
        let text: Vec<u8> = output.try_iter().flatten().collect();
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        assert_eq!(lines.lost.load(Ordering::Relaxed), 0);
    }
}
