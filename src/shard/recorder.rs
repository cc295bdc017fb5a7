//! The flight recorder: the heads of the last messages of each core, in fixed memory.
//!
//! No log line is allowed on the path of a message; this is what there is instead when something went wrong.

use std::cell::RefCell;
use std::fmt::Write as _;

use crate::router::peer::SessionKey;
use crate::wamp::{CloseReason, MessageType};

/// How many heads are kept.
const ENTRIES: usize = 4096;

#[derive(Clone, Copy, Debug)]
enum Head {
    Received { kind: MessageType, bytes: u32 },
    Closed { reason: CloseReason },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at_us: u64,
    session: SessionKey,
    head: Head,
}

/// The recorder of the thread that drives a shard.
#[derive(Debug, Default)]
struct Recorder {
    entries: Vec<Entry>,
    next: usize,
}

impl Recorder {
    fn record(&mut self, entry: Entry) {
        if self.entries.len() < ENTRIES {
            self.entries.push(entry);
        } else {
            self.entries[self.next] = entry;
        }
        self.next = (self.next + 1) % ENTRIES;
    }
}

thread_local! {
    static RECORDER: RefCell<Recorder> = const { RefCell::new(Recorder { entries: Vec::new(), next: 0 }) };
}

pub(super) fn received(at_us: u64, session: SessionKey, kind: MessageType, bytes: usize) {
    record(Entry { at_us, session, head: Head::Received { kind, bytes: bytes as u32 } });
}

pub(super) fn closed(at_us: u64, session: SessionKey, reason: CloseReason) {
    record(Entry { at_us, session, head: Head::Closed { reason } });
}

fn record(entry: Entry) {
    RECORDER.with_borrow_mut(|recorder| recorder.record(entry));
}

/// What this thread's shard did last, oldest first, a line each; empty on other threads. Never panics, because the
/// panic hook calls it.
#[must_use]
pub fn dump() -> String {
    RECORDER
        .try_with(|recorder| {
            let Ok(recorder) = recorder.try_borrow() else { return String::new() };
            let (newer, older) = recorder.entries.split_at(recorder.next.min(recorder.entries.len()));
            let mut text = String::new();
            for Entry { at_us, session, head } in older.iter().chain(newer) {
                let SessionKey { slot, generation } = session;
                let _ = match head {
                    Head::Received { kind, bytes } => {
                        writeln!(text, "{at_us} us  {slot}.{generation}  {} {bytes} bytes", kind.name())
                    }
                    Head::Closed { reason } => {
                        writeln!(text, "{at_us} us  {slot}.{generation}  closed: {}", reason.info().key)
                    }
                };
            }
            text
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_heads_in_order() {
        let session = SessionKey { slot: 7, generation: 1 };
        for at_us in 0..(ENTRIES as u64 + 10) {
            received(at_us, session, MessageType::Call, 20);
        }
        let text = dump();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), ENTRIES);
        assert!(lines[0].starts_with("10 us"), "{}", lines[0]);
        assert_eq!(lines[ENTRIES - 1], format!("{} us  7.1  CALL 20 bytes", ENTRIES + 9));
    }
}
