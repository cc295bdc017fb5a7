//! The worker processes of a run: started, given orders, listened to.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::plan::{Order, Plan, Progress, Report};
use crate::tally::{Tally, add_counts};

/// How often whoever waits for a crew is told how it stands.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// When nothing happens for so long, nothing will; in an emulated machine much is slow.
const STANDSTILL: Duration = Duration::from_secs(300);

/// Workers that run the same kind of work at the same time.
#[derive(Debug)]
pub(crate) struct Crew {
    workers: Vec<Worker>,
    reports: Receiver<(usize, Option<Report>)>,
}

#[derive(Debug)]
struct Worker {
    process: Child,
    orders: ChildStdin,
    progress: Progress,
    ready: bool,
    tally: Option<Tally>,
}

impl Crew {
    /// Starts a worker for each plan.
    pub(crate) fn start(plans: &[Plan]) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let (sender, reports) = channel();
        let mut workers = Vec::new();
        for (number, plan) in plans.iter().enumerate() {
            let mut process = Command::new(&program)
                .arg("worker")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|error| format!("a worker does not start: {error}"))?;
            let (Some(mut orders), Some(said)) = (process.stdin.take(), process.stdout.take()) else {
                return Err("a worker has no pipes".to_owned());
            };
            let plan = serde_json::to_string(plan).map_err(|error| error.to_string())?;
            writeln!(orders, "{plan}").map_err(|error| format!("a worker does not listen: {error}"))?;
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(said).lines() {
                    let report = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                    let ended = report.is_none();
                    if sender.send((number, report)).is_err() || ended {
                        return;
                    }
                }
                // The end of its output; nobody may be interested any more.
                let _ = sender.send((number, None));
            });
            workers.push(Worker {
                process,
                orders,
                progress: Progress::default(),
                ready: false,
                tally: None,
            });
        }
        Ok(Self { workers, reports })
    }

    /// Tells all of them.
    pub(crate) fn order(&mut self, order: Order) -> Result<(), String> {
        for number in 0..self.workers.len() {
            self.order_one(number, order)?;
        }
        Ok(())
    }

    /// Tells one of them.
    pub(crate) fn order_one(&mut self, number: usize, order: Order) -> Result<(), String> {
        let worker = &mut self.workers[number];
        if !matches!(order, Order::Start | Order::Measure | Order::Stop) {
            worker.ready = false;
        }
        let order = serde_json::to_string(&order).map_err(|error| error.to_string())?;
        writeln!(worker.orders, "{order}").map_err(|error| format!("a worker does not listen: {error}"))
    }

    /// How all of them stand together.
    pub(crate) fn progress(&self) -> Progress {
        let mut sum = Progress::default();
        for worker in &self.workers {
            sum.open += worker.progress.open;
            sum.operations += worker.progress.operations;
            add_counts(&mut sum.failed, &worker.progress.failed);
        }
        sum
    }

    /// Waits until what was ordered is done; `observe` is called ten times a second.
    pub(crate) fn wait_until_ready(&mut self, mut observe: impl FnMut(&Progress)) -> Result<(), String> {
        let (mut progress, mut changed) = (self.progress(), Instant::now());
        while !self.is_ready() {
            self.listen(SAMPLE_INTERVAL, true)?;
            let new = self.progress();
            observe(&new);
            if new != progress {
                (progress, changed) = (new, Instant::now());
            }
            if changed.elapsed() > STANDSTILL {
                return Err(format!(
                    "nothing happened for {} s: the router does not answer",
                    STANDSTILL.as_secs()
                ));
            }
        }
        Ok(())
    }

    /// Lets them work for so long; `observe` is called ten times a second.
    pub(crate) fn wait(&mut self, time: Duration, mut observe: impl FnMut(&Progress)) -> Result<(), String> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.listen(left.min(SAMPLE_INTERVAL), false)?;
            observe(&self.progress());
        }
    }

    /// Ends the work; what came of it, added up.
    pub(crate) fn finish(mut self) -> Result<Tally, String> {
        self.order(Order::Stop)?;
        while !self.workers.iter().all(|worker| worker.tally.is_some()) {
            self.listen(SAMPLE_INTERVAL, false)?;
        }
        let mut sum = Tally::default();
        for worker in &mut self.workers {
            sum.add(&worker.tally.take().unwrap_or_default());
        }
        Ok(sum)
    }

    fn is_ready(&self) -> bool {
        self.workers.iter().all(|worker| worker.ready)
    }

    /// Takes what they say for so long, or until all are ready.
    fn listen(&mut self, time: Duration, until_ready: bool) -> Result<(), String> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok((number, Some(report))) => {
                    let worker = &mut self.workers[number];
                    match report {
                        Report::Progress(progress) => worker.progress = progress,
                        Report::Ready => {
                            worker.ready = true;
                            if until_ready && self.is_ready() {
                                return Ok(());
                            }
                        }
                        Report::Done(tally) => worker.tally = Some(*tally),
                        Report::Failed(error) => return Err(error),
                    }
                }
                Ok((number, None)) => {
                    if self.workers[number].tally.is_none() {
                        return Err(format!("worker {number} ended before its work"));
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // One that has ended already is only waited for.
            let _ = worker.process.kill();
            let _ = worker.process.wait();
        }
    }
}
