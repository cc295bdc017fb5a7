//! Ids that must be random, from a stream of one seed and the core's number, so that runs replay.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::peer::CoreId;
use crate::wamp::{PublicationId, SessionId};

/// The random source of one core's router.
#[derive(Debug)]
pub(super) struct Random(ChaCha8Rng);

impl Random {
    /// Cores share the seed; each has a stream of its own.
    pub(super) fn new(seed: [u8; 32], core: CoreId) -> Self {
        let mut generator = ChaCha8Rng::from_seed(seed);
        // Stream 0 belongs to what all cores must draw alike.
        generator.set_stream(u64::from(core.0) + 1);
        Self(generator)
    }

    /// A key that comes out the same on every core of this seed.
    pub(super) fn shared_key(seed: [u8; 32]) -> u64 {
        ChaCha8Rng::from_seed(seed).next_u64()
    }

    /// Any number.
    pub(super) fn key(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in 0..`bound`, but for what 2^64 is no multiple of it: nobody can tell.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.key()) * bound as u128) >> 64) as usize
    }

    /// Bytes for a challenge.
    pub(super) fn nonce(&mut self) -> [u8; 32] {
        let mut nonce = [0; 32];
        self.0.fill_bytes(&mut nonce);
        nonce
    }

    /// Uniform in 1..=2^53.
    fn id(&mut self) -> u64 {
        (self.0.next_u64() >> 11) + 1
    }

    pub(super) fn publication_id(&mut self) -> PublicationId {
        PublicationId(self.id())
    }

    pub(super) fn session_id(&mut self) -> SessionId {
        SessionId(self.id())
    }
}
