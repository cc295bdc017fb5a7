//! Timers of connections: handshakes, keepalive, readers that take nothing, farewells. On lived time.

use super::connection::{NEVER, Phase};
use super::core::Core;
use super::world::World;
use super::{CLOSES_A_TURN, Shard};
use crate::link::Framing;
use crate::router::peer::SessionKey;
use crate::wamp::CloseReason;

/// How many pings one turn may send.
const PINGS_A_TURN: usize = 64;

/// What the timers of a connection say.
enum Verdict {
    /// Look again then.
    Wait(u32),
    /// Send a ping, and look again then.
    Ping(u32),
    /// It is over.
    Close(CloseReason),
    /// It is over, farewell and all.
    Free,
}

impl<W: World> Shard<W> {
    /// Looks at the connections whose time has come, until a turn has sent or ended enough: the rest is due in the next.
    pub(super) fn check_timers(&mut self) {
        if !self.core.lived.is_due() {
            return;
        }
        let tick = self.core.lived.tick();
        let (mut pings, mut closes) = (0, 0);
        // Whatever is looked at here may start a timer of another connection, so the next look is only ever brought forward.
        self.core.lived.forget_check();
        self.check_probes();
        for slot in 0..self.core.connections.check_at.len() {
            let at = self.core.connections.check_at[slot];
            if at == NEVER {
                continue;
            }
            if at > tick || pings >= PINGS_A_TURN || closes >= CLOSES_A_TURN {
                self.core.lived.check_by(at);
                continue;
            }
            self.core.connections.check_at[slot] = NEVER;
            let Some(key) = self.core.connections.key_at(slot as u32) else { continue };
            match self.core.verdict(key) {
                Verdict::Wait(NEVER) => {}
                Verdict::Wait(at) => self.core.check_by(key, at),
                Verdict::Ping(at) => {
                    pings += 1;
                    self.core.ping(key);
                    self.core.check_by(key, at);
                }
                Verdict::Close(reason) => {
                    closes += 1;
                    self.close(key, reason);
                }
                Verdict::Free => {
                    closes += 1;
                    self.core.free(key);
                }
            }
        }
    }
}

impl<W: World> Core<W> {
    /// What time says about a connection.
    fn verdict(&mut self, key: SessionKey) -> Verdict {
        let tick = self.lived.tick();
        let slow = self.lived.ticks(self.limits.slow_consumer_timeout);
        let ping_timeout = self.lived.ticks(self.limits.ping_timeout);
        let interval = self.ping_interval_ticks();
        let handshake = self.lived.ticks(self.limits.handshake_timeout);
        let hello = self.lived.ticks(self.limits.hello_timeout);
        let linger = self.lived.ticks(self.limits.linger_timeout);
        let Some(connection) = self.connections.get_mut(key) else { return Verdict::Wait(NEVER) };
        let mut wake = NEVER;
        let timeout = match connection.phase {
            Phase::Handshake => Some((handshake, CloseReason::HandshakeTimeout)),
            Phase::Linked => Some((hello, CloseReason::HelloTimeout)),
            Phase::Open => None,
            Phase::Closing | Phase::Lingering => {
                let end = connection.since.saturating_add(linger);
                return if end <= tick { Verdict::Free } else { Verdict::Wait(end) };
            }
        };
        if let Some((ticks, reason)) = timeout {
            let end = connection.since.saturating_add(ticks);
            if end <= tick {
                return Verdict::Close(reason);
            }
            wake = wake.min(end);
        }
        if connection.blocked {
            let end = connection.stalled_since.saturating_add(slow);
            if end <= tick {
                return Verdict::Close(CloseReason::SlowConsumer);
            }
            wake = wake.min(end);
        }
        let Some(interval) = interval else { return Verdict::Wait(wake) };
        // Some RawSocket clients close their link at a PING (Autobahn|Python on asyncio): the kernel's keepalive, which
        // every TCP listener sets, finds out whether they are there.
        let is_rawsocket = connection.encoding.is_some_and(|encoding| encoding.framing == Framing::RawSocket);
        if connection.phase != Phase::Open || is_rawsocket {
            return Verdict::Wait(wake);
        }
        if connection.paused.reading() || connection.listed || connection.starved || connection.blocked {
            // Its pongs are not read, or the ping is still behind what it has not taken: silence says nothing. A
            // blocked outbox has the timer above.
            connection.last_read = tick;
            connection.pinged = false;
        }
        let silent = tick.saturating_sub(connection.last_read);
        if connection.pinged {
            let pinged_at = connection.since;
            let end = pinged_at.saturating_add(ping_timeout);
            if end <= tick {
                return Verdict::Close(CloseReason::PingTimeout);
            }
            return Verdict::Wait(wake.min(end.max(tick + 1)));
        }
        if silent < interval {
            let due = connection.last_read.saturating_add(interval).max(tick + 1);
            return Verdict::Wait(wake.min(due));
        }
        connection.pinged = true;
        connection.since = tick;
        Verdict::Ping(wake.min(tick.saturating_add(ping_timeout)))
    }

    /// The interval of pings in ticks; `None` when they are off.
    fn ping_interval_ticks(&self) -> Option<u32> {
        (!self.limits.ping_interval.is_zero()).then(|| self.lived.ticks(self.limits.ping_interval))
    }

    /// When a new session is first looked at: phased, so that those who came together are not pinged together.
    pub(super) fn first_ping(&mut self, key: SessionKey) -> u32 {
        let Some(interval) = self.ping_interval_ticks() else { return NEVER };
        let half = interval / 2;
        // A multiplicative hash spreads neighbouring slots over the second half of the interval.
        let phase = (u64::from(key.slot).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32;
        let early = if half == 0 { 0 } else { phase % half };
        let tick = self.lived.tick();
        if let Some(connection) = self.connections.get_mut(key) {
            // As if it had been silent for a while already.
            connection.last_read = tick.saturating_sub(early);
        }
        tick.saturating_add(interval - early)
    }

    fn ping(&mut self, key: SessionKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut frame = Vec::new();
        if connection.link.ping(&mut frame) {
            self.counters.pings += 1;
            // A full outbox has a timer of its own.
            let _ = self.push_bytes(key, &frame, 0);
        }
    }
}
