//! Asking a database what it offers before it is time to.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Pool;

impl Pool {
    /// What asks the database at once what it offers, whenever it is called.
    #[must_use]
    pub fn reload(&self) -> Arc<dyn Fn() + Send + Sync> {
        let shared = Arc::clone(&self.shared);
        Arc::new(move || {
            shared.is_stale.store(true, Ordering::Release);
            shared.wake_keeper();
        })
    }
}
