//! Calls of statements between who reads them in the database and who makes them.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::DatabaseCall;

/// What is under way, from its being read until its answer is noted: no more than so many.
#[derive(Debug)]
pub struct Calls {
    table: Mutex<Table>,
    calls_max: usize,
    /// Wakes who makes them.
    bell: OwnedFd,
}

#[derive(Debug, Default)]
struct Table {
    /// Those that were not made yet.
    waiting: VecDeque<DatabaseCall>,
    /// Ends when the answer is in the database.
    under_way: HashSet<i64>,
    /// How many were made, ever.
    made: u64,
}

impl Calls {
    /// None so far, and never more than so many.
    ///
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub fn new(calls_max: usize) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { table: Mutex::default(), calls_max, bell })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many more there may be, and which there are.
    #[must_use]
    pub fn room(&self) -> (usize, Vec<i64>) {
        let table = self.table();
        let under_way: Vec<i64> = table.under_way.iter().copied().collect();
        (self.calls_max.saturating_sub(under_way.len()), under_way)
    }

    /// A call to be made, unless it is under way.
    pub fn give(&self, call: DatabaseCall) {
        let mut table = self.table();
        if table.under_way.insert(call.id) {
            table.waiting.push_back(call);
        }
        drop(table);
        self.ring();
    }

    /// Its answer is in the database.
    pub fn done(&self, id: i64) {
        self.table().under_way.remove(&id);
    }

    /// It was made.
    pub(super) fn made(&self) {
        self.table().made += 1;
    }

    /// How many were made so far, and how many are not answered.
    pub(super) fn counts(&self) -> (u64, u64) {
        let table = self.table();
        (table.made, table.under_way.len() as u64)
    }

    /// The next to be made.
    pub(super) fn take(&self) -> Option<DatabaseCall> {
        self.table().waiting.pop_front()
    }

    /// It could not be made yet.
    pub(super) fn put_back(&self, call: DatabaseCall) {
        self.table().waiting.push_front(call);
    }

    pub(super) fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// To be called before one looks what there is.
    pub(super) fn silence(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }
}

impl AsFd for Calls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
