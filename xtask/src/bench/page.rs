//! The page with plots: one file that needs nothing else, readable in light, in dark and on paper.

use std::fmt::Write;

use anyhow::Result;

use super::plot;
use super::reference::{Peer, Reference};
use super::rows::Row;
use super::svg::escaped;
use super::table::{EXPLANATION, grouped, ratio, shown, tally};
use super::written;

const STYLE: &str = include_str!("page.css");

/// The page.
pub(super) fn page(rows: &[Row], reference: &Reference) -> Result<String> {
    let (written, others): (Vec<_>, Vec<_>) = rows.iter().cloned().partition(written::is_written);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Cowslip: what operations cost</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Cowslip: what operations cost</h1>\n<p>{}</p>\n<p>{}</p>\n",
        escaped(EXPLANATION),
        escaped(&tally(&others))
    );
    page += "<p>Full lines and dots are Cowslip's, dashed lines other systems'; diamonds are goals.</p>\n";
    for plot in plot::plots(rows, reference) {
        let (title, caption) = (escaped(plot.title), escaped(&plot.caption));
        write!(
            page,
            "<section>\n<h2>{title}</h2>\n<figure role=\"img\" aria-label=\"{title}\">\n{}\
             <figcaption>{caption}</figcaption>\n</figure>\n</section>\n",
            plot.svg
        )?;
    }
    page += &written_table(&written);
    page += &table(&others);
    page += "<section>\n<h2>Where the other figures come from</h2>\n<ul>\n";
    for peer in [&reference.peers.sel4, &reference.peers.linux] {
        page += &provenance(peer);
    }
    page += "</ul>\n</section>\n</body>\n</html>\n";
    Ok(page)
}

/// What messages cost whose receiver writes; nothing if it was not measured.
fn written_table(rows: &[Row]) -> String {
    let (shares, lines) = written::table(rows);
    if lines.is_empty() {
        return String::new();
    }
    let mut table = "<section>\n<h2>Messages that are written to afterwards</h2>\n\
                     <div class=\"scroll\"><table>\n<tr><th>pages</th><th>the message is</th>"
        .to_owned();
    for share in shares {
        table += &format!("<th>{share} %</th>");
    }
    table += "<th>pays up to</th></tr>\n";
    for line in lines {
        table += &format!("<tr><td>{}</td><td>{}</td>", line.nr_pages, line.way);
        for cell in line.cells {
            table += &match cell {
                Some((cost, true)) => format!("<td><b>{}</b></td>", grouped(cost.round())),
                Some((cost, false)) => format!("<td>{}</td>", grouped(cost.round())),
                None => "<td></td>".to_owned(),
            };
        }
        let share = line.crossover.map(|share| format!("{share:.0} %"));
        table += &format!("<td>{}</td></tr>\n", share.unwrap_or_default());
    }
    table
        + "</table></div>\n<p>Instructions a page, by the share of pages that the receiver writes to; \
           bold is the cheapest way.</p>\n</section>\n"
}

fn table(rows: &[Row]) -> String {
    let mut table =
        "<section>\n<h2>All operations</h2>\n<div class=\"scroll\"><table>\n<tr><th>operation</th>\
                     <th>Cowslip</th><th>seL4</th><th>Linux</th><th>ratio</th><th>goal</th></tr>\n"
            .to_owned();
    let or_dash = |value: Option<u64>| value.map_or("–".into(), |value| grouped(value as f64));
    for row in rows {
        let name = escaped(&row.name);
        let unit = if row.unit == "instructions" {
            ""
        } else {
            &row.unit
        };
        let note = row
            .note
            .as_deref()
            .map(|note| format!("<small>{}</small>", escaped(note)));
        let class = match row.met() {
            Some(true) => " class=\"met\"",
            Some(false) => " class=\"missed\"",
            None => "",
        };
        table += &format!(
            "<tr><td>{name}{}</td><td{class}>{} {unit}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            note.unwrap_or_default(),
            shown(row.value, &row.unit),
            or_dash(row.sel4),
            or_dash(row.linux),
            row.ratio().map_or("–".into(), ratio),
            row.goal.map_or("–".into(), |goal| shown(goal, &row.unit)),
        );
    }
    table + "</table></div>\n</section>\n"
}

fn provenance(peer: &Peer) -> String {
    let [label, version, counted] = [&peer.label, &peer.version, &peer.counted].map(|s| escaped(s));
    format!("<li><b>{label}</b> {version}; {counted}.</li>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::reading::Reading;
    use crate::bench::rows::rows;

    #[test]
    fn the_page_needs_nothing_else() {
        let reference = Reference::read().unwrap();
        let readings = [
            Reading::once("fork_call/0", 1),
            Reading::once("fork_call/1", 2),
        ];
        let page = page(&rows(&readings, &reference), &reference).unwrap();
        for foreign in ["src=", "href=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert_eq!(page.matches("<svg").count(), 1);
        assert!(page.contains("fork_call/1") && page.contains("prefers-color-scheme: dark"));
    }
}
