//! What was computed for a login, counted in tests: who does not exist must cost what a user does. Time would say the same,
//! but never twice.

use std::cell::Cell;

/// How often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Work {
    pub(crate) hmacs: u32,
    pub(crate) secrets: u32,
    pub(crate) passwords: u32,
    pub(crate) signatures: u32,
}

thread_local! {
    static DONE: Cell<Work> = const { Cell::new(Work { hmacs: 0, secrets: 0, passwords: 0, signatures: 0 }) };
}

/// Counts some.
pub(crate) fn count(change: impl FnOnce(&mut Work)) {
    let mut done = DONE.get();
    change(&mut done);
    DONE.set(done);
}

/// What was counted since the last time, on this thread.
pub(crate) fn take() -> Work {
    DONE.take()
}
