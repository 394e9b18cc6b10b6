//! The drawings of a report.
//!
//! **Invariants.** An allocator has the same colour in every drawing. What lies beyond an axis is drawn at its end, never left out.

mod frame;

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::summary::{Cell, Line, Measure, Table};
use frame::{Area, Axis, apart, drawing, grid, put, rule, strength, tick_text, write};

/// A drawing.
pub struct Plot {
    /// Of its file, without ending.
    pub name: String,
    /// What it shows.
    pub title: String,
    pub svg: String,
}

impl Plot {
    /// Writes it beside the report.
    pub fn save(&self, directory: &Path) -> Result<()> {
        Ok(std::fs::write(directory.join(format!("{}.svg", self.name)), frame::standalone(&self.svg))?)
    }
}

const COLOURS: [(&str, RGBColor); 11] = [
    ("hakmem", RGBColor(222, 45, 38)),
    ("mimalloc2", RGBColor(49, 116, 192)),
    ("mimalloc", RGBColor(86, 180, 233)),
    ("mimalloc3", RGBColor(86, 180, 233)),
    ("jemalloc", RGBColor(150, 100, 200)),
    ("snmalloc", RGBColor(0, 158, 115)),
    ("rpmalloc", RGBColor(230, 159, 0)),
    ("tcmalloc", RGBColor(150, 110, 80)),
    ("rusty", RGBColor(204, 121, 167)),
    ("system", RGBColor(130, 130, 130)),
    ("glibc", RGBColor(130, 130, 130)),
];
const OTHERS: [RGBColor; 6] = [
    RGBColor(120, 170, 50),
    RGBColor(70, 130, 140),
    RGBColor(200, 90, 40),
    RGBColor(90, 90, 190),
    RGBColor(190, 60, 130),
    RGBColor(160, 140, 30),
];

/// The colour of an allocator; `place` decides for those without one of their own.
pub fn colour(name: &str, place: usize) -> RGBColor {
    let own = COLOURS.iter().find(|(known, _)| *known == name).map(|(_, colour)| *colour);
    own.or_else(|| OTHERS.get(place % OTHERS.len()).copied()).unwrap_or(BLACK)
}

/// As CSS has it.
pub fn css(colour: RGBColor) -> String {
    format!("rgb({},{},{})", colour.0, colour.1, colour.2)
}

fn file_name(parts: &[&str]) -> String {
    let plain = |mark: char| if mark.is_ascii_alphanumeric() { mark.to_ascii_lowercase() } else { '-' };
    parts.join("-").chars().map(plain).collect()
}

/// Time against memory, one point for each allocator: geometric means in relation to one of them. Left and low is good.
pub fn scatter(table: &Table) -> Result<Option<Plot>> {
    let base = table.base();
    let mean = |allocator, measure| table.mean(None, allocator, base, measure);
    let points: Vec<(&str, usize, f64, f64)> = table
        .allocators
        .iter()
        .enumerate()
        .filter_map(|(place, allocator)| {
            Some((allocator.name.as_str(), place, mean(place, Measure::Time)?, mean(place, Measure::PeakRss)?))
        })
        .collect();
    if points.len() < 2 {
        return Ok(None);
    }
    let range = |value: fn(&(&str, usize, f64, f64)) -> f64| {
        let low = points.iter().map(value).fold(f64::INFINITY, f64::min);
        let high = points.iter().map(value).fold(0.0, f64::max);
        (low / 1.15, high * 1.15)
    };
    let (times, peaks) = (range(|point| point.2), range(|point| point.3));
    let base_name = table.allocators.get(base).map_or("", |allocator| allocator.name.as_str());
    let svg = drawing((820, 460), |area| {
        let x = Axis::logarithmic(times.0, times.1, 50, 780);
        let y = Axis::logarithmic(peaks.0, peaks.1, 410, 30);
        let marks: Vec<(f64, String)> = x.ticks().into_iter().map(|value| (value, tick_text(value))).collect();
        grid(area, &x, &y, (&format!("time / {base_name}"), &format!("peak RSS / {base_name}")), &marks)?;
        let heights = apart(&points.iter().map(|point| y.place(point.3)).collect::<Vec<_>>(), 405);
        for ((name, place, time, peak), height) in points.iter().zip(heights) {
            let at = (x.place(*time), y.place(*peak));
            let is_subject = *place == 0;
            put(area, &Circle::new(at, if is_subject { 7 } else { 5 }, colour(name, *place).filled()))?;
            write(area, name, (at.0 + 10, height), (HPos::Left, VPos::Center), is_subject)?;
        }
        Ok(())
    })?;
    let suite = table.suite.name();
    Ok(Some(Plot {
        name: file_name(&[suite, "time-memory"]),
        title: format!("{suite} suite: time against memory, geometric means; left and low is good"),
        svg,
    }))
}

/// Left and right end of the drawings of ratios; what lies beyond stands at the edge.
const LANES: (f64, f64) = (0.3, 8.0);

/// Every benchmark of a group as a lane: each allocator's median in relation to the best peer's, with the middle half of its runs.
pub fn lanes(table: &Table, group: &str, measure: Measure) -> Result<Plot> {
    let lines: Vec<&Line> = table.lines_of(Some(group)).collect();
    let step = 3;
    let lane = step * i32::try_from(table.allocators.len())? + 9;
    let bottom = 12 + lane * i32::try_from(lines.len())?;
    let svg = drawing((820, u32::try_from(bottom + 46)?), |area| {
        let x = Axis::logarithmic(LANES.0, LANES.1, 200, 800);
        for value in x.ticks() {
            let place = x.place(value);
            rule(area, (place, 8), (place, bottom), strength(value))?;
            write(area, &tick_text(value), (place, bottom + 6), (HPos::Center, VPos::Top), false)?;
        }
        write(area, &format!("{} / best peer", measure.name()), (500, bottom + 24), (HPos::Center, VPos::Top), false)?;
        for (number, line) in lines.iter().enumerate() {
            let top = 12 + lane * i32::try_from(number)?;
            rule(area, (10, top - 4), (800, top - 4), 0.12)?;
            let middle = top + lane / 2 - 4;
            write(area, &line.row.name, (190, middle), (HPos::Right, VPos::Center), false)?;
            draw_lane(area, &x, table, line, measure, (top + 1, step))?;
        }
        Ok(())
    })?;
    let suite = table.suite.name();
    Ok(Plot {
        name: file_name(&[suite, group, measure.name()]),
        title: format!("{group}: {} in relation to the best peer, with the middle half of the runs", measure.name()),
        svg,
    })
}

fn draw_lane(area: &Area, x: &Axis, table: &Table, line: &Line, measure: Measure, rows: (i32, i32)) -> Result<()> {
    let Some((_, best)) = line.best_peer(measure) else { return Ok(()) };
    let (top, step) = rows;
    // The subject last, so that nothing covers it.
    for (place, allocator) in table.allocators.iter().enumerate().rev() {
        let Some(cell) = line.cells.get(place).and_then(Option::as_ref) else { continue };
        let spread = cell.spread(measure);
        let colour = colour(&allocator.name, place);
        let height = top + step * i32::try_from(place)?;
        let ends = [spread.low, spread.high].map(|value| (x.place(value / best), height));
        put(area, &PathElement::new(ends.to_vec(), colour.stroke_width(2)))?;
        let ratio = spread.median / best;
        let at = (x.place(ratio), height);
        let size = if place == 0 { 5 } else { 3 };
        if x.holds(ratio) {
            put(area, &Circle::new(at, size, colour.filled()))?;
        } else {
            put(area, &Cross::new(at, size, colour.stroke_width(2)))?;
        }
    }
    Ok(())
}

/// The plots of one line of the scaling suite: cost per operation, and what suits its parameter besides.
pub fn series(table: &Table, name: &str, parameter: &str) -> Result<Vec<Plot>> {
    // Other benchmarks count threads that have ended.
    let is_threads = parameter == "threads" && name.ends_with("-threads");
    let cost = curves(table, (name, parameter), "ns per operation", "cost", |cell, _, _| cell.time.median)?;
    let second = if is_threads {
        // Of one thread's speed, for each thread that has a processor.
        let processors = table.processors.max(1) as f64;
        curves(table, (name, parameter), "efficiency", "efficiency", move |cell, threads, first| {
            first / (cell.time.median * threads.min(processors))
        })?
    } else {
        curves(table, (name, parameter), "peak RSS, MiB", "peak-rss", |cell, _, _| cell.peak_rss_kib.median / 1024.0)?
    };
    Ok([cost, second].into_iter().flatten().collect())
}

/// One curve for each allocator. `value` is given the cell, the parameter and the time of the curve's first point.
fn curves(
    table: &Table,
    (name, parameter): (&str, &str),
    unit: &str,
    kind: &str,
    value: impl Fn(&Cell, f64, f64) -> f64,
) -> Result<Option<Plot>> {
    let lines: Vec<Vec<(f64, f64)>> = (0..table.allocators.len())
        .map(|allocator| {
            let first = table.points(name, allocator, |cell, _| cell.time.median).first().map_or(1.0, |point| point.1);
            table.points(name, allocator, |cell, at| value(cell, at, first))
        })
        .collect();
    let all = || lines.iter().flatten().filter(|point| point.0 > 0.0 && point.1 > 0.0);
    let bounds = |which: fn(&(f64, f64)) -> f64| {
        all().map(which).fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (across, up) = (bounds(|point| point.0), bounds(|point| point.1));
    if all().count() < 2 {
        return Ok(None);
    }
    let svg = drawing((820, 420), |area| {
        let x = Axis::logarithmic(across.0, across.1, 60, 690);
        let y = if kind == "efficiency" {
            Axis::linear(0.0, up.1.max(1.0) * 1.05, 370, 30)
        } else {
            Axis::logarithmic(up.0 / 1.2, up.1 * 1.2, 370, 30)
        };
        let text = |value: f64| if parameter.ends_with("bytes") { size_text(value) } else { tick_text(value) };
        let mut values: Vec<f64> = all().map(|point| point.0).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let marks: Vec<(f64, String)> = values.into_iter().map(|value| (value, text(value))).collect();
        grid(area, &x, &y, (parameter, unit), &marks)?;
        let ends: Vec<i32> = lines.iter().map(|points| points.last().map_or(0, |point| y.place(point.1))).collect();
        let drawn = table.allocators.iter().zip(&lines).zip(apart(&ends, 370)).enumerate();
        for (place, ((allocator, points), height)) in drawn.filter(|(_, ((_, points), _))| !points.is_empty()) {
            let colour = colour(&allocator.name, place);
            let at: Vec<(i32, i32)> = points.iter().map(|point| (x.place(point.0), y.place(point.1))).collect();
            let (width, dot) = if place == 0 { (3, 4) } else { (1, 2) };
            for &point in &at {
                put(area, &Circle::new(point, dot, colour.filled()))?;
            }
            put(area, &PathElement::new(at, colour.stroke_width(width)))?;
            put(area, &Circle::new((702, height), 4, colour.filled()))?;
            write(area, &allocator.name, (711, height), (HPos::Left, VPos::Center), place == 0)?;
        }
        Ok(())
    })?;
    let title = format!("{name}: {unit} over {parameter}");
    Ok(Some(Plot { name: file_name(&["scaling", name, kind]), title, svg }))
}

fn size_text(bytes: f64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = units.into_iter().find(|(_, shift)| bytes >= f64::from(1_u32 << shift));
    fits.map_or_else(
        || format!("{bytes:.0} B"),
        |(unit, shift)| format!("{:.0} {unit}", bytes / f64::from(1_u32 << shift)),
    )
}

/// The settings of one switch beside the default: ratio of time and of peak RSS, with the benchmarks as small dots.
pub fn switch(table: &Table, name: &str, settings: &[usize]) -> Result<Plot> {
    let height = 24;
    let bottom = 20 + height * i32::try_from(settings.len())?;
    let svg = drawing((820, u32::try_from(bottom + 44)?), |area| {
        let halves = [(Measure::Time, 250, 510), (Measure::PeakRss, 545, 805)];
        for (measure, start, end) in halves {
            let x = Axis::logarithmic(0.5, 2.0, start, end);
            for value in [0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0] {
                let place = x.place(value);
                rule(area, (place, 12), (place, bottom), strength(value))?;
                write(area, &tick_text(value), (place, bottom + 4), (HPos::Center, VPos::Top), false)?;
            }
            let name = format!("{} / default", measure.name());
            write(area, &name, ((start + end) / 2, bottom + 22), (HPos::Center, VPos::Top), false)?;
            for (number, &setting) in settings.iter().enumerate() {
                let level = 24 + height * i32::try_from(number)?;
                for ratio in table.lines.iter().filter_map(|line| line.ratio(setting, 0, measure)) {
                    put(area, &Circle::new((x.place(ratio), level), 2, RGBColor(49, 116, 192).mix(0.5).filled()))?;
                }
                if let Some(mean) = table.mean(None, setting, 0, measure) {
                    put(area, &Circle::new((x.place(mean), level), 5, RGBColor(222, 45, 38).filled()))?;
                }
            }
        }
        for (number, &setting) in settings.iter().enumerate() {
            let level = 24 + height * i32::try_from(number)?;
            let text = table.allocators.get(setting).map_or("", |allocator| allocator.name.as_str());
            write(area, text, (238, level), (HPos::Right, VPos::Center), false)?;
        }
        Ok(())
    })?;
    Ok(Plot { name: file_name(&[table.suite.name(), name]), title: name.to_owned(), svg })
}

#[cfg(test)]
mod tests {
    use super::super::results::Suite;
    use super::super::summary::tests::results;
    use super::*;

    #[test]
    fn allocators_are_where_their_means_are_and_have_their_names() {
        let table = Table::of(&results(), Suite::Rust).unwrap();
        let plot = scatter(&table).unwrap().unwrap();
        assert!(table.allocators.iter().all(|allocator| plot.svg.contains(&allocator.name)));
        assert!(plot.svg.contains("currentColor") && !plot.svg.contains("#010203"));
        assert_eq!(plot.name, "rust-time-memory");
    }

    #[test]
    fn a_lane_has_a_dot_for_each_allocator_and_a_cross_beyond_the_edge() {
        let mut results = results();
        let table = Table::of(&results, Suite::Rust).unwrap();
        let plot = lanes(&table, "tiny", Measure::Time).unwrap();
        assert!(plot.svg.contains("pair64") && !plot.svg.contains("spawn"));
        assert_eq!(plot.svg.matches("<circle").count(), 3);
        results.runs.iter_mut().filter(|run| run.allocator == "system").for_each(|run| run.time *= 1000.0);
        let beyond = lanes(&Table::of(&results, Suite::Rust).unwrap(), "tiny", Measure::Time).unwrap();
        assert_eq!(beyond.svg.matches("<circle").count(), 2);
    }

    #[test]
    fn colours_stay_with_names() {
        assert_eq!(colour("hakmem", 0), colour("hakmem", 5));
        assert_ne!(colour("hakmem", 0), colour("mimalloc2", 0));
        assert_eq!(size_text(8.0 * 1024.0 * 1024.0 * 1024.0), "8 GiB");
    }

    #[test]
    fn a_file_of_its_own_is_dark_on_white() {
        let file = frame::standalone("<svg a><text fill=\"currentColor\"/></svg>");
        assert!(file.contains("fill=\"white\"") && !file.contains("currentColor"), "{file}");
    }
}
