//! What is plotted: figures made of rows, and of the curves of other systems.

use super::reference::Reference;
use super::rows::Row;
use super::svg::{Axis, Dot, Dots, Figure, Line, Mark, MarkKind, Note};
use super::table::grouped;
use super::written;

/// A figure with its heading, and one sentence below it.
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) caption: String,
    pub(super) svg: String,
}

/// Points: (size, cost).
type Points = Vec<(f64, f64)>;

/// Cowslip's lines: the operations' family, the class of its colour, and its name.
type Families = &'static [(&'static str, &'static str, &'static str)];

const MESSAGES: Families = &[
    ("send_cow", "cow", "Cowslip, copy-on-write"),
    ("send_cow_fresh", "fresh", "Cowslip, all pages just written"),
    ("send_move", "move", "Cowslip, moved"),
    ("send_copy", "copy", "Cowslip, copied"),
];

const FORKS: Families = &[
    ("fork_call", "cow", "Cowslip, until the parent goes on"),
    ("fork_exit_wait", "copy", "Cowslip, fork, exit, wait"),
];

/// The class of seL4's lines and dots, and those of Linux's.
const SEL4: &str = "other1";
const LINUX: [&str; 3] = ["other2", "other3", "other4"];

/// The message that the plot over written pages is of, in pages.
const TYPICAL: u32 = 256;

/// All plots that there are rows for.
pub(super) fn plots(rows: &[Row], reference: &Reference) -> Vec<Plot> {
    let plots = [
        operations(rows),
        messages(rows, reference),
        written_pages(rows),
        crossovers(rows),
        forks(rows, reference),
    ];
    plots.into_iter().flatten().collect()
}

/// Small operations beside other systems'.
fn operations(rows: &[Row]) -> Option<Plot> {
    let dot = |class, shape| move |value: u64| dot(value as f64, class, shape);
    let compared = |row: &&Row| {
        row.unit == "instructions"
            && !["send_", "fork_", "boot_"]
                .iter()
                .any(|prefix| row.name.starts_with(prefix))
            && (row.sel4.is_some() || row.linux.is_some())
    };
    let rows: Vec<_> = rows
        .iter()
        .filter(compared)
        .map(|row| {
            let mut dots = Vec::new();
            dots.extend(row.linux.map(dot(LINUX[0], "square")));
            dots.extend(row.sel4.map(dot(SEL4, "ring")));
            dots.extend(
                row.goal
                    .map(|goal| self::dot(goal, goal_class(row.met()), "diamond")),
            );
            dots.push(self::dot(row.value, "cow", "dot"));
            (row.name.clone(), dots)
        })
        .collect();
    let values = rows.iter().flat_map(|(_, dots)| dots).map(|dot| dot.value);
    let x = Axis::costs("guest instructions (logarithmic)", values);
    let legend = vec![
        (self::dot(0.0, "cow", "dot"), "Cowslip"),
        (self::dot(0.0, SEL4, "ring"), "seL4"),
        (self::dot(0.0, LINUX[0], "square"), "Linux"),
        (self::dot(0.0, "goal met", "diamond"), "goal, met"),
        (self::dot(0.0, "goal missed", "diamond"), "goal, not met"),
    ];
    (!rows.is_empty()).then(|| Plot {
        title: "Single operations",
        caption: "One operation each, measured alone, in instructions: further left is cheaper. \
                  The table below says where a peer's operation differs."
            .into(),
        svg: Dots { x, rows, legend }.svg(),
    })
}

fn dot(value: f64, class: &'static str, shape: &'static str) -> Dot {
    Dot {
        value,
        class,
        shape,
    }
}

fn goal_class(met: Option<bool>) -> &'static str {
    if met == Some(true) {
        "goal met"
    } else {
        "goal missed"
    }
}

/// The cost of each page of a message, over its length.
fn messages(rows: &[Row], reference: &Reference) -> Option<Plot> {
    let (own, mut totals) = totals(rows, reference, MESSAGES, "messages");
    if !own {
        return None;
    }
    let tables: Points = rows.iter().filter_map(of_tables).collect();
    if !tables.is_empty() {
        totals.push((Named::own("table", "Cowslip, tables, unread"), tables));
    }
    let lines: Vec<_> = totals
        .iter()
        .map(|(line, points)| a_page(line, points))
        .collect();
    // Cowslip's other ways are for senders with other wishes, but for copying.
    let rivals = totals
        .iter()
        .filter(|(line, _)| !line.is_own || ["cow", "copy"].contains(&line.class));
    let mut marks = crossings(rivals, |other, size| {
        format!("{other} is cheaper beyond {} pages", grouped(size.round()))
    });
    for mark in &mut marks {
        mark.at.1 /= mark.at.0;
    }
    marks.extend(rows.iter().filter_map(goal_a_page));
    let values = lines
        .iter()
        .flat_map(|line| &line.dots)
        .chain(marks.iter().map(|mark| &mark.at));
    let (sizes, costs) = (values.clone().map(|at| at.0), values.map(|at| at.1));
    Some(Plot {
        title: "A message of N pages: what each page costs",
        caption: "A request of N pages and a short reply, divided by N; the receiver reads a word of every page. \
                  Copy-on-write messages come from two buffers in turn, so that every page differs from the one before; \
                  in the dearer case the sender has also written to every page since it last sent it. \
                  From 512 pages on, whole page tables go over where both buffers begin at one; \
                  what is unread, the receiver does not look at before it replies."
            .into(),
        svg: Figure {
            x: Axis::sizes("pages in the message", sizes),
            y: Axis::costs("guest instructions a page", costs),
            lines,
            marks,
            notes: Vec::new(),
        }
        .svg(),
    })
}

/// A message of whole tables: its pages, and its cost.
fn of_tables(row: &Row) -> Option<(f64, f64)> {
    let size = row.name.strip_prefix("send_cow_")?;
    let (number, nr_pages) = match size.strip_suffix("MiB") {
        Some(number) => (number, 256.0),
        None => (size.strip_suffix("GiB")?, 256.0 * 1024.0),
    };
    Some((number.parse::<f64>().ok()? * nr_pages, row.value))
}

/// A line of totals, divided by the size.
fn a_page(line: &Named, points: &Points) -> Line {
    let divided = |points: &Points| {
        points
            .iter()
            .map(|&(size, cost)| (size, cost / size))
            .collect()
    };
    Line {
        label: line.label.clone(),
        class: line.class,
        is_own: line.is_own,
        dots: divided(points),
        path: divided(&between(points)),
    }
}

/// The goal of a message, in instructions a page.
fn goal_a_page(row: &Row) -> Option<Mark> {
    let goal = row.goal?;
    let (family, size) = row.name.split_once('/')?;
    let size: f64 = size.parse().ok()?;
    let (family, cost) = match family.strip_suffix("_per_page") {
        Some(family) => (family, goal),
        None => (family, goal / size),
    };
    let of_message = MESSAGES.iter().any(|&(name, ..)| name == family);
    of_message.then(|| Mark {
        at: (size, cost),
        kind: MarkKind::Goal(row.met() == Some(true)),
        label: format!("goal {}", grouped(cost)),
    })
}

/// What it costs if the receiver writes to some of the pages.
fn written_pages(rows: &[Row]) -> Option<Plot> {
    const LINES: Families = &[
        ("send_cow", "cow", "copy-on-write"),
        ("send_move", "move", "moved"),
        ("send_copy", "copy", "copied"),
    ];
    let mut lines = Vec::new();
    for &(family, class, label) in LINES {
        let dots: Points = written::points(rows, family)
            .into_iter()
            .filter(|point| point.nr_pages == TYPICAL)
            .map(|point| (f64::from(point.share), point.cost_per_page))
            .collect();
        if !dots.is_empty() {
            let named = Named::own(class, label);
            lines.push((named, dots));
        }
    }
    if lines.len() < 2 {
        return None;
    }
    let marks = crossings(lines.iter(), |_, share| format!("pays up to {share:.0} %"));
    let most = lines.iter().flat_map(|(_, dots)| dots).map(|dot| dot.1);
    let most = most.fold(0.0, f64::max);
    Some(Plot {
        title: "When does copy-on-write pay?",
        caption: format!(
            "A message of {TYPICAL} pages whose receiver then writes to some of them, divided by {TYPICAL}. \
             A page that is written after all costs a fault and a copy of its own; \
             beyond the crossing it would have been cheaper to copy the message."
        ),
        svg: Figure {
            x: Axis::even("pages that the receiver writes to", 100.0, 10.0, " %"),
            y: Axis::even("guest instructions a page", most, step(most), ""),
            lines: lines
                .into_iter()
                .map(|(line, dots)| line.with(dots.clone(), dots))
                .collect(),
            marks,
            notes: Vec::new(),
        }
        .svg(),
    })
}

/// A round step that makes four to ten of a length.
fn step(length: f64) -> f64 {
    let decade = 10f64.powf(length.max(1.0).log10().floor());
    let steps = [0.1, 0.2, 0.5, 1.0].map(|step| step * decade);
    let enough = |step: &&f64| length / **step <= 10.0;
    steps.iter().find(enough).copied().unwrap_or(decade)
}

/// Where copy-on-write and moving cross copying, over the length of the message.
fn crossovers(rows: &[Row]) -> Option<Plot> {
    let mut lines = Vec::new();
    for (family, class, label) in [
        ("send_cow", "cow", "copy-on-write"),
        ("send_move", "move", "moved"),
    ] {
        let mut sizes: Vec<_> = written::points(rows, family)
            .iter()
            .map(|point| point.nr_pages)
            .collect();
        sizes.dedup();
        let dots: Points = sizes
            .into_iter()
            .filter_map(|size| Some((f64::from(size), written::crossover(rows, family, size)?)))
            .collect();
        if dots.len() > 1 {
            lines.push(Named::own(class, label).with(dots.clone(), dots));
        }
    }
    let sizes: Vec<_> = lines
        .iter()
        .flat_map(|line| &line.dots)
        .map(|&(size, _)| size)
        .collect();
    let middle = sizes.iter().fold(1.0, |a, &b| f64::max(a, b)).sqrt();
    // Words stand where they are true of all lines.
    let shares: Vec<_> = lines
        .iter()
        .filter_map(|line| at(&line.dots, middle))
        .collect();
    let notes = [
        (
            75.0,
            "copying is cheaper",
            shares.iter().all(|&share| share < 75.0),
        ),
        (
            12.0,
            "not copying is cheaper",
            shares.iter().all(|&share| share > 12.0),
        ),
    ];
    let notes = notes.into_iter().filter(|&(_, _, is_true)| is_true);
    let notes = notes.map(|(share, text, _)| Note {
        at: (middle, share),
        text,
    });
    (!lines.is_empty()).then(|| Plot {
        title: "Up to which share of written pages it pays",
        caption: "The crossing of the plot above, for messages of every length: below the line the message is cheaper \
                  than a copy of it, above it is dearer."
            .into(),
        svg: Figure {
            x: Axis::sizes("pages in the message", sizes.into_iter()),
            y: Axis::even("pages that the receiver writes to", 100.0, 20.0, " %"),
            lines,
            marks: Vec::new(),
            notes: notes.collect(),
        }
        .svg(),
    })
}

/// fork, over the memory that the parent has written.
fn forks(rows: &[Row], reference: &Reference) -> Option<Plot> {
    let (own, totals) = totals(rows, reference, FORKS, "forks");
    if !own {
        return None;
    }
    let lines: Vec<_> = totals
        .into_iter()
        .map(|(line, points)| {
            let path = between(&points);
            line.with(points, path)
        })
        .collect();
    let values = lines.iter().flat_map(|line| &line.dots);
    let (sizes, costs) = (values.clone().map(|at| at.0), values.map(|at| at.1));
    Some(Plot {
        title: "Fork of a process with M MiB of written memory",
        caption: "The parent writes to all of its memory and forks; the child ends at once. Linux shares \
                  every page copy-on-write, Cowslip the tables that they are in; the lines between dots assume a cost that grows evenly."
            .into(),
        svg: Figure {
            x: Axis::sizes("MiB that the parent has written", sizes),
            y: Axis::costs("guest instructions", costs),
            lines,
            marks: Vec::new(),
            notes: Vec::new(),
        }
        .svg(),
    })
}

/// A line without its points.
struct Named {
    label: String,
    class: &'static str,
    is_own: bool,
}

impl Named {
    fn own(class: &'static str, label: &str) -> Named {
        Named {
            label: label.into(),
            class,
            is_own: true,
        }
    }

    fn with(self, dots: Points, path: Points) -> Line {
        Line {
            label: self.label,
            class: self.class,
            is_own: self.is_own,
            dots,
            path,
        }
    }
}

/// Cowslip's lines and those of others that have points, and whether one is Cowslip's.
fn totals(
    rows: &[Row],
    reference: &Reference,
    families: Families,
    plot: &str,
) -> (bool, Vec<(Named, Points)>) {
    let own = families.iter().map(|&(family, class, label)| {
        let point = |row: &Row| Some((row.size(family)?, row.value));
        let points = rows.iter().filter_map(point).collect();
        (Named::own(class, label), points)
    });
    let curves = reference.curves.iter().filter(|curve| curve.plot == plot);
    let mut colours = LINUX.into_iter().cycle();
    let others = curves.map(|curve| {
        let is_sel4 = curve.label.starts_with(&reference.peers.sel4.label);
        let class = if is_sel4 { Some(SEL4) } else { colours.next() };
        let named = Named {
            label: curve.label.clone(),
            class: class.unwrap_or_default(),
            is_own: false,
        };
        (named, curve.points.clone())
    });
    let lines: Vec<_> = own
        .chain(others)
        .filter(|(_, points): &(_, Points)| !points.is_empty())
        .collect();
    (lines.iter().any(|(line, _)| line.is_own), lines)
}

/// Marks where the first line crosses others.
fn crossings<'a>(
    mut lines: impl Iterator<Item = &'a (Named, Points)>,
    label: impl Fn(&str, f64) -> String,
) -> Vec<Mark> {
    let Some((_, first)) = lines.next() else {
        return Vec::new();
    };
    let crossings = lines.filter_map(|(line, other)| {
        let at = crossing(first, other)?;
        Some(Mark {
            at,
            kind: MarkKind::Crossing,
            label: label(&line.label, at.0),
        })
    });
    crossings.collect()
}

/// Where a line that begins below another one comes to lie above it; both go straight from point to
/// point.
fn crossing(low: &Points, high: &Points) -> Option<(f64, f64)> {
    let mut places: Vec<f64> = low.iter().chain(high).map(|&(x, _)| x).collect();
    places.sort_by(f64::total_cmp);
    let mut before: Option<(f64, f64)> = None;
    for x in places {
        let (Some(y), Some(other)) = (at(low, x), at(high, x)) else {
            continue;
        };
        let ahead = other - y;
        match before {
            Some((from, was)) if was > 0.0 && ahead < 0.0 => {
                let x = from + (x - from) * was / (was - ahead);
                return Some((x, at(low, x)?));
            }
            _ => before = Some((x, ahead)),
        }
    }
    None
}

/// The height of a line at a place.
fn at(points: &Points, x: f64) -> Option<f64> {
    let within = |pair: &&[(f64, f64)]| (pair[0].0..=pair[1].0).contains(&x);
    let pair = points.windows(2).find(within)?;
    let [(from, low), (to, high)] = [pair[0], pair[1]];
    Some(low + (high - low) * (x - from) / (to - from))
}

/// The line through measured points: in between, a cost that grows evenly with the size, which is
/// no straight line on logarithmic axes.
fn between(points: &Points) -> Points {
    const STEPS: u32 = 12;
    let Some(&last) = points.last() else {
        return Vec::new();
    };
    let mut line = Vec::new();
    for pair in points.windows(2) {
        let [(from, low), (to, high)] = [pair[0], pair[1]];
        if from == 0.0 {
            // Nothing on a logarithmic axis is between.
            line.push(pair[0]);
            continue;
        }
        for step in 0..STEPS {
            let share = f64::from(step) / f64::from(STEPS);
            let size = from * (to / from).powf(share);
            line.push((size, low + (high - low) * (size - from) / (to - from)));
        }
    }
    line.push(last);
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::of;

    #[test]
    fn costs_grow_evenly_between_points() {
        let line = between(&vec![(1.0, 100.0), (1024.0, 1123.0)]);
        for (size, cost) in line {
            assert!((cost - (99.0 + size)).abs() < 0.01);
        }
        assert_eq!(between(&vec![(0.0, 1.0), (4.0, 5.0)])[0], (0.0, 1.0));
    }

    #[test]
    fn lines_cross_where_the_cheaper_becomes_the_dearer() {
        let (low, high) = (
            vec![(0.0, 0.0), (10.0, 10.0)],
            vec![(0.0, 5.0), (5.0, 5.0), (20.0, 5.0)],
        );
        assert_eq!(crossing(&low, &high), None);
        let high = vec![(0.0, 6.0), (20.0, 6.0)];
        let (x, y) = crossing(&low, &high).unwrap();
        assert!((x - 6.0).abs() < 1e-9 && (y - 6.0).abs() < 1e-9);
        assert_eq!(crossing(&high, &low), None);
    }

    #[test]
    fn goals_are_by_the_page() {
        let rows = of(&[("send_cow/1", 500), ("send_cow/256", 256_000), ("map", 1)]);
        let goals: Vec<_> = rows.iter().filter_map(goal_a_page).collect();
        assert_eq!(goals[0].kind, MarkKind::Goal(true));
        assert_eq!(goals[1].at.0, 256.0);
        assert_eq!(goals[1].kind, MarkKind::Goal(false));
        assert_eq!(goals.len(), 2);
    }

    #[test]
    fn messages_of_tables_are_told_in_pages() {
        let rows = of(&[
            ("send_cow_32MiB", 10),
            ("send_cow_1GiB", 20),
            ("send_cow_written/4/0", 1),
        ]);
        let points: Points = rows.iter().filter_map(of_tables).collect();
        assert_eq!(points, [(8192.0, 10.0), (262_144.0, 20.0)]);
    }

    #[test]
    fn steps_are_round() {
        assert_eq!([100.0, 1740.0, 3.0].map(step), [10.0, 200.0, 0.5]);
    }

    #[test]
    fn there_is_a_plot_for_what_was_measured() {
        let reference = Reference::read().unwrap();
        let titles = |readings: &[(&str, u64)]| -> Vec<&str> {
            let plots = plots(&of(readings), &reference);
            plots.iter().map(|plot| plot.title).collect()
        };
        assert_eq!(titles(&[("null_syscall", 161)]), ["Single operations"]);
        assert_eq!(titles(&[("fork_call/0", 1), ("fork_call/4", 2)]).len(), 1);
        let written = [
            ("send_cow_written/256/0", 100),
            ("send_cow_written/256/100", 300),
            ("send_copy_written/256/0", 200),
            ("send_copy_written/256/100", 200),
        ];
        assert_eq!(titles(&written), ["When does copy-on-write pay?"]);
    }
}
