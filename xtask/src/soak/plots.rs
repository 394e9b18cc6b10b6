//! The report of a soak: one HTML file with everything in it.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::judge::Drift;
use super::samples::Samples;

const SIZE: (u32, u32) = (1100, 360);
/// Points of a line beyond which nobody sees a difference.
const MOST_POINTS: usize = 1500;
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    BLACK,
];

type Line = (String, Vec<(f64, f64)>);

/// Writes the report.
pub fn write(path: &Path, name: &str, samples: &Samples, drift: Option<&Drift>, problems: &[String]) -> Result<()> {
    let mut page = String::new();
    let verdict = if problems.is_empty() { "ok" } else { "FAILED" };
    write!(
        page,
        "<!doctype html><meta charset=\"utf-8\"><title>hakmem soak {name}</title>\
         <style>body{{font-family:sans-serif;max-width:1120px;margin:2em auto}}td{{padding-right:2em}}</style>\
         <h1>hakmem soak {name}: {verdict}</h1>"
    )?;
    for problem in problems {
        write!(page, "<p><b>{}</b></p>", escaped(problem))?;
    }
    if let Some(drift) = drift {
        write!(page, "<p>{}</p>", escaped(&drift.describe()))?;
    }
    let mib = |title: &str, columns: &[(&str, &str)]| plot(title, "MiB", &lines(samples, columns, 1.0 / 1_048_576.0));
    page += &mib(
        "Memory of the process, and what its blocks hold",
        &[("rss_bytes", "resident"), ("committed_bytes", "committed"), ("soak_live_bytes", "blocks in use")],
    )?;
    page += &floor(samples, drift)?;
    page += &mib(
        "What hakmem keeps",
        &[("cached_bytes", "cached"), ("free_dirty_bytes", "free and dirty"), ("metadata_bytes", "metadata")],
    )?;
    let plain = |title: &str, columns: &[(&str, &str)]| plot(title, "", &lines(samples, columns, 1.0));
    page += &plain(
        "Slabs and superslabs",
        &[
            ("orphan_slabs", "orphan slabs"),
            ("hot_superslabs", "hot superslabs"),
            ("draining_superslabs", "draining"),
            ("free_superslabs", "free"),
            ("extent_superslabs", "in big blocks"),
        ],
    )?;
    page += &plain("Heaps", &[("live_heaps", "threads with a heap")])?;
    page += "<h2>At the end</h2><table>";
    for column in samples.numbers() {
        if let Some(value) = samples.last(column) {
            write!(page, "<tr><td>{}</td><td>{value}</td></tr>", escaped(column))?;
        }
    }
    page += "</table>\n";
    std::fs::write(path, page)?;
    Ok(())
}

/// The floors of all cycles, and the line whose slope is judged.
fn floor(samples: &Samples, drift: Option<&Drift>) -> Result<String> {
    let scale =
        |series: Vec<(f64, f64)>| series.into_iter().map(|(time, bytes)| (time / 60.0, bytes / 1_048_576.0)).collect();
    let mut all: Vec<Line> = Vec::new();
    all.extend(
        samples
            .overhead(Some("floor"))
            .map(|series| ("resident beyond blocks, end of cycle".to_owned(), scale(series))),
    );
    if let Some(drift) = drift {
        let middle = drift.floors.get(drift.floors.len() / 2).map_or(0.0, |floor| floor.0);
        let fitted =
            drift.floors.iter().map(|&(time, _)| (time, drift.level + drift.slope * (time - middle))).collect();
        all.push(("slope that is judged".to_owned(), scale(fitted)));
    }
    plot("Resident memory beyond the blocks in use when only long-lived blocks are left", "MiB", &all)
}

/// The columns that exist, over minutes.
fn lines(samples: &Samples, columns: &[(&str, &str)], factor: f64) -> Vec<Line> {
    let line = |&(column, name): &(&str, &str)| {
        let series = samples.series(column, None)?;
        let step = series.len().div_ceil(MOST_POINTS).max(1);
        let points = series.into_iter().step_by(step).map(|(time, value)| (time / 60.0, value * factor)).collect();
        Some((name.to_owned(), points))
    };
    columns.iter().filter_map(line).collect()
}

fn plot(title: &str, unit: &str, lines: &[Line]) -> Result<String> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let (right, top) = points().fold((0.0_f64, 0.0_f64), |most, point| (most.0.max(point.0), most.1.max(point.1)));
    let mut svg = String::new();
    if right <= 0.0 {
        return Ok(svg);
    }
    let failed = |error: &dyn std::fmt::Display| anyhow!("plot {title}: {error}");
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..right, 0.0..top.max(1.0) * 1.05)
            .map_err(|error| failed(&error))?;
        chart.configure_mesh().x_desc("minutes").y_desc(unit).draw().map_err(|error| failed(&error))?;
        for ((name, points), colour) in lines.iter().zip(COLOURS) {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(1)))
                .map_err(|error| failed(&error))?
                .label(name.as_str())
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(3)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .draw()
            .map_err(|error| failed(&error))?;
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_has_a_plot_for_what_was_sampled_and_says_what_is_wrong() {
        let samples =
            Samples::parse("seconds,phase,mark,rss_bytes,soak_live_bytes\n1,mix,,9000000,40\n2,floor,floor,5000,10\n")
                .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.html");
        write(&path, "here", &samples, None, &["a < b".to_owned()]).unwrap();
        let page = std::fs::read_to_string(path).unwrap();
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("a &lt; b") && page.contains("FAILED") && page.contains("rss_bytes"));
    }
}
