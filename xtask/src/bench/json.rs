//! The figures for programs to read.

use serde_json::{Value, json};

use super::reference::{Peer, Reference};
use super::rows::Row;
use super::table::EXPLANATION;

/// All rows, and what they are.
pub(super) fn json(rows: &[Row], reference: &Reference) -> String {
    let about = |peer: &Peer| json!({ "version": peer.version, "counted": peer.counted });
    let peers = &reference.peers;
    let document = json!({
        "about": EXPLANATION,
        "peers": { "sel4": about(&peers.sel4), "linux": about(&peers.linux) },
        "operations": rows.iter().map(operation).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

fn operation(row: &Row) -> Value {
    json!({
        "name": row.name,
        "value": row.value,
        "unit": row.unit,
        "peers": { "sel4": row.sel4, "linux": row.linux },
        "ratio": row.ratio(),
        "goal": row.goal,
        "met": row.met(),
        "note": row.note,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::reading::Reading;
    use crate::bench::rows::rows;

    #[test]
    fn operations_carry_their_peers() {
        let reference = Reference::read().unwrap();
        let rows = rows(&[Reading::once("unmap", 200)], &reference);
        let document: Value = serde_json::from_str(&json(&rows, &reference)).unwrap();
        let unmap = &document["operations"][0];
        assert_eq!(unmap["name"], "unmap");
        assert_eq!(unmap["value"], 200.0);
        assert_eq!(unmap["unit"], "instructions");
        assert_eq!(unmap["peers"]["sel4"], 606);
        assert_eq!(
            (&unmap["goal"], &unmap["met"]),
            (&json!(250.0), &json!(true))
        );
    }
}
