//! Which cores a publication goes to.

use crate::router::peer::CoreId;

/// Which of the other cores a publication goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interested {
    pub(super) own: CoreId,
    pub(super) cores: u16,
    /// A bit for each of the first cores.
    pub(super) first: u64,
    /// The topic, and the patterns that may match it, as cores announce them: [`super::Broker::interests`].
    pub(super) numbers: [u64; 2],
}

impl Interested {
    /// Cores above this number are not asked: they want everything.
    pub(super) const ASKED_MAX: u16 = 64;

    /// Every core is told.
    pub(super) fn all(&mut self) {
        let asked = u32::from(self.cores.min(Self::ASKED_MAX));
        let own = 1_u64.checked_shl(u32::from(self.own.0)).unwrap_or_default();
        self.first = u64::MAX.checked_shr(64 - asked).unwrap_or_default() & !own;
    }

    /// One more is told.
    pub(super) fn add(&mut self, core: CoreId) {
        if core != self.own && core.0 < Self::ASKED_MAX {
            self.first |= 1 << core.0;
        }
    }

    pub(super) fn has(self, core: CoreId) -> bool {
        core != self.own && (core.0 >= Self::ASKED_MAX || self.first & 1 << core.0 != 0)
    }

    pub(super) fn count(self) -> u32 {
        let others = self.cores.saturating_sub(Self::ASKED_MAX) - u16::from(self.own.0 >= Self::ASKED_MAX);
        self.first.count_ones() + u32::from(others)
    }
}
