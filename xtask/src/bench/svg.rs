//! Drawing plots as SVG: axes, lines with their names beside them, and marks.
//!
//! Colours are CSS classes, so that the page chooses them for light, dark and paper.

use std::fmt::Write;

use super::table::grouped;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 84.0;
/// Where the lines' names stand.
const RIGHT: f64 = 316.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 58.0;

/// The least distance of two lines of text.
const LINE_HEIGHT: f64 = 19.0;

/// A figure with two axes.
pub(super) struct Figure {
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
    pub(super) marks: Vec<Mark>,
    pub(super) notes: Vec<Note>,
}

/// A line, and the measurements that it goes through.
pub(super) struct Line {
    pub(super) label: String,
    /// The class that gives it a colour.
    pub(super) class: &'static str,
    /// Whether it is Cowslip's; others' lines are dashed and have hollow dots.
    pub(super) is_own: bool,
    pub(super) dots: Vec<(f64, f64)>,
    pub(super) path: Vec<(f64, f64)>,
}

/// A point that is to be seen.
pub(super) struct Mark {
    pub(super) at: (f64, f64),
    pub(super) kind: MarkKind,
    pub(super) label: String,
}

/// What is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkKind {
    /// A goal, and whether it is met.
    Goal(bool),
    /// Two lines cross.
    Crossing,
}

/// Words in the middle of a figure.
pub(super) struct Note {
    pub(super) at: (f64, f64),
    pub(super) text: &'static str,
}

/// An axis: its scale, its ends, and where it has ticks.
pub(super) struct Axis {
    title: String,
    is_logarithmic: bool,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Sizes: powers of four, and 0 if it is one of them.
    pub(super) fn sizes(title: &str, values: impl Iterator<Item = f64> + Clone) -> Axis {
        let low = values.clone().fold(1.0, f64::min);
        let high = values.fold(4.0, f64::max);
        let powers = (0..).map(|power| 4f64.powi(power));
        let mut ticks: Vec<_> = powers
            .take_while(|&size| size <= high)
            .map(|size| (size, grouped(size)))
            .collect();
        if low < 1.0 {
            ticks.push((0.0, "0".into()));
        }
        Axis {
            title: title.into(),
            is_logarithmic: true,
            low: low.max(SMALLEST),
            high,
            ticks,
        }
    }

    /// Costs: ticks at 1, 2 and 5 of each decade, or at 1 alone if there are many.
    pub(super) fn costs(title: &str, values: impl Iterator<Item = f64> + Clone) -> Axis {
        let least = values.clone().fold(f64::INFINITY, f64::min).max(0.001);
        let most = values.fold(least * 2.0, f64::max);
        let decades = (-3..12).map(|power| 10f64.powi(power));
        let places: Vec<_> = decades
            .flat_map(|decade| [1.0, 2.0, 5.0].map(|step| decade * step))
            .collect();
        let low = places.iter().rev().find(|&&place| place <= least);
        let high = places.iter().find(|&&place| place >= most);
        let (low, high) = (low.copied().unwrap_or(1.0), high.copied().unwrap_or(most));
        let every = if high / low > 2000.0 { 3 } else { 1 };
        let ticks = places.into_iter().step_by(every);
        Axis {
            title: title.into(),
            is_logarithmic: true,
            low,
            high,
            ticks: ticks
                .filter(|tick| (low..=high).contains(tick))
                .map(|tick| (tick, label(tick)))
                .collect(),
        }
    }

    /// Evenly from 0, with ticks at every step.
    pub(super) fn even(title: &str, most: f64, step: f64, unit: &str) -> Axis {
        let steps = (most / step).ceil();
        let tick = |nth: u32| {
            let value = f64::from(nth) * step;
            (value, format!("{}{unit}", grouped(value)))
        };
        Axis {
            title: title.into(),
            is_logarithmic: false,
            low: 0.0,
            high: steps * step,
            ticks: (0..=steps as u32).map(tick).collect(),
        }
    }

    /// Where a value is, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| {
            if self.is_logarithmic {
                value.max(self.low).log2()
            } else {
                value
            }
        };
        (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
    }
}

/// A tick's value, with the decimals that it has.
fn label(tick: f64) -> String {
    if tick < 1.0 {
        tick.to_string()
    } else {
        grouped(tick)
    }
}

/// Where 0 is on a logarithmic axis.
const SMALLEST: f64 = 0.25;

impl Figure {
    /// The figure as SVG.
    pub(super) fn svg(&self) -> String {
        let mut svg = open(HEIGHT);
        self.draw_axes(&mut svg);
        for note in &self.notes {
            let (x, y) = self.pixel(note.at);
            text(&mut svg, x, y, "note middle", note.text);
        }
        for line in &self.lines {
            self.draw_line(&mut svg, line);
        }
        self.draw_labels(&mut svg);
        for mark in &self.marks {
            self.draw_mark(&mut svg, mark);
        }
        svg + "</svg>\n"
    }

    fn pixel(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let width = WIDTH - LEFT - RIGHT;
        let height = HEIGHT - TOP - BOTTOM;
        (
            LEFT + width * self.x.place(x),
            TOP + height * (1.0 - self.y.place(y)),
        )
    }

    fn draw_axes(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in &self.y.ticks {
            let (_, y) = self.pixel((self.x.low, *value));
            stroke(svg, "grid", &[(LEFT, y), (right, y)]);
            text(svg, LEFT - 10.0, y + 5.0, "tick end", label);
        }
        for (value, label) in &self.x.ticks {
            let (x, _) = self.pixel((*value, self.y.low));
            stroke(svg, "axis", &[(x, bottom), (x, bottom + 6.0)]);
            text(svg, x, bottom + 24.0, "tick middle", label);
        }
        stroke(svg, "axis", &[(LEFT, bottom), (right, bottom)]);
        let middle = (LEFT + right) / 2.0;
        text(svg, middle, HEIGHT - 10.0, "title middle", &self.x.title);
        text(svg, 8.0, 18.0, "title", &self.y.title);
    }

    fn draw_line(&self, svg: &mut String, line: &Line) {
        let dash = if line.is_own { "" } else { " dashed" };
        let points: Vec<_> = line.path.iter().map(|&point| self.pixel(point)).collect();
        stroke(svg, &format!("line {}{dash}", line.class), &points);
        for &dot in &line.dots {
            let (x, y) = self.pixel(dot);
            marker(
                svg,
                x,
                y,
                line.class,
                if line.is_own { "dot" } else { "ring" },
            );
        }
    }

    /// The lines' names, right of their last dots, moved apart where they would overlap.
    fn draw_labels(&self, svg: &mut String) {
        let mut ends: Vec<_> = self
            .lines
            .iter()
            .filter_map(|line| Some((line, self.pixel(*line.dots.last()?))))
            .collect();
        ends.sort_by(|(_, (_, a)), (_, (_, b))| a.total_cmp(b));
        let wanted: Vec<_> = ends.iter().map(|&(_, (_, y))| y).collect();
        let places = apart(&wanted, TOP, HEIGHT - BOTTOM);
        let left = WIDTH - RIGHT + 34.0;
        for ((line, (x, y)), place) in ends.into_iter().zip(places) {
            let class = format!("leader {}", line.class);
            stroke(svg, &class, &[(x + 7.0, y), (left - 6.0, place)]);
            let class = if line.is_own { "name own" } else { "name" };
            text(svg, left, place + 5.0, class, &line.label);
        }
    }

    fn draw_mark(&self, svg: &mut String, mark: &Mark) {
        let (x, y) = self.pixel(mark.at);
        match mark.kind {
            MarkKind::Goal(met) => {
                diamond(svg, x, y, if met { "goal met" } else { "goal missed" });
                let side = Side::of(x, WIDTH - RIGHT - 60.0);
                text(svg, x + side.away(13.0), y + 5.0, side.class(), &mark.label);
            }
            MarkKind::Crossing => {
                stroke(svg, "crossing", &[(x, HEIGHT - BOTTOM), (x, y)]);
                marker(svg, x, y, "crossing", "target");
                let side = Side::of(x, WIDTH - 7.0 * mark.label.len() as f64);
                let y = HEIGHT - BOTTOM - 10.0;
                text(svg, x + side.away(9.0), y, side.class(), &mark.label);
            }
        }
    }
}

/// Where a mark's label is.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

impl Side {
    /// Right, unless there is no room beyond `limit`.
    fn of(x: f64, limit: f64) -> Side {
        if x > limit { Side::Left } else { Side::Right }
    }

    fn away(self, distance: f64) -> f64 {
        match self {
            Side::Left => -distance,
            Side::Right => distance,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Side::Left => "mark end",
            Side::Right => "mark",
        }
    }
}

/// A chart of rows with dots on one axis.
pub(super) struct Dots {
    pub(super) x: Axis,
    pub(super) rows: Vec<(String, Vec<Dot>)>,
    /// What the dots are.
    pub(super) legend: Vec<(Dot, &'static str)>,
}

/// A dot in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dot {
    pub(super) value: f64,
    pub(super) class: &'static str,
    pub(super) shape: &'static str,
}

impl Dots {
    /// The chart as SVG.
    pub(super) fn svg(&self) -> String {
        const ROW: f64 = 26.0;
        const LEFT: f64 = 190.0;
        const RIGHT: f64 = 44.0;
        let bottom = TOP + ROW * self.rows.len() as f64;
        let pixel = |value| LEFT + (WIDTH - LEFT - RIGHT) * self.x.place(value);
        let mut svg = open(bottom + BOTTOM);
        let mut x = LEFT;
        for (dot, label) in &self.legend {
            draw_dot(&mut svg, x, 16.0, *dot);
            text(&mut svg, x + 12.0, 21.0, "name", label);
            x += 60.0 + 8.0 * label.len() as f64;
        }
        for (value, label) in &self.x.ticks {
            let x = pixel(*value);
            stroke(&mut svg, "grid", &[(x, TOP), (x, bottom)]);
            text(&mut svg, x, bottom + 22.0, "tick middle", label);
        }
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        text(
            &mut svg,
            middle,
            bottom + 48.0,
            "title middle",
            &self.x.title,
        );
        for (nth, (name, dots)) in self.rows.iter().enumerate() {
            let y = TOP + ROW * (nth as f64 + 0.5);
            text(&mut svg, LEFT - 12.0, y + 5.0, "name end", name);
            let places = || dots.iter().map(|dot| pixel(dot.value));
            let ends = [
                (places().fold(f64::INFINITY, f64::min), y),
                (places().fold(0.0, f64::max), y),
            ];
            stroke(&mut svg, "span", &ends);
            for &dot in dots {
                draw_dot(&mut svg, pixel(dot.value), y, dot);
            }
        }
        svg + "</svg>\n"
    }
}

fn draw_dot(svg: &mut String, x: f64, y: f64, dot: Dot) {
    match dot.shape {
        "diamond" => diamond(svg, x, y, dot.class),
        shape => marker(svg, x, y, dot.class, shape),
    }
}

/// Moves values that are in order, as little as needed, so that each is a line of text apart from
/// the next and all are between two ends.
fn apart(wanted: &[f64], low: f64, high: f64) -> Vec<f64> {
    let mut places = Vec::with_capacity(wanted.len());
    let mut least = low;
    for &place in wanted {
        places.push(place.max(least));
        least = places.last().copied().unwrap_or(low) + LINE_HEIGHT;
    }
    let mut most = high;
    for place in places.iter_mut().rev() {
        *place = place.min(most);
        most = *place - LINE_HEIGHT;
    }
    places
}

fn open(height: f64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" xmlns=\"http://www.w3.org/2000/svg\">\n")
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"
    );
}

fn stroke(svg: &mut String, class: &str, points: &[(f64, f64)]) {
    let points: Vec<_> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let points = points.join(" ");
    let _ = writeln!(svg, "<polyline class=\"{class}\" points=\"{points}\"/>");
}

/// A circle, a ring or a square.
fn marker(svg: &mut String, x: f64, y: f64, class: &str, shape: &str) {
    let _ = match shape {
        "square" => writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\" class=\"square {class}\"/>",
            x - 4.5,
            y - 4.5
        ),
        _ => {
            let radius = if shape == "target" { 8.0 } else { 4.5 };
            writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" class=\"{shape} {class}\"/>"
            )
        }
    };
}

fn diamond(svg: &mut String, x: f64, y: f64, class: &str) {
    let (left, right, top, bottom) = (x - 7.0, x + 7.0, y - 7.0, y + 7.0);
    let _ = writeln!(
        svg,
        "<polygon class=\"{class}\" points=\"{left:.1},{y:.1} {x:.1},{top:.1} {right:.1},{y:.1} {x:.1},{bottom:.1}\"/>"
    );
}

/// Text as it stands in a page.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| &label[..]).collect()
    }

    #[test]
    fn sizes_have_a_place_for_zero() {
        let axis = Axis::sizes("pages", [0.0, 1.0, 64.0].into_iter());
        assert_eq!(labels(&axis), ["1", "4", "16", "64", "0"]);
        assert_eq!((axis.place(0.0), axis.place(64.0)), (0.0, 1.0));
        assert_eq!(axis.place(1.0), 0.25);
    }

    #[test]
    fn costs_have_round_ends() {
        let axis = Axis::costs("instructions", [30.0, 9000.0].into_iter());
        assert_eq!((axis.low, axis.high), (20.0, 10_000.0));
        assert!(labels(&axis).contains(&"1,000"));
        let wide = Axis::costs("instructions", [30.0, 90_000_000.0].into_iter());
        assert_eq!(labels(&wide)[..2], ["100", "1,000"]);
    }

    #[test]
    fn even_axes_begin_at_zero() {
        let axis = Axis::even("written", 100.0, 25.0, " %");
        assert_eq!(labels(&axis), ["0 %", "25 %", "50 %", "75 %", "100 %"]);
        assert_eq!(axis.place(50.0), 0.5);
    }

    #[test]
    fn names_do_not_overlap() {
        assert_eq!(apart(&[10.0, 12.0, 90.0], 0.0, 100.0), [10.0, 29.0, 90.0]);
        assert_eq!(apart(&[95.0, 99.0], 0.0, 100.0), [81.0, 100.0]);
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("a<b & \"c\""), "a&lt;b &amp; &quot;c&quot;");
    }
}
