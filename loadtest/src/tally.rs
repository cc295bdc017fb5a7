//! What came of the work, in a form that adds up over processes.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

/// The longest latency that is told apart from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// One slot of [`Tally::rate`], in milliseconds.
pub(crate) const RATE_SLOT_MS: u64 = 100;

/// What came of the work of one worker, or of several.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Calls answered, or events received.
    pub(crate) operations: u64,
    /// Publications made.
    pub(crate) publications: u64,
    /// Requests that were answered with ERROR, by URI.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Sessions that did not come about or ended, by reason.
    pub(crate) ended: BTreeMap<String, u64>,
    /// Events that did not arrive.
    pub(crate) lost: u64,
    /// Events that arrived twice.
    pub(crate) duplicated: u64,
    /// Events that arrived behind a later one of the same publisher.
    pub(crate) reordered: u64,
    /// Payloads that were not what was sent, or not meant for who received them.
    pub(crate) wrong: u64,
    /// From sending to receiving, in microseconds; where the load is paced, from when it should have been sent.
    pub(crate) latency_us: Latency,
    /// From the start of a connection to WELCOME, or SUBSCRIBED where each subscribes.
    pub(crate) open_us: Latency,
    /// Operations in each tenth of a second.
    pub(crate) rate: Vec<u64>,
    /// The longest time without an event for a subscriber that reads, in microseconds.
    pub(crate) longest_gap_us: u64,
    /// What the subscribers that stalled received in the end.
    pub(crate) stalled_received: u64,
    /// How their connections ended, by reason.
    pub(crate) stalled_ended: BTreeMap<String, u64>,
    /// CPU time of the generator while it was measured, in microseconds.
    pub(crate) generator_cpu_us: u64,
    /// The busiest of the generator's processes: its share of a core, from 0 to 1.
    pub(crate) generator_busy: f64,
    /// How long was measured, in microseconds.
    pub(crate) wall_us: u64,
}

impl Tally {
    /// Adds what another worker did at the same time.
    pub(crate) fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.publications += other.publications;
        add_counts(&mut self.refused, &other.refused);
        add_counts(&mut self.ended, &other.ended);
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.wrong += other.wrong;
        self.latency_us.add(&other.latency_us);
        self.open_us.add(&other.open_us);
        if self.rate.len() < other.rate.len() {
            self.rate.resize(other.rate.len(), 0);
        }
        for (sum, count) in self.rate.iter_mut().zip(&other.rate) {
            *sum += count;
        }
        self.longest_gap_us = self.longest_gap_us.max(other.longest_gap_us);
        self.stalled_received += other.stalled_received;
        add_counts(&mut self.stalled_ended, &other.stalled_ended);
        self.generator_cpu_us += other.generator_cpu_us;
        self.generator_busy = self.generator_busy.max(other.generator_busy);
        self.wall_us = self.wall_us.max(other.wall_us);
    }

    /// Whether something went wrong that should not.
    pub(crate) fn problems(&self) -> Vec<String> {
        let counts = [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("with a wrong content", self.wrong),
        ];
        let mut problems: Vec<String> = counts
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        problems.extend(self.refused.iter().map(|(uri, count)| format!("{count} times {uri}")));
        problems.extend(self.ended.iter().map(|(reason, count)| format!("{count} times: {reason}")));
        problems
    }
}

/// Adds counts by name.
pub(crate) fn add_counts(sum: &mut BTreeMap<String, u64>, other: &BTreeMap<String, u64>) {
    for (name, count) in other {
        *sum.entry(name.clone()).or_default() += count;
    }
}

/// A distribution of times in microseconds, to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        // Bounds and digits that the library accepts.
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        Self(histogram.unwrap_or_else(|error| unreachable!("{error}")))
    }
}

impl Latency {
    pub(crate) fn record_ns(&mut self, ns: u64) {
        self.0.saturating_record((ns / 1000).clamp(1, LATENCY_US_MAX));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that so many percent are within, in microseconds.
    pub(crate) fn percentile(&self, percent: f64) -> u64 {
        self.0.value_at_percentile(percent)
    }

    pub(crate) fn max(&self) -> u64 {
        self.0.max()
    }

    pub(crate) fn mean(&self) -> f64 {
        self.0.mean()
    }
}

impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&self.0, &mut bytes).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        let histogram = Deserializer::new().deserialize(&mut &bytes[..]).map_err(serde::de::Error::custom)?;
        Ok(Self(histogram))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up_over_processes() {
        let mut first = Tally { operations: 3, rate: vec![1, 2], ..Tally::default() };
        first.latency_us.record_ns(5_000_000);
        let mut second = Tally { operations: 4, rate: vec![1, 1, 2], lost: 1, ..Tally::default() };
        second.latency_us.record_ns(9_000_000);
        second.ended.insert("gone".to_owned(), 2);
        let text = serde_json::to_string(&second).unwrap();
        first.add(&serde_json::from_str(&text).unwrap());
        assert_eq!(first.operations, 7);
        assert_eq!(first.rate, [2, 3, 2]);
        assert_eq!(first.latency_us.count(), 2);
        assert!(first.latency_us.percentile(50.0).abs_diff(5000) < 10);
        assert!(first.latency_us.max().abs_diff(9000) < 10);
        assert_eq!(first.problems(), ["1 lost", "2 times: gone"]);
    }
}
