//! Axes: from values to places in a drawing, with round numbers beside them.
//!
//! Plotters draws; its own axes have no logarithmic ticks between powers of ten, which is where ratios lie.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Stands for whatever colour the page's text has: a light page and a dark one show the same drawing.
const INK: RGBColor = RGBColor(1, 2, 3);
const FONT: &str = "sans-serif";

/// What is drawn on.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws into a string.
pub fn drawing(size: (u32, u32), draw: impl FnOnce(&Area) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&area)?;
        area.present().map_err(|error| anyhow!("a plot: {error}"))?;
    }
    Ok(svg.replace("#010203", "currentColor"))
}

/// The same as a file of its own, for viewers that know no page around it.
pub fn standalone(svg: &str) -> String {
    svg.replacen('>', "><rect width=\"100%\" height=\"100%\" fill=\"white\"/>", 1).replace("currentColor", "#222222")
}

/// Draws one element.
pub fn put<'a, E>(area: &Area<'a>, element: &E) -> Result<()>
where
    for<'b> &'b E: plotters::element::PointCollection<'b, (i32, i32)>,
    E: plotters::element::Drawable<SVGBackend<'a>>,
{
    area.draw(element).map_err(|error| anyhow!("a plot: {error}"))
}

/// Writes a line of text.
pub fn write(area: &Area, text: &str, place: (i32, i32), anchor: (HPos, VPos), strong: bool) -> Result<()> {
    let size = if strong { 13 } else { 12 };
    let style = (FONT, size).into_font().color(&INK).pos(Pos::new(anchor.0, anchor.1));
    put(area, &Text::new(text.to_owned(), place, style))
}

/// A straight line in the colour of text, thin and pale.
pub fn rule(area: &Area, from: (i32, i32), to: (i32, i32), strength: f64) -> Result<()> {
    put(area, &PathElement::new(vec![from, to], INK.mix(strength).stroke_width(1)))
}

/// One axis: values from `low` to `high` on the pixels from `start` to `end`.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    start: i32,
    end: i32,
    logarithmic: bool,
}

impl Axis {
    /// Equal ratios have equal lengths. `low` is above 0.
    pub fn logarithmic(low: f64, high: f64, start: i32, end: i32) -> Self {
        let high = if high > low { high } else { low * 2.0 };
        Self { low: low.ln(), high: high.ln(), start, end, logarithmic: true }
    }

    /// Equal differences have equal lengths.
    pub fn linear(low: f64, high: f64, start: i32, end: i32) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { low, high, start, end, logarithmic: false }
    }

    /// The place of a value; one that lies beyond an end is put there.
    pub fn place(&self, value: f64) -> i32 {
        let value = if self.logarithmic { value.ln() } else { value };
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.start + (share * f64::from(self.end - self.start)).round() as i32
    }

    /// Whether a value lies within.
    pub fn holds(&self, value: f64) -> bool {
        let value = if self.logarithmic { value.ln() } else { value };
        (self.low..=self.high).contains(&value)
    }

    /// Round values within, at most about eight of them.
    pub fn ticks(&self) -> Vec<f64> {
        if !self.logarithmic {
            let step = round_step((self.high - self.low) / 6.0);
            let first = (self.low / step).ceil() as i64;
            let last = (self.high / step).floor() as i64;
            return (first..=last).map(|number| number as f64 * step).collect();
        }
        let decades = (self.high - self.low) / std::f64::consts::LN_10;
        let marks: &[f64] = if decades > 3.0 {
            &[1.0]
        } else if decades > 1.4 {
            &[1.0, 2.0, 5.0]
        } else if decades > 0.5 {
            &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0]
        } else {
            &[1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
        };
        let exponents =
            (self.low / std::f64::consts::LN_10).floor() as i32..=(self.high / std::f64::consts::LN_10).ceil() as i32;
        let all = exponents.flat_map(|exponent| marks.iter().map(move |mark| mark * 10_f64.powi(exponent)));
        all.filter(|&value| self.holds(value)).collect()
    }
}

/// 1, 2 or 5 times a power of ten, at least this.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= least * 0.999).unwrap_or(least)
}

/// A plain number without a long tail.
pub fn tick_text(value: f64) -> String {
    let text = if value.abs() >= 10.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Grid, numbers and names of a drawing with two axes. Across, the marks are at these values.
pub fn grid(area: &Area, x: &Axis, y: &Axis, names: (&str, &str), across: &[(f64, String)]) -> Result<()> {
    for (value, text) in across {
        let place = x.place(*value);
        rule(area, (place, y.start), (place, y.end), strength(*value))?;
        write(area, text, (place, y.start + 6), (HPos::Center, VPos::Top), false)?;
    }
    for value in y.ticks() {
        let place = y.place(value);
        rule(area, (x.start, place), (x.end, place), strength(value))?;
        write(area, &tick_text(value), (x.start - 6, place), (HPos::Right, VPos::Center), false)?;
    }
    let middle = (x.start + x.end) / 2;
    write(area, names.0, (middle, y.start + 24), (HPos::Center, VPos::Top), false)?;
    write(area, names.1, (x.start - 6, y.end - 14), (HPos::Left, VPos::Bottom), false)
}

/// Of a grid line: where two things are alike, it is easily seen.
pub fn strength(value: f64) -> f64 {
    if (value - 1.0).abs() < 1e-9 { 0.5 } else { 0.12 }
}

/// Heights near these that leave room for a line of text each, in the order of the heights and not below `lowest`.
pub fn apart(wanted: &[i32], lowest: i32) -> Vec<i32> {
    const LINE: i32 = 14;
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&place| wanted.get(place).copied());
    let mut given = wanted.to_vec();
    let mut last = i32::MIN / 2;
    for &place in &order {
        if let Some(height) = given.get_mut(place) {
            *height = (*height).max(last + LINE);
            last = *height;
        }
    }
    let mut next = lowest + LINE;
    for &place in order.iter().rev() {
        if let Some(height) = given.get_mut(place) {
            *height = (*height).min(next - LINE);
            next = *height;
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ratios_have_equal_lengths_on_a_logarithmic_axis() {
        let axis = Axis::logarithmic(0.5, 2.0, 0, 200);
        assert_eq!((axis.place(0.5), axis.place(1.0), axis.place(2.0)), (0, 100, 200));
        assert_eq!(axis.place(100.0), 200, "what lies beyond is put at the end");
        assert!(!axis.holds(100.0));
    }

    #[test]
    fn names_that_would_cover_each_other_move_apart_and_keep_their_order() {
        assert_eq!(apart(&[100, 20, 101, 40], 400), [100, 20, 114, 40]);
        assert_eq!(apart(&[100, 99, 20], 100), [100, 86, 20]);
        assert_eq!(apart(&[], 400), Vec::<i32>::new());
    }

    #[test]
    fn ticks_are_round_within_and_few() {
        for (low, high) in [(0.4, 6.0), (0.9, 1.2), (1e6, 1e10), (1.0, 16.0), (0.5, 40.0)] {
            let axis = Axis::logarithmic(low, high, 0, 500);
            let ticks = axis.ticks();
            assert!((2..=11).contains(&ticks.len()), "{low} to {high}: {ticks:?}");
            assert!(ticks.iter().all(|&tick| axis.holds(tick)));
        }
        assert_eq!(Axis::linear(0.0, 3.0, 0, 10).ticks(), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
        assert_eq!([0.5, 1.0, 1.25, 20.0].map(tick_text), ["0.5", "1", "1.25", "20"]);
    }
}
