//! Who hosts the turns of a core: a glommio executor, or a plain pinned thread where io_uring is denied.
//!
//! While glommio has nothing of its own to do the shard may block the executor's thread in its own epoll: nobody else
//! waits for that thread, and it costs half of what parking through io_uring costs.

use std::fmt;

use core_affinity::CoreId as ProcessorId;
use glommio::{LocalExecutorBuilder, Placement};

use super::world::World;
use super::{Shard, Turn};

/// Entries of each io_uring of an executor. Its services are for files and timers of slow things.
const RING_DEPTH: usize = 128;

/// Memory that glommio registers for file reads, in bytes; its default is 10 MiB a core.
const IO_MEMORY_BYTES: usize = 64 * 1024;

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
    /// The thread could not be pinned to this processor.
    Pin(usize),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Executor(error) => write!(f, "glommio could not start an executor: {error}"),
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
/// Why there is no host; the shard was not made then.
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
                let mut shard = make();
                while shard.turn(true) == Turn::Continue {}
            });
        }
        Host::Thread => {
            if !core_affinity::set_for_current(ProcessorId { id: processor }) {
                return Err(HostError::Pin(processor));
            }
            let mut shard = make();
            while shard.turn(true) == Turn::Continue {}
        }
    }
    Ok(())
}
