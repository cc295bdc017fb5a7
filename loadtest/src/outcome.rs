//! What a run says in the end: figures by name, for people, as JSON, and in the HTML report.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::tally::Latency;

/// Above this share of a core the generator may have been what limited the rate.
const GENERATOR_BUSY_MAX: f64 = 0.9;

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What was done, in a line.
    pub(crate) title: String,
    pub(crate) figures: Vec<Figure>,
    /// What went wrong: a run that has some has failed.
    pub(crate) problems: Vec<String>,
    /// What to know of the figures.
    pub(crate) notes: Vec<String>,
    pub(crate) latencies: Vec<(String, Latency)>,
    pub(crate) series: Vec<Series>,
    /// The configuration of a router that was started.
    pub(crate) configuration: Option<String>,
}

/// A number with a name.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// As in the JSON: `router_cpu_us_per_call`.
    pub(crate) name: String,
    /// For people.
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

/// Something over something.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Series {
    pub(crate) title: String,
    pub(crate) x_label: String,
    pub(crate) y_label: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Outcome {
    pub(crate) fn new(title: String) -> Self {
        Self { title, ..Self::default() }
    }

    pub(crate) fn figure(&mut self, name: &str, label: &str, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.to_owned(), label: label.to_owned(), value, unit });
    }

    /// The percentiles of a latency as figures, and all of it for the report.
    pub(crate) fn latency(&mut self, name: &str, label: &str, latency: &Latency) {
        if latency.count() == 0 {
            return;
        }
        for (suffix, percent) in [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9)] {
            let value = latency.percentile(percent) as f64;
            self.figure(&format!("{name}_{suffix}_us"), &format!("{label}, {percent} % within"), value, "µs");
        }
        self.figure(&format!("{name}_max_us"), &format!("{label}, longest"), latency.max() as f64, "µs");
        self.figure(&format!("{name}_mean_us"), &format!("{label}, mean"), latency.mean(), "µs");
        self.latencies.push((label.to_owned(), latency.clone()));
    }

    /// How busy the generator was, and whether that matters.
    pub(crate) fn generator(&mut self, busy: f64) {
        self.figure("generator_busy", "generator, its busiest process", busy * 100.0, "% of a core");
        if busy > GENERATOR_BUSY_MAX {
            self.notes.push(
                "the generator was the limit: rates and latencies are lower (higher) than the router's own; CPU time per \
                 operation holds. --processes spreads it"
                    .to_owned(),
            );
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n", self.title);
        let width = self.figures.iter().map(|figure| figure.label.chars().count()).max().unwrap_or(0);
        for figure in &self.figures {
            let padding = " ".repeat(width - figure.label.chars().count());
            text.push_str(&format!(
                "  {}{padding}  {:>14} {}\n",
                figure.label,
                number(figure.value),
                figure.unit
            ));
        }
        for note in &self.notes {
            text.push_str(&format!("  note: {note}\n"));
        }
        for problem in &self.problems {
            text.push_str(&format!("  PROBLEM: {problem}\n"));
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let figures: Map<String, Value> =
            self.figures.iter().map(|figure| (figure.name.clone(), json!(figure.value))).collect();
        json!({
            "title": self.title,
            "figures": figures,
            "problems": self.problems,
            "notes": self.notes,
            "series": self.series,
            "configuration": self.configuration,
        })
    }
}

/// Digits in groups of three, and as many behind the point as mean something.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match rest {
        Some(rest) => format!("{sign}{grouped}.{rest}"),
        None => format!("{sign}{grouped}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1.00"),
            (12.34, "12.3"),
            (999.4, "999"),
            (1234567.8, "1,234,568"),
            (-1500.0, "-1,500"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn an_outcome_is_told_in_text_and_in_json() {
        let mut outcome = Outcome::new("rpc".to_owned());
        outcome.figure("router_cpu_us_per_call", "router CPU per call", 5.5, "µs");
        outcome.generator(0.95);
        outcome.problems.push("3 lost".to_owned());
        let text = outcome.text();
        for piece in ["router CPU per call", "5.50 µs", "the generator was the limit", "PROBLEM: 3 lost"] {
            assert!(text.contains(piece), "{text}");
        }
        assert_eq!(outcome.json()["figures"]["router_cpu_us_per_call"], 5.5);
    }
}
