//! Plots: cost over size, both on logarithmic axes, as SVG that takes the page's colour for its text.

use anyhow::Result;
use plotters::prelude::*;

use super::reference::Reference;
use super::rows::Row;
use super::table::grouped;

/// Stands for the colour of the page's text while plotters draws, which knows only fixed colours.
const INK: RGBColor = RGBColor(1, 2, 3);
const INK_IN_SVG: &str = "#010203";

const SIZE: (u32, u32) = (820, 440);

/// Colours that stand out from white and from black; Cowslip's own lines come first.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0xd9, 0x9a, 0x00),
    RGBColor(0x2f, 0x8f, 0xd0),
    RGBColor(0x3a, 0xa7, 0x6d),
    RGBColor(0xd0, 0x58, 0x6b),
    RGBColor(0xa0, 0x6b, 0xd0),
    RGBColor(0x80, 0x8c, 0x94),
    RGBColor(0x9a, 0x7b, 0x55),
];

/// What a plot is of.
pub(super) struct Subject {
    pub(super) title: &'static str,
    /// The name of the plot in the reference's curves.
    plot: &'static str,
    /// Cowslip's lines: the first part of the operations' names, and what they are called.
    families: &'static [(&'static str, &'static str)],
    x_axis: &'static str,
}

/// All plots.
pub(super) const SUBJECTS: [Subject; 2] = [
    Subject {
        title: "A message of N pages with a short reply",
        plot: "messages",
        families: &[
            ("send_cow", "Cowslip: copy-on-write"),
            ("send_copy", "Cowslip: copied"),
            ("send_move", "Cowslip: moved"),
        ],
        x_axis: "pages in the message",
    },
    Subject {
        title: "Fork of a process with M MiB of written memory",
        plot: "forks",
        families: &[
            ("fork_call", "Cowslip: fork until the parent goes on"),
            ("fork_exit_wait", "Cowslip: fork, exit, wait"),
        ],
        x_axis: "MiB that the parent has written",
    },
];

/// A line of a plot.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub(super) label: String,
    points: Vec<(f64, f64)>,
    own: bool,
}

impl Line {
    /// Whether it is Cowslip's; others' lines are dashed.
    pub(super) fn is_own(&self) -> bool {
        self.own
    }
}

/// The lines of a plot that have points.
pub(super) fn lines(subject: &Subject, rows: &[Row], reference: &Reference) -> Vec<Line> {
    let own = subject.families.iter().map(|&(family, label)| Line {
        label: label.to_owned(),
        points: rows
            .iter()
            .filter_map(|row| Some((row.size(family)?, row.value)))
            .collect(),
        own: true,
    });
    let curves = reference.curves.iter();
    let others = curves
        .filter(|curve| curve.plot == subject.plot)
        .map(|curve| Line {
            label: curve.label.clone(),
            points: curve.points.clone(),
            own: false,
        });
    own.chain(others)
        .filter(|line| !line.points.is_empty())
        .collect()
}

/// The colour of a plot's nth line, as CSS has it.
pub(super) fn colour(nth: usize) -> String {
    let RGBColor(red, green, blue) = COLOURS[nth % COLOURS.len()];
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Draws a plot.
pub(super) fn svg(subject: &Subject, lines: &[Line]) -> Result<String> {
    let costs = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|&(_, cost)| height(cost));
    let low = costs.clone().fold(f64::INFINITY, f64::min).floor();
    let high = costs.fold(low + 1.0, f64::max).ceil();
    let sizes = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|&(size, _)| place(size));
    let left = sizes.clone().fold(0.0, f64::min);
    let right = sizes.fold(1.0, f64::max);

    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(14)
            .margin_right(32)
            .x_label_area_size(48)
            .y_label_area_size(96)
            .build_cartesian_2d(left..right, low..high)?;
        chart
            .configure_mesh()
            .x_desc(subject.x_axis)
            .y_desc("guest instructions")
            .x_labels((right - left) as usize / 2 + 1)
            .y_labels((high - low) as usize + 1)
            .x_label_formatter(&|&x| size_at(x))
            .y_label_formatter(&|&y| cost_at(y))
            .label_style(("sans-serif", 14, &INK))
            .axis_desc_style(("sans-serif", 15, &INK))
            .axis_style(INK)
            .bold_line_style(INK.mix(0.18))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (nth, line) in lines.iter().enumerate() {
            let colour = COLOURS[nth % COLOURS.len()];
            let points = between(&line.points);
            if line.own {
                chart.draw_series(LineSeries::new(points, colour.stroke_width(3)))?;
            } else {
                let style = colour.stroke_width(2);
                chart.draw_series(DashedLineSeries::new(points, 7, 5, style))?;
            }
            let dots = line
                .points
                .iter()
                .map(|&(size, cost)| Circle::new((place(size), height(cost)), 4, colour.filled()));
            chart.draw_series(dots)?;
        }
        area.present()?;
    }
    Ok(svg.replace(INK_IN_SVG, "currentColor"))
}

/// The line through measured points: in between, a cost that grows evenly with the size, which is
/// no straight line on these axes.
fn between(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    const STEPS: u32 = 8;
    let mut line = Vec::new();
    for pair in points.windows(2) {
        let [(from, low), (to, high)] = [pair[0], pair[1]];
        for step in 0..=STEPS {
            let share = f64::from(step) / f64::from(STEPS);
            let at = place(from) + (place(to) - place(from)) * share;
            let size = at.exp2().clamp(from, to);
            let cost = low + (high - low) * (size - from) / (to - from);
            line.push((at, height(cost)));
        }
    }
    line
}

/// Where a size is on its axis: its logarithm, with 0 two steps below 1.
fn place(size: f64) -> f64 {
    size.max(0.25).log2()
}

/// The label at a place: the size, at the places that are one.
fn size_at(place: f64) -> String {
    if place < 0.0 {
        return "0".into();
    }
    grouped(place.exp2().round())
}

fn height(cost: f64) -> f64 {
    cost.max(1.0).log10()
}

fn cost_at(height: f64) -> String {
    grouped(10f64.powf(height).round())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::reading::Reading;
    use crate::bench::rows::rows;

    #[test]
    fn axes_are_logarithmic_with_a_place_for_zero() {
        assert_eq!((place(0.0), place(1.0), place(1024.0)), (-2.0, 0.0, 10.0));
        assert_eq!((size_at(-2.0), size_at(8.0)), ("0".into(), "256".into()));
        assert_eq!(cost_at(height(1000.0)), "1,000");
    }

    #[test]
    fn costs_grow_evenly_between_points() {
        let line = between(&[(1.0, 100.0), (1024.0, 1123.0)]);
        for (at, high) in line {
            assert!((10f64.powf(high) - (99.0 + at.exp2())).abs() < 0.01);
        }
        assert!(between(&[(1.0, 1.0)]).is_empty());
    }

    #[test]
    fn plots_have_lines_of_their_own_and_of_peers() {
        let reference = Reference::read().unwrap();
        let readings = [
            Reading::once("send_cow/1", 500),
            Reading::once("send_cow/4", 600),
        ];
        let rows = rows(&readings, &reference);
        let drawn = lines(&SUBJECTS[0], &rows, &reference);
        assert_eq!(drawn[0].label, "Cowslip: copy-on-write");
        assert_eq!(drawn[0].points, [(1.0, 500.0), (4.0, 600.0)]);
        assert!(drawn[1..].iter().all(|line| !line.own));
        assert!(drawn.len() > 1);
        let svg = svg(&SUBJECTS[0], &drawn).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("currentColor"));
        assert!(!svg.contains(INK_IN_SVG) && svg.contains(&colour(0).to_uppercase()));
    }
}
