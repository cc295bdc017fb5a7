//! Who hosts the turns of a core: a glommio executor, or a plain pinned thread where io_uring is denied.
//!
//! While glommio has nothing of its own to do the shard may block the executor's thread in its own epoll: nobody else
//! waits for that thread, and it costs half of what parking through io_uring costs. While glommio has something to do
//! ([`while_pending`]) turns do not block: an idle shard waits for its epoll through glommio, and a busy one steps aside now
//! and then, because glommio submits and reaps only when nobody wants to run.

mod pending;
mod readable;

use std::fmt;
use std::io;

use core_affinity::CoreId as ProcessorId;
use glommio::{LocalExecutorBuilder, Placement};
use rustix::event::{EventfdFlags, eventfd};

pub use self::pending::while_pending;

use self::readable::Readable;
use super::clock;
use super::world::World;
use super::{Shard, Turn};

/// Entries of each io_uring of an executor. Its services are for files and timers of slow things.
const RING_DEPTH: usize = 128;

/// Memory that glommio registers for file reads, in bytes; its default is 10 MiB a core.
const IO_MEMORY_BYTES: usize = 64 * 1024;

/// While glommio has something to do, a busy shard steps aside after so many turns, or after so long in microseconds.
const TURNS_MAX: u32 = 16;
const TURNS_US_MAX: u64 = 250;

/// What hosts a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// A glommio executor.
    Glommio,
    /// The thread itself.
    Thread,
}

/// Why a shard could not be hosted.
#[derive(Debug)]
pub enum HostError {
    /// glommio made no executor.
    Executor(String),
    /// There are no descriptors to wait through it.
    Descriptors(io::Error),
    /// The thread could not be pinned to this processor.
    Pin(usize),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Executor(error) => write!(f, "glommio could not start an executor: {error}"),
            Self::Descriptors(error) => write!(f, "a glommio executor cannot be waited on: {error}"),
            Self::Pin(processor) => write!(
                f,
                "the thread could not be pinned to processor {processor}; is it in the affinity mask of this process?"
            ),
        }
    }
}

impl std::error::Error for HostError {}

/// Pins this thread to a processor, makes the shard there and runs it until it has stopped.
///
/// # Errors
/// Why there is no host; the shard took no turn then.
pub fn run<W: World>(host: Host, processor: usize, make: impl FnOnce() -> Shard<W>) -> Result<(), HostError> {
    match host {
        Host::Glommio => {
            let executor = LocalExecutorBuilder::new(Placement::Fixed(processor))
                .name("shard")
                .ring_depth(RING_DEPTH)
                .io_memory(IO_MEMORY_BYTES)
                .make()
                .map_err(|error| HostError::Executor(error.to_string()))?;
            executor.run(async {
                let shard = make();
                let beside = Beside::new(&shard).map_err(HostError::Descriptors)?;
                take_turns(shard, beside).await;
                Ok(())
            })
        }
        Host::Thread => {
            if !core_affinity::set_for_current(ProcessorId { id: processor }) {
                return Err(HostError::Pin(processor));
            }
            let mut shard = make();
            while shard.turn(true) == Turn::Continue {}
            Ok(())
        }
    }
}

/// Takes turns until the shard has stopped.
async fn take_turns<W: World>(mut shard: Shard<W>, mut beside: Beside) {
    loop {
        let turn = if pending::is_any() { beside.turn(&mut shard).await } else { shard.turn(true) };
        if turn == Turn::Stopped {
            return;
        }
    }
}

/// How a shard takes turns beside something that glommio has to do.
struct Beside {
    /// All that a blocking turn waits for; `None` if its world has no such thing.
    sockets: Option<Readable>,
    /// What can always be read: who waits for it lets glommio run, and runs on.
    always: Readable,
    /// Since glommio last ran: turns, and when it did.
    turns: u32,
    ran_us: u64,
}

impl Beside {
    fn new<W: World>(shard: &Shard<W>) -> io::Result<Self> {
        let sockets = shard.core.world.descriptor().map(Readable::new).transpose()?;
        let always = Readable::new(eventfd(1, EventfdFlags::CLOEXEC)?)?;
        Ok(Self { sockets, always, turns: 0, ran_us: 0 })
    }

    /// One turn, which lets glommio run first if it is time to, or if there is nothing else to do.
    async fn turn<W: World>(&mut self, shard: &mut Shard<W>) -> Turn {
        if let Some(sockets) = &mut self.sockets
            && shard.fall_asleep()
        {
            pending::ended_or(|context| sockets.poll(context)).await;
            shard.wake_up();
            self.glommio_ran();
        } else if self.turns >= TURNS_MAX || clock::now().monotonic_us >= self.ran_us + TURNS_US_MAX {
            self.always.wait().await;
            self.glommio_ran();
        }
        self.turns += 1;
        shard.pass(false)
    }

    fn glommio_ran(&mut self) {
        self.turns = 0;
        self.ran_us = clock::now().monotonic_us;
    }
}
