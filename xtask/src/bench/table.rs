//! The table for people to read.

use super::rows::{Row, TIMES};

/// What the figures are, and what they are not.
pub(super) const EXPLANATION: &str = "\
Guest instructions under QEMU's icount: not time. Caches, TLB misses and changes of mode cost nothing in them.
A `rep` instruction of n iterations counts n + 1 here and for seL4, and 1 for Linux, the figure kindest to it:
a page that is copied or cleared counts 513 here. Figures are medians; two runs agree on every one.
ratio: to the cheaper peer; below 1 is better.";

/// The table, with what it means.
pub(super) fn table(rows: &[Row]) -> String {
    let header = ["operation", "Cowslip", "seL4", "Linux", "ratio", "goal", ""].map(str::to_owned);
    let lines: Vec<[String; 7]> = std::iter::once(header)
        .chain(rows.iter().map(cells))
        .collect();
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].len())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..7).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut shown = format!("{:<1$}", line[0], widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            shown += &format!("  {cell:>width$}");
        }
        text += shown.trim_end();
        text += "\n";
    }
    format!("{text}\n{}{EXPLANATION}\n", tally(rows))
}

fn cells(row: &Row) -> [String; 7] {
    let unit = if row.unit == "instructions" {
        ""
    } else {
        &row.unit
    };
    let name = format!("{} {unit}", row.name).trim().to_owned();
    let or_dash = |value: Option<u64>| value.map_or("-".into(), |value| grouped(value as f64));
    [
        name,
        shown(row.value, &row.unit),
        or_dash(row.sel4),
        or_dash(row.linux),
        row.ratio().map_or("-".into(), ratio),
        row.goal.map_or("-".into(), |goal| shown(goal, &row.unit)),
        row.met()
            .map_or("", |met| if met { "met" } else { "NOT MET" })
            .into(),
    ]
}

/// How many goals are met.
pub(super) fn tally(rows: &[Row]) -> String {
    let goals: Vec<_> = rows.iter().filter_map(Row::met).collect();
    let met = goals.iter().filter(|&&met| met).count();
    let better = rows
        .iter()
        .filter_map(Row::ratio)
        .filter(|&ratio| ratio < 1.0)
        .count();
    let compared = rows.iter().filter_map(Row::ratio).count();
    format!(
        "{met} of {} goals are met; {better} of {compared} operations are cheaper than at the cheaper peer.\n",
        goals.len()
    )
}

/// A value in its unit: between what is told in times, hundredths make the difference.
pub(super) fn shown(value: f64, unit: &str) -> String {
    if unit == TIMES {
        format!("{value:.2}")
    } else {
        grouped(value)
    }
}

/// A ratio with as many decimals as it takes to see something.
pub(super) fn ratio(ratio: f64) -> String {
    if ratio < 0.1 {
        format!("{ratio:.3}")
    } else {
        format!("{ratio:.2}")
    }
}

/// A number with its thousands apart; one decimal where it is small and has some.
pub(super) fn grouped(value: f64) -> String {
    let (whole, decimal) = if value.fract() == 0.0 || value >= 1000.0 {
        (format!("{value:.0}"), String::new())
    } else {
        let text = format!("{value:.1}");
        let (whole, decimal) = text.split_once('.').unwrap_or((&text, "0"));
        (whole.to_owned(), format!(".{decimal}"))
    };
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + &decimal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, value: f64, goal: Option<f64>) -> Row {
        Row {
            name: name.into(),
            value,
            unit: "instructions".into(),
            sel4: Some(1000),
            linux: None,
            goal,
            note: None,
        }
    }

    #[test]
    fn thousands_are_apart() {
        let numbers = [0.0, 999.0, 1000.0, 1_234_567.0, 34.25, 12_345.5];
        let texts = numbers.map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567", "34.2", "12,346"]);
    }

    #[test]
    fn small_ratios_are_told_apart() {
        assert_eq!([1.128, 0.1, 0.0032].map(ratio), ["1.13", "0.10", "0.003"]);
    }

    #[test]
    fn times_have_hundredths() {
        assert_eq!(shown(1.204, TIMES), "1.20");
        assert_eq!(shown(1234.0, "instructions"), "1,234");
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            row("a", 500.0, Some(600.0)),
            row("longer", 12_000.0, Some(1.0)),
        ];
        let text = table(&rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "operation  Cowslip   seL4  Linux  ratio  goal");
        assert_eq!(
            lines[1],
            "a              500  1,000      -   0.50   600      met"
        );
        assert_eq!(
            lines[2],
            "longer      12,000  1,000      -  12.00     1  NOT MET"
        );
        assert!(text.contains("1 of 2 goals are met; 1 of 2"));
    }
}
