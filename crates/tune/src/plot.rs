//! Plots as SVG: the search run by run, and memory over time.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

/// A line with its name: seconds and bytes.
pub type Curve = (String, Vec<(f64, f64)>);

/// A run of a search: is it one of the defaults, one of the result, and what it cost.
#[derive(Clone, Copy, Debug)]
pub struct Dot {
    /// Which policy ran.
    pub kind: Kind,
    /// Its cost.
    pub cost: f64,
}

/// Which policy ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The defaults.
    Defaults,
    /// What the search came to.
    Result,
    /// Anything else.
    Other,
}

const WIDTH: u32 = 1000;
const HEIGHT: u32 = 380;
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(23, 190, 207),
    RGBColor(140, 86, 75),
    BLACK,
];
const MIB: f64 = 1_048_576.0;
/// Costs beyond this are drawn at the edge: how bad a bad policy is matters less than how good ones differ.
const HIGHEST_COST: f64 = 1.5;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The search, and below it memory over time.
pub fn search(path: &Path, title: &str, dots: &[Dot], curves: &[Curve]) -> Result<()> {
    draw(path, 2 * HEIGHT, &|area| {
        let (upper, lower) = area.split_vertically(HEIGHT);
        draw_dots(&upper, title, dots)?;
        draw_curves(&lower, "memory over time", curves)
    })
}

/// The search alone.
pub fn dots(path: &Path, title: &str, dots: &[Dot]) -> Result<()> {
    draw(path, HEIGHT, &|area| draw_dots(area, title, dots))
}

/// Memory over time.
pub fn memory(path: &Path, title: &str, curves: &[Curve]) -> Result<()> {
    draw(path, HEIGHT, &|area| draw_curves(area, title, curves))
}

fn draw(path: &Path, height: u32, content: &dyn Fn(&Area<'_>) -> Result<()>) -> Result<()> {
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    content(&area)?;
    area.present().map_err(|error| anyhow!("{} cannot be written: {error}", path.display()))
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("plot: {error}")
}

fn draw_dots(area: &Area<'_>, title: &str, dots: &[Dot]) -> Result<()> {
    let costs = || dots.iter().map(|dot| dot.cost.min(HIGHEST_COST));
    let (low, high) = costs().fold((0.95_f64, 1.05_f64), |(low, high), cost| (low.min(cost), high.max(cost)));
    let mut chart = ChartBuilder::on(area)
        .caption(shortened(title), ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..dots.len().max(1) as f64, low - 0.02..high + 0.02)
        .map_err(failed)?;
    chart.configure_mesh().x_desc("run").y_desc("cost, defaults are 1").draw().map_err(failed)?;
    let kinds = [
        (Kind::Other, "tried", RGBColor(170, 170, 170)),
        (Kind::Defaults, "defaults", RGBColor(31, 119, 180)),
        (Kind::Result, "result", RGBColor(214, 39, 40)),
    ];
    for (kind, name, colour) in kinds {
        let chosen = dots.iter().enumerate().filter(|(_, dot)| dot.kind == kind);
        let circles =
            chosen.map(|(run, dot)| Circle::new((run as f64, dot.cost.min(HIGHEST_COST)), 3, colour.filled()));
        let series = chart.draw_series(circles).map_err(failed)?;
        series.label(name).legend(move |(x, y)| Circle::new((x + 9, y), 4, colour.filled()));
    }
    let labels = &mut chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.8)).draw().map_err(failed)
}

fn draw_curves(area: &Area<'_>, title: &str, curves: &[Curve]) -> Result<()> {
    let points = || curves.iter().flat_map(|(_, points)| points);
    let (right, top) = points().fold((0.0_f64, 0.0_f64), |most, point| (most.0.max(point.0), most.1.max(point.1)));
    let mut chart = ChartBuilder::on(area)
        .caption(shortened(title), ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..right.max(1e-3), 0.0..(top / MIB).max(1.0) * 1.05)
        .map_err(failed)?;
    chart.configure_mesh().x_desc("seconds").y_desc("MiB resident").draw().map_err(failed)?;
    for ((name, points), colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let line = points.iter().map(|(time, bytes)| (*time, bytes / MIB));
        let series = chart.draw_series(LineSeries::new(line, colour.stroke_width(1))).map_err(failed)?;
        series
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    let labels = &mut chart.configure_series_labels();
    labels.position(SeriesLabelPosition::LowerRight).background_style(WHITE.mix(0.8)).draw().map_err(failed)
}

fn shortened(title: &str) -> String {
    const LONGEST: usize = 90;
    if title.chars().count() <= LONGEST {
        title.to_owned()
    } else {
        title.chars().take(LONGEST).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_dot_for_each_run_and_a_line_for_each_curve() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plot.svg");
        let dots = [
            Dot { kind: Kind::Defaults, cost: 1.0 },
            Dot { kind: Kind::Result, cost: 0.9 },
            Dot { kind: Kind::Other, cost: 70.0 },
        ];
        let curves =
            [("one".to_owned(), vec![(0.0, 1e6), (1.0, 5e6)]), ("two".to_owned(), vec![(0.0, 2e6), (1.5, 1e6)])];
        search(&path, "a & b", &dots, &curves).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.matches("<circle").count() >= 3 && text.contains("a &amp; b"), "{text}");
        memory(&path, &"long ".repeat(100), &[]).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains('…'));
    }
}
