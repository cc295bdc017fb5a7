//! Whether clients are there, for the router: a ping, and a while for its own pong. On lived time, and of that only what
//! the client was read in: silence of somebody who is not heard says nothing.

use super::Shard;
use super::connection::Phase;
use super::core::Core;
use super::world::World;
use crate::router::effects::Sent;
use crate::router::peer::SessionKey;

/// A client that has to answer a ping.
#[derive(Debug)]
pub(super) struct Probe {
    key: SessionKey,
    /// What its pong must hold.
    number: u64,
    /// What is left of its time, in ticks.
    left: u32,
    /// When that was.
    tick: u32,
}

impl Probe {
    pub(super) fn is_of(&self, key: SessionKey) -> bool {
        self.key == key
    }
}

impl<W: World> Core<W> {
    /// Begins one. `false` where there is no ping that every client takes, and where its outbox has no room for one: who
    /// was not asked has not kept silent, and a full outbox has a timer of its own.
    pub(super) fn begin_probe(&mut self, key: SessionKey) -> bool {
        let tick = self.lived.tick();
        let number = self.probe_number.wrapping_add(1);
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let mut frame = Vec::new();
        if !connection.link.ping_with(number, &mut frame) {
            return false;
        }
        if self.push_bytes(key, &frame, self.tuning.reply_reserve_bytes) != Sent::Accepted {
            return false;
        }
        self.probe_number = number;
        self.counters.pings += 1;
        let left = self.lived.ticks(self.limits.takeover_timeout);
        self.probes.push(Probe { key, number, left, tick });
        self.lived.check_by(tick.saturating_add(1));
        true
    }
}

impl<W: World> Shard<W> {
    /// A client has answered a ping with a number.
    pub(super) fn handle_pong(&mut self, key: SessionKey, number: u64) {
        let is_this = |probe: &Probe| probe.key == key && probe.number == number;
        if let Some(place) = self.core.probes.iter().position(is_this) {
            self.core.probes.swap_remove(place);
            self.router.handle_probe(self.core.now, key, true, &mut self.core);
        }
    }

    /// Counts the time of those who have to answer; whose time is over is not there.
    pub(super) fn check_probes(&mut self) {
        if self.core.probes.is_empty() {
            return;
        }
        let tick = self.core.lived.tick();
        let connections = &self.core.connections;
        let mut silent = Vec::new();
        self.core.probes.retain_mut(|probe| {
            // Its end has been said to the router already.
            let Some(connection) = connections.get(probe.key).filter(|it| it.phase == Phase::Open) else {
                return false;
            };
            let passed = tick.saturating_sub(std::mem::replace(&mut probe.tick, tick));
            let is_heard = !(connection.paused.reading()
                || connection.listed
                || connection.starved
                || connection.blocked);
            if is_heard {
                probe.left = probe.left.saturating_sub(passed);
            }
            if probe.left == 0 {
                silent.push(probe.key);
            }
            probe.left > 0
        });
        if !self.core.probes.is_empty() {
            self.core.lived.check_by(tick.saturating_add(1));
        }
        for key in silent {
            self.router.handle_probe(self.core.now, key, false, &mut self.core);
        }
    }
}
