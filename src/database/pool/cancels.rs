//! Stops what runs and is cancelled, by a thread of its own: a server that says nothing holds whoever cancels for a while, and
//! then nobody else.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Call, Shared};

/// A cancel that came between two steps of a server is lost: it is sent again this often, until the call is over.
const AGAIN: Duration = Duration::from_millis(250);

/// What is to be stopped.
pub(super) struct Cancels {
    shared: Arc<Shared>,
    /// Ends with each call: no more than there are threads that run one.
    cancelling: Vec<Arc<Call>>,
}

impl Cancels {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, cancelling: Vec::new() }
    }

    /// The life of the thread.
    pub(super) fn run(mut self) {
        let _ = self.shared.canceller.set(thread::current());
        while !self.shared.is_stopping() {
            self.cancel();
            if self.cancelling.is_empty() {
                thread::park();
            } else {
                thread::park_timeout(AGAIN);
            }
        }
        // What the last sessions of the cores left behind.
        self.cancel();
    }

    fn cancel(&mut self) {
        self.cancelling.extend(std::iter::from_fn(|| self.shared.cancels.pop()));
        self.cancelling.retain(|call| {
            let running = call.running.lock().unwrap_or_else(PoisonError::into_inner);
            // Not begun: it ends before it begins. Over: there is nothing to stop.
            let Some(cancel) = running.as_ref() else { return false };
            if call.is_over.load(Ordering::Acquire) {
                return false;
            }
            cancel.cancel();
            true
        });
    }
}
