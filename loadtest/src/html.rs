//! The report: one HTML file with its plots in it.

use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

use crate::outcome::{Outcome, Series, number};
use crate::tally::Latency;

/// The size of a plot, in pixels.
const SIZE: (u32, u32) = (760, 340);

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:800px;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse}td{padding:.15em .8em;border-bottom:1px solid #ddd}td.n{text-align:right;\
    font-variant-numeric:tabular-nums}.bad{color:#a00;font-weight:600}pre{background:#f6f6f6;padding:1em;overflow:auto;\
    font-size:12px}svg{max-width:100%;height:auto}";

/// The whole file.
pub(crate) fn report(outcome: &Outcome) -> Result<String, String> {
    let mut body = format!("<h1>{}</h1>\n<table>\n", escaped(&outcome.title));
    for figure in &outcome.figures {
        body.push_str(&format!(
            "<tr><td>{}</td><td class=n>{}</td><td>{}</td></tr>\n",
            escaped(&figure.label),
            number(figure.value),
            escaped(figure.unit)
        ));
    }
    body.push_str("</table>\n");
    for problem in &outcome.problems {
        body.push_str(&format!("<p class=bad>{}</p>\n", escaped(problem)));
    }
    for note in &outcome.notes {
        body.push_str(&format!("<p>{}</p>\n", escaped(note)));
    }
    if !outcome.latencies.is_empty() {
        body.push_str("<h2>Latency by percentile</h2>\n");
        body.push_str(&percentiles(&outcome.latencies)?);
    }
    for series in outcome.series.iter().filter(|series| series.points.len() > 1) {
        body.push_str(&format!("<h2>{}</h2>\n{}", escaped(&series.title), line(series)?));
    }
    if let Some(configuration) = &outcome.configuration {
        body.push_str(&format!(
            "<details><summary>The configuration of the router</summary><pre>{}</pre></details>\n",
            escaped(configuration)
        ));
    }
    Ok(format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>{}</title><style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n",
        escaped(&outcome.title)
    ))
}

/// Latency over the percentile; both in powers, because the tail is what matters.
fn percentiles(latencies: &[(String, Latency)]) -> Result<String, String> {
    let longest = latencies.iter().map(|(_, latency)| latency.max()).max().unwrap_or(1).max(10);
    let shortest = latencies.iter().map(|(_, latency)| latency.percentile(0.0)).min().unwrap_or(1).max(1);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .margin_right(30)
            .x_label_area_size(36)
            .y_label_area_size(72)
            .build_cartesian_2d(
                (1.0..10_000.0_f64).log_scale(),
                (shortest as f64..longest as f64 * 1.1).log_scale(),
            )
            .map_err(|error| error.to_string())?;
        chart
            .configure_mesh()
            .x_desc("percent of the operations that took no longer")
            .y_desc("µs")
            .x_label_formatter(&|one_in| format!("{} %", percent(*one_in)))
            .y_label_formatter(&|us| number(*us))
            .draw()
            .map_err(|error| error.to_string())?;
        for (place, (label, latency)) in latencies.iter().enumerate() {
            let color = Palette99::pick(place).to_rgba();
            let points = (0..=200).map(|step| {
                // All but one in so many.
                let one_in = 10_f64.powf(f64::from(step) / 50.0);
                (one_in, latency.percentile(percent(one_in)).max(1) as f64)
            });
            chart
                .draw_series(LineSeries::new(points, color.stroke_width(2)))
                .map_err(|error| error.to_string())?
                .label(label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .draw()
            .map_err(|error| error.to_string())?;
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

/// 1 is 0 %, 10 is 90 %, 100 is 99 %.
fn percent(one_in: f64) -> f64 {
    let percent = 100.0 - 100.0 / one_in;
    (percent * 1000.0).round() / 1000.0
}

fn line(series: &Series) -> Result<String, String> {
    let x_max = series.points.iter().map(|point| point.0).fold(0.0, f64::max);
    let y_max = series.points.iter().map(|point| point.1).fold(0.0, f64::max);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .margin_right(30)
            .x_label_area_size(36)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..x_max.max(1e-9), 0.0..(y_max * 1.05).max(1e-9))
            .map_err(|error| error.to_string())?;
        chart
            .configure_mesh()
            .max_light_lines(0)
            .x_desc(series.x_label.as_str())
            .y_desc(series.y_label.as_str())
            .x_label_formatter(&|value| number(*value))
            .y_label_formatter(&|value| number(*value))
            .draw()
            .map_err(|error| error.to_string())?;
        chart
            .draw_series(LineSeries::new(series.points.iter().copied(), BLUE.stroke_width(2)))
            .map_err(|error| error.to_string())?;
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_its_plots_in_it_and_needs_nothing_else() {
        let mut outcome = Outcome::new("calls <1>".to_owned());
        outcome.figure("a", "router CPU", 5.0, "µs");
        let mut latency = Latency::default();
        (1..1000_u64).for_each(|us| latency.record_ns(us * 1000));
        outcome.latency("latency", "latency", &latency);
        outcome.series.push(Series {
            title: "rate".to_owned(),
            x_label: "seconds".to_owned(),
            y_label: "calls".to_owned(),
            points: vec![(0.0, 1.0), (1.0, 2.0)],
        });
        let html = report(&outcome).unwrap();
        assert_eq!(html.matches("<svg").count(), 2);
        assert!(html.contains("calls &lt;1&gt;"));
        for foreign in ["src=", "href=", "<link", "<script"] {
            assert!(!html.contains(foreign), "{foreign}");
        }
    }
}
