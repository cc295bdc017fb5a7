//! Until when something may take: every wait of this client ends by one.

use std::time::{Duration, Instant};

use super::error::Error;

/// A year, for durations that no clock can add.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A moment on the monotonic clock.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Deadline(Instant);

impl Deadline {
    /// So long from now.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        let now = now();
        Self(now.checked_add(duration.min(FAR)).unwrap_or(now))
    }

    /// What is left, or none when it has passed.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        let left = self.0.saturating_duration_since(now());
        (!left.is_zero()).then_some(left)
    }

    /// An error when it has passed.
    pub(super) fn check(self, waiting_for: &'static str) -> Result<(), Error> {
        self.remaining().map(drop).ok_or(Error::TimedOut { waiting_for })
    }

    /// The earlier one of this and so long from now.
    #[must_use]
    pub fn within(self, duration: Duration) -> Self {
        self.min(Self::after(duration))
    }
}

#[allow(clippy::disallowed_methods, reason = "this thread blocks: nobody hands it the time while it waits")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_pass() {
        assert_eq!(Deadline::after(Duration::ZERO).remaining(), None);
        let later = Deadline::after(Duration::MAX);
        assert!(later.remaining().is_some_and(|left| left > Duration::from_secs(3600)));
        assert_eq!(later.within(Duration::ZERO).remaining(), None);
        assert_eq!(Deadline::after(Duration::from_secs(60)).within(Duration::MAX).max(later), later);
    }
}
