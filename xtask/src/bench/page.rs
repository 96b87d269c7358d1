//! The page with plots: one file that needs nothing else, readable in light and dark.

use std::fmt::Write;

use anyhow::Result;

use super::plot::{self, SUBJECTS};
use super::reference::{Peer, Reference};
use super::rows::Row;
use super::table::{EXPLANATION, grouped, ratio};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c1f23; --paper: #fdfcf8; --faint: #1c1f2322; --good: #2a7d46; --bad: #b3402f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e4de; --paper: #17191c; --faint: #e6e4de26; --good: #6cc58a; --bad: #ef8a78; }
}
body { color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-weight: 600; } h2 { font-weight: 600; margin-top: 2.5rem; }
figure { margin: 0; } svg { width: 100%; height: auto; color: var(--ink); }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; }
.legend span { display: inline-block; width: 1.6rem; margin-right: .5rem; vertical-align: middle;
  border-top: 3px solid; }
.legend .peer span { border-top-style: dashed; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--faint); }
th:first-child, td:first-child { text-align: left; }
td small { display: block; opacity: .7; max-width: 24rem; }
.met { color: var(--good); } .missed { color: var(--bad); }
";

/// The page.
pub(super) fn page(rows: &[Row], reference: &Reference) -> Result<String> {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Cowslip: what operations cost</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Cowslip: what operations cost</h1>\n<p>{}</p>\n",
        escaped(EXPLANATION)
    );
    page += "<p>Dots are measured; the lines between them assume a cost that grows evenly. \
             Dashed lines are other systems'.</p>\n";
    for subject in &SUBJECTS {
        let lines = plot::lines(subject, rows, reference);
        if !lines.iter().any(plot::Line::is_own) {
            continue;
        }
        let title = escaped(subject.title);
        write!(
            page,
            "<h2>{title}</h2>\n<figure role=\"img\" aria-label=\"{title}\">\n"
        )?;
        page += &plot::svg(subject, &lines)?;
        page += "<ul class=\"legend\">\n";
        for (nth, line) in lines.iter().enumerate() {
            let class = if line.is_own() { "own" } else { "peer" };
            let (colour, label) = (plot::colour(nth), escaped(&line.label));
            writeln!(
                page,
                "<li class=\"{class}\"><span style=\"border-color:{colour}\"></span>{label}</li>"
            )?;
        }
        page += "</ul>\n</figure>\n";
    }
    page += &table(rows);
    page += "<h2>Where the other figures come from</h2>\n<ul>\n";
    for peer in [&reference.peers.sel4, &reference.peers.linux] {
        page += &provenance(peer);
    }
    page += "</ul>\n</body>\n</html>\n";
    Ok(page)
}

fn table(rows: &[Row]) -> String {
    let mut table =
        "<h2>All operations</h2>\n<div class=\"scroll\"><table>\n<tr><th>operation</th>\
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
            grouped(row.value),
            or_dash(row.sel4),
            or_dash(row.linux),
            row.ratio().map_or("–".into(), ratio),
            or_dash(row.goal),
        );
    }
    table + "</table></div>\n"
}

fn provenance(peer: &Peer) -> String {
    let [label, version, counted] = [&peer.label, &peer.version, &peer.counted].map(|s| escaped(s));
    format!("<li><b>{label}</b> {version}; {counted}.</li>\n")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
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

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("a<b & \"c\""), "a&lt;b &amp; &quot;c&quot;");
    }
}
