//! Messages whose receiver then writes to some of the pages: does copy-on-write pay?
//!
//! A page that is written after all costs a fault and a copy. Beyond some share of written pages it
//! would have been cheaper to copy all at once: there the two ways cross.

use std::collections::BTreeSet;

use super::rows::Row;
use super::table::grouped;

/// The way that the others are compared with.
pub(super) const COPY: &str = "send_copy";

/// All ways: the operations' family, and what the tables call it.
pub(super) const WAYS: [(&str, &str); 3] = [
    ("send_cow", "copy-on-write"),
    ("send_move", "moved"),
    (COPY, "copied"),
];

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) nr_pages: u32,
    /// The written part, in percent.
    pub(super) share: u32,
    pub(super) cost_per_page: f64,
}

/// Whether the row is shown here, and not in the table of operations.
pub(super) fn is_written(row: &Row) -> bool {
    WAYS.iter().any(|(family, _)| point(row, family).is_some())
}

/// What was measured of a way.
pub(super) fn points(rows: &[Row], family: &str) -> Vec<Point> {
    rows.iter().filter_map(|row| point(row, family)).collect()
}

/// The measurement in a row with a name like `send_cow_written/256/50`.
fn point(row: &Row, family: &str) -> Option<Point> {
    let rest = row.name.strip_prefix(family)?.strip_prefix("_written/")?;
    let (nr_pages, share) = rest.split_once('/')?;
    let nr_pages: u32 = nr_pages.parse().ok()?;
    Some(Point {
        nr_pages,
        share: share.parse().ok()?,
        cost_per_page: row.value / f64::from(nr_pages),
    })
}

/// Up to which share of written pages, in percent, a way is no dearer than copying: 0 if it never
/// is cheaper, 100 if it always is, and between two measurements on the line through them.
pub(super) fn crossover(rows: &[Row], family: &str, nr_pages: u32) -> Option<f64> {
    let copied = points(rows, COPY);
    let mut ahead = points(rows, family)
        .into_iter()
        .filter(|point| point.nr_pages == nr_pages)
        .filter_map(|point| {
            let same = |other: &&Point| (other.nr_pages, other.share) == (nr_pages, point.share);
            let copy = copied.iter().find(same)?;
            let saved = copy.cost_per_page - point.cost_per_page;
            Some((f64::from(point.share), saved))
        });
    let (mut share, mut saved) = ahead.next()?;
    if saved < 0.0 {
        return Some(0.0);
    }
    for (next_share, next_saved) in ahead {
        if next_saved < 0.0 {
            return Some(share + (next_share - share) * saved / (saved - next_saved));
        }
        (share, saved) = (next_share, next_saved);
    }
    Some(100.0)
}

/// A line of the table: pages, way, one cell a share, and where it crosses the line of copying.
pub(super) struct Line {
    pub(super) nr_pages: u32,
    pub(super) way: &'static str,
    pub(super) cells: Vec<Cell>,
    pub(super) crossover: Option<f64>,
}

/// Instructions a page, and whether no other way is cheaper.
pub(super) type Cell = Option<(f64, bool)>;

/// The shares, and the lines below them.
pub(super) fn table(rows: &[Row]) -> (Vec<u32>, Vec<Line>) {
    let ways = WAYS.map(|(family, way)| (family, way, points(rows, family)));
    let all = || ways.iter().flat_map(|(_, _, points)| points);
    let shares: BTreeSet<u32> = all().map(|point| point.share).collect();
    let sizes: BTreeSet<u32> = all().map(|point| point.nr_pages).collect();
    let cost = |points: &[Point], nr_pages, share| {
        let mut points = points.iter();
        let point = points.find(|point| (point.nr_pages, point.share) == (nr_pages, share));
        point.map(|point| point.cost_per_page)
    };
    let cheapest = |nr_pages, share| {
        let costs = ways
            .iter()
            .filter_map(|(_, _, points)| cost(points, nr_pages, share));
        costs.fold(f64::INFINITY, f64::min)
    };
    let mut lines = Vec::new();
    for &nr_pages in &sizes {
        for (family, way, points) in &ways {
            let cell = |&share: &u32| {
                let cost = cost(points, nr_pages, share)?;
                Some((cost, cost <= cheapest(nr_pages, share)))
            };
            let cells: Vec<Cell> = shares.iter().map(cell).collect();
            if cells.iter().any(Option::is_some) {
                let crossover = (*family != COPY).then(|| crossover(rows, family, nr_pages));
                lines.push(Line {
                    nr_pages,
                    way,
                    cells,
                    crossover: crossover.flatten(),
                });
            }
        }
    }
    (shares.into_iter().collect(), lines)
}

/// What the table is about.
pub(super) const EXPLANATION: &str = "Instructions a page for a message whose receiver then writes to so many of the pages; \
* is the cheapest way. It is no dearer than copying up to the share in the last column.";

/// The table for people to read; nothing if nothing was measured.
pub(super) fn text(rows: &[Row]) -> String {
    let (shares, lines) = table(rows);
    if lines.is_empty() {
        return String::new();
    }
    let mut text = format!("{:>6}  {:<14}", "pages", "written:");
    for share in shares {
        text += &format!("{:>10}", format!("{share} % "));
    }
    text += "  pays up to\n";
    for line in &lines {
        let mut shown = format!("{:>6}  {:<14}", line.nr_pages, line.way);
        for cell in &line.cells {
            shown += &match cell {
                Some((cost, true)) => format!("{:>10}", grouped(cost.round()) + "*"),
                Some((cost, false)) => format!("{:>10}", grouped(cost.round()) + " "),
                None => format!("{:>10}", "- "),
            };
        }
        if let Some(share) = line.crossover {
            shown += &format!("{share:>10.0} %");
        }
        text += shown.trim_end();
        text += "\n";
    }
    text + EXPLANATION + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::of;

    #[test]
    fn names_have_two_numbers() {
        let rows = of(&[("send_cow_written/4/25", 800), ("send_cow/4", 700)]);
        let point = Point {
            nr_pages: 4,
            share: 25,
            cost_per_page: 200.0,
        };
        assert_eq!(points(&rows, "send_cow"), [point]);
        assert_eq!(points(&rows, COPY), []);
        assert_eq!(rows.iter().filter(|row| is_written(row)).count(), 1);
    }

    #[test]
    fn ways_cross_between_measurements() {
        let rows = of(&[
            ("send_cow_written/1/0", 100),
            ("send_cow_written/1/50", 300),
            ("send_cow_written/1/100", 500),
            ("send_copy_written/1/0", 200),
            ("send_copy_written/1/50", 200),
            ("send_copy_written/1/100", 200),
            ("send_cow_written/4/0", 300),
            ("send_copy_written/4/0", 200),
            ("send_cow_written/16/0", 100),
            ("send_copy_written/16/0", 200),
        ]);
        assert_eq!(crossover(&rows, "send_cow", 1), Some(25.0));
        assert_eq!(crossover(&rows, "send_cow", 4), Some(0.0));
        assert_eq!(crossover(&rows, "send_cow", 16), Some(100.0));
        assert_eq!(crossover(&rows, "send_cow", 64), None);
        assert_eq!(crossover(&rows, "send_move", 1), None);
    }

    #[test]
    fn the_cheapest_way_is_marked() {
        let rows = of(&[
            ("send_cow_written/1/0", 100),
            ("send_copy_written/1/0", 2000),
            ("send_copy_written/1/50", 2000),
        ]);
        let text = text(&rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            " pages  written:            0 %      50 %   pays up to"
        );
        assert_eq!(
            lines[1],
            "     1  copy-on-write       100*        -        100 %"
        );
        assert_eq!(lines[2], "     1  copied            2,000     2,000*");
        assert!(super::text(&of(&[("map", 1)])).is_empty());
    }
}
