//! Runs functions with events and answers, each thread on a connection of its own.

use std::time::{Duration, Instant};

use super::queues::Work;
use super::{Failure, LOOK, Problem, RETRY_FIRST, RETRY_MAX, RunError, Runner, Shared};

/// The life of a thread.
pub(super) fn work(shared: &Shared) {
    let (mut runner, mut retry) = (None, RETRY_FIRST);
    while let Some(work) = next(shared) {
        let connected = match runner.take() {
            Some(connected) => Ok(connected),
            None => shared.driver.runner(),
        };
        match connected {
            Ok(mut connected) => {
                retry = RETRY_FIRST;
                if do_one(shared, &mut *connected, work) {
                    runner = Some(connected);
                }
            }
            // That it is away others say.
            Err(Problem(_)) => {
                shared.queues().put_back(work);
                super::pause(shared, retry);
                retry = (retry * 2).min(RETRY_MAX);
                if shared.is_stopping() {
                    return;
                }
            }
        }
    }
}

/// Waits for something to do; `None` at the end.
fn next(shared: &Shared) -> Option<Work> {
    let mut queues = shared.queues();
    loop {
        if shared.is_over() || shared.is_stopping() && queues.is_empty() {
            return None;
        }
        let now = Instant::now();
        if let Some(work) = queues.take(now) {
            return Some(work);
        }
        let due = queues.next_due().map_or(LOOK, |due| due.saturating_duration_since(now));
        let wait = due.clamp(Duration::from_millis(1), LOOK);
        queues = match shared.work.wait_timeout(queues, wait) {
            Ok((queues, _)) => queues,
            Err(_) => return None,
        };
    }
}

/// For the log.
fn why_buried(function: &str, topic: &str, Failure { attempts, error }: &Failure) -> String {
    match attempts {
        0 => format!("{function} does not get {topic}: {error}"),
        _ => format!("{function} failed {attempts} times with {topic}: {error}"),
    }
}

/// Whether the connection may be used again.
fn do_one(shared: &Shared, runner: &mut dyn Runner, work: Work) -> bool {
    match work {
        Work::Events { id, function, events, spent } => {
            let (result, count) = match (&spent, events.first()) {
                (Some(failure), Some(event)) => (runner.bury(&function, event, failure).map(|()| 1), 1),
                _ => (runner.run(&function, &events), events.len()),
            };
            let (error, is_lost) = match result {
                Ok(count) => {
                    if let (Some(failure), Some(event)) = (&spent, events.first()) {
                        shared.queues().buried(id);
                        shared.tell_buried(why_buried(&function.name, &event.topic, failure));
                    } else {
                        shared.queues().done(id, count);
                    }
                    // Others may have more of it to do.
                    shared.work.notify_one();
                    return true;
                }
                Err(RunError::Busy) => {
                    shared.queues().put_back(Work::Events { id, function, events, spent });
                    return true;
                }
                Err(RunError::Lost(Problem(problem))) => (problem, true),
                Err(RunError::Refused(error)) => (error, false),
            };
            if spent.is_some() {
                shared.tell_stuck(format!("an event of {} cannot be put aside: {error}", function.name));
            }
            shared.queues().failed(id, count, error, Instant::now());
            !is_lost
        }
        Work::Answer { answer, failure, spent } => {
            let result = match (&failure, spent) {
                (Some(failure), true) => runner.finish_in_vain(&answer, failure),
                _ => runner.finish(&answer),
            };
            let (error, is_lost) = match result {
                Ok(()) => {
                    shared.calls.done(answer.id);
                    if let (Some(Failure { attempts, error }), true) = (failure, spent) {
                        shared.queues().answer_buried();
                        let (id, procedure) = (answer.id, &answer.procedure);
                        let text = format!("the answer {id} of {procedure} failed {attempts} times: {error}");
                        shared.tell_buried(text);
                    }
                    return true;
                }
                Err(RunError::Busy) => {
                    shared.queues().put_back(Work::Answer { answer, failure, spent });
                    return true;
                }
                Err(RunError::Lost(Problem(problem))) => (problem, true),
                Err(RunError::Refused(error)) => (error, false),
            };
            if spent {
                shared.tell_stuck(format!(
                    "the answer {} of {} cannot be noted: {error}",
                    answer.id, answer.procedure
                ));
            }
            shared.queues().answer_failed(answer, failure, error, Instant::now());
            !is_lost
        }
    }
}
