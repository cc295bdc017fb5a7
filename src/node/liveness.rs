//! Whether a core goes on, read off where it is whenever the node looks.
//!
//! No turn lasts for long. A core may wait for as long as it likes, but not when its doorbell rings: one that has been
//! waiting for some time is rung, and has to begin a turn.

use crate::shard::control::Whereabouts;

/// How long a turn may last, and how long a core that was rung may take to begin one, in microseconds.
pub(super) const TURN_US_MAX: u64 = 1_000_000;

/// How much of the time between two looks counts, in microseconds. A process that was stopped, or whose machine was suspended,
/// finds that its clock has gone on, and its cores need a moment to begin.
const LOOK_US_MAX: u64 = 500_000;

/// What the node has seen of one core.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    looked_us: u64,
    /// The beginning of the turn after which the core was rung, and how long it has not answered.
    rung: Option<(u64, u64)>,
    /// Where it was when it was last said to be stuck.
    told: Option<Whereabouts>,
}

/// What a look comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Its doorbell is to ring. Again at every look until it answers: a ring that comes just before it announces that it
    /// sleeps is none.
    pub(super) ring: bool,
    pub(super) stuck: Option<Stuck>,
}

/// A core that does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    pub(super) is_in_turn: bool,
    /// Since when its turn lasts, or it does not answer.
    pub(super) lasts_us: u64,
    /// It was not told of yet.
    pub(super) is_new: bool,
}

impl Liveness {
    /// Looks; a core that has been waiting for `ring_after_us` is to be rung.
    pub(super) fn look(&mut self, now_us: u64, whereabouts: Whereabouts, ring_after_us: u64) -> Look {
        let passed_us = now_us.saturating_sub(std::mem::replace(&mut self.looked_us, now_us));
        let passed_us = passed_us.min(LOOK_US_MAX);
        let (ring, lasts_us) = match whereabouts {
            Whereabouts::InTurn(began_us) => {
                self.rung = None;
                (false, now_us.saturating_sub(began_us))
            }
            Whereabouts::Waiting(began_us) => {
                self.rung = match self.rung {
                    Some((after_us, unanswered_us)) if after_us == began_us => {
                        Some((after_us, unanswered_us + passed_us))
                    }
                    _ => (now_us.saturating_sub(began_us) >= ring_after_us).then_some((began_us, 0)),
                };
                (self.rung.is_some(), self.rung.map_or(0, |(_, unanswered_us)| unanswered_us))
            }
        };
        let stuck = (lasts_us > TURN_US_MAX).then(|| Stuck {
            is_in_turn: matches!(whereabouts, Whereabouts::InTurn(_)),
            lasts_us,
            is_new: self.told.replace(whereabouts) != Some(whereabouts),
        });
        Look { ring, stuck }
    }
}

#[cfg(test)]
mod tests {
    use super::Whereabouts::{InTurn, Waiting};
    use super::*;

    const RING_AFTER_US: u64 = 5_000_000;
    const LOOK_US: u64 = 250_000;

    /// Looks every quarter of a second at a core that stays where it is: when it is first rung and when it is first said to be
    /// stuck, both since the first look, and how often it is told of.
    fn watch(
        liveness: &mut Liveness,
        from_us: u64,
        whereabouts: Whereabouts,
    ) -> (Option<u64>, Option<u64>, usize) {
        let (mut rung, mut stuck, mut told) = (None, None, 0);
        for passed_us in (0..40).map(|number| number * LOOK_US) {
            let look = liveness.look(from_us + passed_us, whereabouts, RING_AFTER_US);
            if look.ring {
                rung.get_or_insert(passed_us);
            }
            if let Some(seen) = look.stuck {
                assert_eq!(seen.is_in_turn, matches!(whereabouts, InTurn(_)));
                stuck.get_or_insert(passed_us);
                told += usize::from(seen.is_new);
            }
        }
        (rung, stuck, told)
    }

    #[test]
    fn a_turn_that_lasts_is_told_of_once() {
        let mut liveness = Liveness::default();
        assert_eq!(watch(&mut liveness, 7_000_000, InTurn(7_000_000)), (None, Some(1_250_000), 1));
        assert_eq!(liveness.look(18_000_000, InTurn(17_900_000), RING_AFTER_US), Look::default());
        assert_eq!(
            watch(&mut liveness, 19_000_000, InTurn(19_000_000)).2,
            1,
            "another turn is told of again"
        );
    }

    #[test]
    fn a_core_that_waits_for_long_is_rung_and_is_stuck_when_it_does_not_answer() {
        let mut liveness = Liveness::default();
        let (rung, stuck, told) = watch(&mut liveness, 7_000_000, Waiting(7_000_000));
        assert_eq!((rung, stuck, told), (Some(5_000_000), Some(6_250_000), 1));
        // It goes on after all.
        assert_eq!(liveness.look(17_000_000, Waiting(16_990_000), RING_AFTER_US), Look::default());
    }

    #[test]
    fn a_core_that_answers_is_rung_once_for_each_long_wait() {
        let mut liveness = Liveness::default();
        let mut began_us = 0;
        let mut rings = 0;
        for now_us in (0..400).map(|number| number * LOOK_US) {
            let look = liveness.look(now_us, Waiting(began_us), RING_AFTER_US);
            assert_eq!(look.stuck, None, "{now_us}");
            if look.ring {
                rings += 1;
                began_us = now_us + 20;
            }
        }
        assert_eq!(rings, 400 / 21, "every five seconds and a look");
    }

    #[test]
    fn a_core_without_a_first_turn_is_stuck() {
        let mut liveness = Liveness::default();
        assert_eq!(watch(&mut liveness, 90_000_000, Waiting(0)), (Some(0), Some(1_250_000), 1));
    }

    #[test]
    fn time_in_which_the_process_was_stopped_is_not_held_against_its_cores() {
        let mut liveness = Liveness::default();
        assert!(liveness.look(5_000_000, Waiting(0), RING_AFTER_US).ring);
        let look = liveness.look(65_000_000, Waiting(0), RING_AFTER_US);
        assert_eq!(look, Look { ring: true, stuck: None });
        // It had a quarter of a second to begin.
        assert_eq!(liveness.look(65_250_000, Waiting(65_000_010), RING_AFTER_US), Look::default());
    }
}
