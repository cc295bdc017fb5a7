//! Waiting on a core's sockets: epoll, a timerfd for the next deadline, an eventfd as the doorbell.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::mesh::Doorbell;
use super::world::{Ready, Token};

/// How many events one wait takes.
const EVENTS_MAX: usize = 512;

/// The slot of what is no connection.
const SPECIAL: u32 = u32::MAX;
const DOORBELL: u32 = 0;
const TIMER: u32 = 1;
const FIRST_LISTENER: u32 = 2;

/// An eventfd that wakes the core which watches it. It is never read: edge-triggered, each write is a new event.
#[derive(Debug)]
pub struct EventDoorbell(OwnedFd);

impl EventDoorbell {
    /// A doorbell.
    ///
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }
}

impl Doorbell for EventDoorbell {
    fn ring(&self) {
        // It could fail only by overflow, after 2^64 rings.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// The epoll set of one core.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    _doorbell: Arc<EventDoorbell>,
    armed_us: Option<u64>,
}

impl Poller {
    /// An epoll set with this doorbell.
    ///
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub fn new(doorbell: Arc<EventDoorbell>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &doorbell.0, special(DOORBELL), edge)?;
        epoll::add(&epoll, &timer, special(TIMER), edge)?;
        Ok(Self { epoll, timer, _doorbell: doorbell, armed_us: None })
    }

    /// Appends what became ready; see [`super::world::World::wait`].
    pub fn wait(&mut self, block: bool, ready: &mut Vec<Ready>) {
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = if block { None } else { Some(&AT_ONCE) };
        let mut buffer = [const { MaybeUninit::uninit() }; EVENTS_MAX];
        // Interrupted by a signal: as if nothing had happened.
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut buffer[..], timeout) else { return };
        for event in events {
            let data = event.data.u64();
            let (slot, generation) = (data as u32, (data >> 32) as u32);
            let token = if slot != SPECIAL {
                Token::Connection { slot, generation }
            } else if generation >= FIRST_LISTENER {
                Token::Listener((generation - FIRST_LISTENER) as u16)
            } else {
                if generation == TIMER {
                    self.armed_us = None;
                }
                continue;
            };
            let flags = event.flags;
            ready.push(Ready {
                token,
                readable: flags.contains(epoll::EventFlags::IN),
                writable: flags.intersects(epoll::EventFlags::OUT | epoll::EventFlags::ERR),
                hangup: flags
                    .intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR),
            });
        }
    }

    /// When the next blocking wait ends at the latest.
    pub fn set_deadline(&mut self, deadline_us: Option<u64>) {
        if self.armed_us == deadline_us {
            return;
        }
        // Zero would switch the timer off: a deadline of long ago is one microsecond.
        let at_us = deadline_us.map_or(0, |deadline_us| deadline_us.max(1));
        let at = Timespec { tv_sec: (at_us / 1_000_000) as i64, tv_nsec: (at_us % 1_000_000 * 1000) as i64 };
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = Itimerspec { it_interval: zero, it_value: at };
        if timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting).is_ok() {
            self.armed_us = deadline_us;
        }
    }

    /// Watches a connection, edge-triggered, for as long as its socket lives.
    ///
    /// # Errors
    /// The kernel's: no memory, or `fs.epoll.max_user_watches`.
    pub fn add_connection(&self, socket: impl AsFd, slot: u32, generation: u32) -> io::Result<()> {
        let data = epoll::EventData::new_u64(u64::from(slot) | u64::from(generation) << 32);
        let flags =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, data, flags)?)
    }

    /// Watches a listener, level-triggered. A listener that several cores watch wakes one of them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_listener(&self, socket: impl AsFd, listener: u16, is_shared: bool) -> io::Result<()> {
        let mut flags = epoll::EventFlags::IN;
        if is_shared {
            flags |= epoll::EventFlags::EXCLUSIVE;
        }
        Ok(epoll::add(&self.epoll, socket, special(FIRST_LISTENER + u32::from(listener)), flags)?)
    }

    /// No longer watches a listener.
    pub fn remove_listener(&self, socket: impl AsFd) {
        // It is not in the set if adding it had failed.
        let _ = epoll::delete(&self.epoll, socket);
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn special(number: u32) -> epoll::EventData {
    epoll::EventData::new_u64(u64::from(SPECIAL) | u64::from(number) << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doorbell_that_is_never_read_ends_every_wait() {
        let doorbell = EventDoorbell::new().unwrap();
        let mut poller = Poller::new(Arc::clone(&doorbell)).unwrap();
        let mut ready = Vec::new();
        for _ in 0..3 {
            doorbell.ring();
            poller.wait(true, &mut ready);
            assert!(ready.is_empty());
        }
    }

    #[test]
    fn a_deadline_ends_a_wait() {
        let mut poller = Poller::new(EventDoorbell::new().unwrap()).unwrap();
        let mut ready = Vec::new();
        for _ in 0..2 {
            let deadline_us = super::super::clock::now().monotonic_us + 2000;
            poller.set_deadline(Some(deadline_us));
            poller.wait(true, &mut ready);
            assert!(super::super::clock::now().monotonic_us >= deadline_us);
        }
    }
}
