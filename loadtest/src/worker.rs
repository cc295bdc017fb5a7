//! A worker process: reads its plan and orders from standard input, works, and says what came of it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::clock::now_ns;
use crate::idle::Idle;
use crate::listen::Listen;
use crate::plan::{Job, Order, Plan, Progress, Report};
use crate::pool::Pool;
use crate::pubsub::PubSub;
use crate::rpc::Rpc;
use crate::work::Working;

/// How often a worker says how it stands, in nanoseconds.
const PROGRESS_NS: u64 = 200_000_000;

/// The longest wait of a turn.
const TURN: Duration = Duration::from_millis(50);

/// How long what is still on its way when work stops is waited for, in nanoseconds.
const DRAIN_NS: u64 = 15_000_000_000;

/// Runs a worker until its standard input ends.
pub(crate) fn run() -> io::Result<()> {
    // Byte by byte, and not through the buffer of the standard library: what the pool waits for must not be here already.
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut lines = BufReader::with_capacity(1, &stdin);
    let mut line = String::new();
    if lines.read_line(&mut line)? == 0 {
        return Ok(());
    }
    let plan: Plan = serde_json::from_str(&line).map_err(io::Error::other)?;
    let pool = Pool::new(plan.settings, &stdin)?;
    match plan.job {
        Job::Idle(job) => work(Idle::new(job), pool, &mut lines),
        Job::Rpc(job) => work(Rpc::new(job), pool, &mut lines),
        Job::PubSub(job) => work(PubSub::new(job), pool, &mut lines),
        Job::Listen(job) => work(Listen::new(job), pool, &mut lines),
    }
}

fn work<W: Working>(mut work: W, mut pool: Pool, lines: &mut impl BufRead) -> io::Result<()> {
    if let Err(error) = work.begin(&mut pool) {
        return say(&Report::Failed(error));
    }
    // The first READY tells that the work can start.
    let mut answers = true;
    let mut pausing_since_ns = None;
    let mut stopping_since_ns = None;
    let mut said_ns = 0;
    let mut progress = Progress::default();
    loop {
        let wait_ns = work.tick(&mut pool).unwrap_or(u64::MAX);
        let wait = Duration::from_nanos(wait_ns).min(TURN);
        if pool.turn(wait, &mut work)? {
            loop {
                let mut line = String::new();
                if lines.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let order: Order = serde_json::from_str(&line).map_err(io::Error::other)?;
                match order {
                    Order::Start => work.start(&mut pool),
                    Order::Measure => work.measure(),
                    Order::Pause => {
                        work.stop();
                        pausing_since_ns = Some(now_ns());
                    }
                    Order::Stop => {
                        work.stop();
                        stopping_since_ns = Some(now_ns());
                    }
                    other => {
                        work.order(&mut pool, other);
                        answers = true;
                    }
                }
                if !has_more() {
                    break;
                }
            }
        }
        if let Some(failure) = work.failure() {
            return say(&Report::Failed(failure.to_owned()));
        }
        let now_ns = now_ns();
        let is_drained = |since_ns: u64| work.is_done() || now_ns - since_ns > DRAIN_NS;
        let is_paused = pausing_since_ns.is_some_and(is_drained);
        let is_stopped = stopping_since_ns.is_some_and(is_drained);
        if is_paused || answers && work.is_ready() {
            answers = false;
            pausing_since_ns = None;
            say(&Report::Progress(progress_of(&mut work)))?;
            say(&Report::Ready)?;
        }
        if is_stopped {
            return say(&Report::Done(Box::new(work.finish())));
        }
        if now_ns - said_ns > PROGRESS_NS {
            said_ns = now_ns;
            let new = progress_of(&mut work);
            if new != progress {
                say(&Report::Progress(new.clone()))?;
                progress = new;
            }
        }
    }
}

fn progress_of(work: &mut impl Working) -> Progress {
    Progress { operations: work.clocked().operations, ..work.progress() }
}

/// Whether another order is there already.
fn has_more() -> bool {
    let stdin = io::stdin();
    let mut descriptors = [PollFd::new(&stdin, PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut descriptors, Some(&timeout)), Ok(1..))
}

fn say(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut line = serde_json::to_vec(report).map_err(io::Error::other)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}
