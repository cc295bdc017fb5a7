//! What waits to be run: events for each function, in their order and one batch at a time, and answers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counted::Counts;
use super::{Answer, Event, Failure, Function, InsideOptions, Wanted};

/// How many events are run in one transaction.
const BATCH_MAX: usize = 100;
/// And about how many bytes.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// What failed is tried again after this time, twice as long each time, but no longer than that.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// What an event or answer holds beside its texts, in bytes.
const OVERHEAD_BYTES: usize = 128;

/// All that waits. Events beyond the bounds are not taken, and counted.
#[derive(Debug)]
pub(super) struct Queues {
    bounds: Bounds,
    /// By the subscription's number; ends with the subscription, once nothing of it runs.
    queues: BTreeMap<i64, Queue>,
    /// Whose queue was looked at last.
    last: i64,
    answers: VecDeque<Waiting>,
    /// Of all events.
    bytes: usize,
    /// Those that found no room, and that nobody was told of.
    overflown: u64,
    counts: Counts,
}

/// How much may wait, how often it is tried, and what is not tried at all: see [`InsideOptions`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub(super) struct Bounds {
    pub(super) queue_max: usize,
    pub(super) bytes_max: usize,
    pub(super) attempts: u32,
    pub(super) depth_max: u32,
}

impl From<&InsideOptions> for Bounds {
    fn from(options: &InsideOptions) -> Self {
        let InsideOptions { queue_max, queue_bytes_max: bytes_max, attempts, depth_max, .. } = *options;
        Self { queue_max, bytes_max, attempts, depth_max }
    }
}

impl Bounds {
    /// Why no function gets an event: it would go round for ever.
    fn refuses(&self, event: &Event) -> Option<Failure> {
        let Self { depth_max, .. } = *self;
        (event.depth >= depth_max).then(|| {
            let error = format!(
                "{} events led to this one, each by a function that published the next, and functions get none that as many \
                 as `depth_max` ({depth_max}) led to: do they publish what leads back to them?",
                event.depth
            );
            Failure { attempts: 0, error }
        })
    }
}

#[derive(Debug)]
struct Queue {
    function: Function,
    /// How often an event is tried.
    attempts: u32,
    events: VecDeque<Arc<Event>>,
    is_running: bool,
    is_gone: bool,
    /// Of the first event.
    trial: Trial,
    /// So many are run alone: together they failed, and whose fault it was is to be known.
    alone: usize,
}

#[derive(Debug)]
struct Waiting {
    answer: Answer,
    trial: Trial,
}

/// How often something was tried, and when it may be again.
#[derive(Debug, Default)]
struct Trial {
    failure: Option<Failure>,
    not_before: Option<Instant>,
}

impl Trial {
    fn failed(&mut self, error: String, now: Instant) {
        let attempts = self.failure.as_ref().map_or(0, |failure| failure.attempts) + 1;
        let pause = AGAIN_FIRST.saturating_mul(1 << (attempts - 1).min(16)).min(AGAIN_MAX);
        self.failure = Some(Failure { attempts, error });
        self.not_before = Some(now + pause);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    /// Why it is not tried any more.
    fn spent(&self, attempts_max: u32) -> Option<Failure> {
        self.failure.clone().filter(|failure| failure.attempts >= attempts_max)
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Events of one subscription; with a failure the one event is to be put aside.
    Events { id: i64, function: Function, events: Vec<Arc<Event>>, spent: Option<Failure> },
    /// An answer; with a failure it is to be noted alone.
    Answer { answer: Answer, failure: Option<Failure>, spent: bool },
}

/// The bytes that an event holds of the bound.
fn bytes_of(event: &Event) -> usize {
    event.topic.len() + event.args.len() + event.kwargs.len() + event.details.len() + OVERHEAD_BYTES
}

impl Queues {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (queues, answers, counts) = (BTreeMap::new(), VecDeque::new(), Counts::default());
        Self { bounds, queues, last: 0, answers, bytes: 0, overflown: 0, counts }
    }

    /// What was counted so far, and how much waits.
    pub(super) fn counts(&self) -> Counts {
        let waiting =
            self.queues.values().map(|queue| queue.events.len()).sum::<usize>() + self.answers.len();
        Counts { waiting: waiting as u64, ..self.counts }
    }

    /// These are the subscriptions from now on. What waits for one that is gone is forgotten.
    pub(super) fn subscribe(&mut self, wanted: &[Wanted]) {
        for (id, queue) in &mut self.queues {
            queue.is_gone = !wanted.iter().any(|wanted| wanted.id == *id);
            if queue.is_gone && !queue.is_running {
                self.bytes -= queue.events.drain(..).map(|event| bytes_of(&event)).sum::<usize>();
            }
        }
        self.queues.retain(|_, queue| !queue.is_gone || queue.is_running);
        for wanted in wanted {
            let queue = self.queues.entry(wanted.id).or_insert_with(|| Queue {
                function: Function::default(),
                attempts: 0,
                events: VecDeque::new(),
                is_running: false,
                is_gone: false,
                trial: Trial::default(),
                alone: 0,
            });
            queue.function.clone_from(&wanted.function);
            queue.attempts = wanted.attempts.unwrap_or(self.bounds.attempts);
        }
    }

    /// An event of a subscription; `false`: there is no room for it.
    pub(super) fn push(&mut self, id: i64, event: &Arc<Event>) -> bool {
        let Some(queue) = self.queues.get_mut(&id).filter(|queue| !queue.is_gone) else { return true };
        let bytes = bytes_of(event);
        if queue.events.len() >= self.bounds.queue_max || self.bytes + bytes > self.bounds.bytes_max {
            self.overflown += 1;
            self.counts.overflown += 1;
            return false;
        }
        self.counts.events += 1;
        self.bytes += bytes;
        queue.events.push_back(Arc::clone(event));
        true
    }

    /// An answer. There are no more than calls.
    pub(super) fn answer(&mut self, answer: Answer) {
        self.answers.push_back(Waiting { answer, trial: Trial::default() });
    }

    /// How many events found no room since the last time.
    pub(super) fn take_overflown(&mut self) -> u64 {
        std::mem::take(&mut self.overflown)
    }

    /// The next that may be run. Answers first: somebody may wait for them.
    pub(super) fn take(&mut self, now: Instant) -> Option<Work> {
        if let Some(place) = self.answers.iter().position(|waiting| waiting.trial.is_due(now))
            && let Some(Waiting { answer, trial }) = self.answers.remove(place)
        {
            let spent = trial.spent(self.bounds.attempts).is_some();
            self.counts.retries += u64::from(trial.failure.is_some() && !spent);
            return Some(Work::Answer { answer, failure: trial.failure, spent });
        }
        let is_ready =
            |queue: &Queue| !queue.is_running && !queue.events.is_empty() && queue.trial.is_due(now);
        let next = self.queues.range(self.last + 1..).chain(self.queues.range(..=self.last));
        let id = next.into_iter().find(|(_, queue)| is_ready(queue)).map(|(id, _)| *id)?;
        self.last = id;
        let queue = self.queues.get_mut(&id)?;
        queue.is_running = true;
        let bounds = self.bounds;
        let refused = queue.events.front().and_then(|event| bounds.refuses(event));
        let count_max = if queue.alone > 0 || refused.is_some() { 1 } else { BATCH_MAX };
        let mut bytes = 0;
        let fits = |event: &&Arc<Event>| {
            let is_first = bytes == 0;
            bytes += bytes_of(event);
            is_first || bytes <= BATCH_BYTES_MAX && bounds.refuses(event).is_none()
        };
        let events = queue.events.iter().take(count_max).take_while(fits).cloned().collect();
        let is_tried_again = queue.trial.failure.is_some() || queue.alone > 0;
        let spent = refused.or_else(|| queue.trial.spent(queue.attempts));
        self.counts.retries += u64::from(is_tried_again && spent.is_none());
        Some(Work::Events { id, function: queue.function.clone(), events, spent })
    }

    /// So many events of a subscription were run, or put aside.
    pub(super) fn done(&mut self, id: i64, count: usize) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let done = queue.events.drain(..count.min(queue.events.len()));
        self.bytes -= done.map(|event| bytes_of(&event)).sum::<usize>();
        queue.trial = Trial::default();
        queue.alone = queue.alone.saturating_sub(count);
        self.rest(id);
    }

    /// An event was put aside.
    pub(super) fn buried(&mut self, id: i64) {
        self.counts.dead_letters += 1;
        self.done(id, 1);
    }

    /// An answer was put aside.
    pub(super) fn answer_buried(&mut self) {
        self.counts.dead_letters += 1;
    }

    /// So many events of a subscription failed together. Of several none counts as tried: each is tried alone next.
    pub(super) fn failed(&mut self, id: i64, count: usize, error: String, now: Instant) {
        self.counts.failures += 1;
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if count > 1 {
            queue.alone = count;
        } else {
            queue.alone = queue.alone.max(1);
            queue.trial.failed(error, now);
        }
        self.rest(id);
    }

    /// Nothing was tried: it waits as it was.
    pub(super) fn put_back(&mut self, work: Work) {
        match work {
            Work::Events { id, .. } => self.rest(id),
            Work::Answer { answer, failure, .. } => {
                self.answers.push_front(Waiting { answer, trial: Trial { failure, not_before: None } });
            }
        }
    }

    pub(super) fn answer_failed(
        &mut self,
        answer: Answer,
        failure: Option<Failure>,
        error: String,
        now: Instant,
    ) {
        self.counts.failures += 1;
        let mut trial = Trial { failure, not_before: None };
        trial.failed(error, now);
        self.answers.push_back(Waiting { answer, trial });
    }

    fn rest(&mut self, id: i64) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.is_running = false;
        if queue.is_gone
            && let Some(queue) = self.queues.remove(&id)
        {
            self.bytes -= queue.events.iter().map(|event| bytes_of(event)).sum::<usize>();
        }
    }

    /// When the next may be tried again, where none may be now.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let of_queues = self.queues.values().filter(|queue| !queue.is_running && !queue.events.is_empty());
        let of_queues = of_queues.filter_map(|queue| queue.trial.not_before);
        of_queues.chain(self.answers.iter().filter_map(|waiting| waiting.trial.not_before)).min()
    }

    /// Whether nothing waits and nothing runs.
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.queues.values().all(|queue| queue.events.is_empty())
    }
}
