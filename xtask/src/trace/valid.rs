//! What makes a trace one that viewers take, by the rules of the format: looked at when tests have made one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A process and a thread.
type Track = (u64, u64);

/// The first thing that is wrong with a trace, if there is one.
pub(crate) fn flaw(trace: &Value) -> Option<String> {
    let Some(events) = trace["traceEvents"].as_array() else {
        return Some("there are no events".into());
    };
    let mut looker = Looker::default();
    let of_events = events.iter().find_map(|event| {
        let flaw = looker.look(event).err()?;
        Some(format!("{flaw}: {event}"))
    });
    of_events.or_else(|| looker.end().err())
}

#[derive(Default)]
struct Looker {
    last_ns: u64,
    /// Processes and threads that have names.
    processes: BTreeSet<u64>,
    threads: BTreeMap<u64, u64>,
    /// Where something happens.
    used: BTreeSet<Track>,
    /// Slices: begin and end.
    slices: BTreeMap<Track, Vec<(u64, u64)>>,
    /// Arrows that have begun.
    arrows: BTreeSet<u64>,
    /// The ends of arrows, each to be in a slice.
    ends: Vec<(Track, u64)>,
}

impl Looker {
    fn look(&mut self, event: &Value) -> Result<(), &'static str> {
        let number = |key: &str| event[key].as_u64().filter(|&number| number > 0);
        let pid = number("pid").ok_or("no process")?;
        let tid = number("tid").ok_or("no thread")?;
        let name = event["name"].as_str().ok_or("no name")?;
        let phase = event["ph"].as_str().ok_or("no phase")?;
        if phase == "M" {
            return self.name(name, pid, tid);
        }
        let at_ns = ns(&event["ts"]).ok_or("no time")?;
        if at_ns < self.last_ns {
            return Err("earlier than the one before");
        }
        self.last_ns = at_ns;
        self.used.insert((pid, tid));
        match phase {
            "X" => {
                let len_ns = ns(&event["dur"]).ok_or("no duration")?;
                let slices = self.slices.entry((pid, tid)).or_default();
                slices.push((at_ns, at_ns + len_ns));
            }
            "i" => {}
            "s" | "f" => {
                let id = event["id"].as_u64().ok_or("an arrow without a number")?;
                let is_known = if phase == "s" {
                    !self.arrows.insert(id)
                } else {
                    !self.arrows.remove(&id)
                };
                if is_known {
                    return Err("an arrow without another end");
                }
                self.ends.push(((pid, tid), at_ns));
            }
            _ => return Err("an unknown phase"),
        }
        Ok(())
    }

    fn name(&mut self, name: &str, pid: u64, tid: u64) -> Result<(), &'static str> {
        match name {
            "process_name" => {
                self.processes.insert(pid);
            }
            "thread_name" if self.threads.insert(tid, pid).is_some() => {
                return Err("a thread that is named twice");
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        for (pid, tid) in &self.used {
            if !self.processes.contains(pid) || self.threads.get(tid) != Some(pid) {
                return Err(format!("nobody has said who {pid}/{tid} is"));
            }
        }
        if let Some(id) = self.arrows.first() {
            return Err(format!("the arrow {id} does not end"));
        }
        for (track, slices) in &mut self.slices {
            // Of those that begin together the longest is outside.
            slices.sort_by_key(|&(begin, end)| (begin, std::cmp::Reverse(end)));
            let mut around: Vec<u64> = Vec::new();
            for &(begin, end) in &*slices {
                while around.last().is_some_and(|&outer| outer <= begin) {
                    around.pop();
                }
                if around.last().is_some_and(|&outer| outer < end) {
                    return Err(format!(
                        "the slice of {track:?} at {begin} ns crosses another"
                    ));
                }
                around.push(end);
            }
        }
        for (track, at) in &self.ends {
            let slices = self.slices.get(track).map_or(&[][..], |slices| slices);
            if !slices
                .iter()
                .any(|(begin, end)| (begin..=end).contains(&at))
            {
                return Err(format!("an arrow at {at} ns is in no slice of {track:?}"));
            }
        }
        Ok(())
    }
}

/// Nanoseconds, of microseconds that are not negative.
fn ns(us: &Value) -> Option<u64> {
    let us = us.as_f64().filter(|us| us.is_finite() && *us >= 0.0)?;
    Some((us * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flaw_of(events: &[Value]) -> Option<String> {
        let mut all = vec![
            json!({ "ph": "M", "name": "process_name", "pid": 1, "tid": 2 }),
            json!({ "ph": "M", "name": "thread_name", "pid": 1, "tid": 2 }),
        ];
        all.extend_from_slice(events);
        flaw(&json!({ "traceEvents": all }))
    }

    fn slice(ts: f64, dur: f64) -> Value {
        json!({ "ph": "X", "name": "x", "pid": 1, "tid": 2, "ts": ts, "dur": dur })
    }

    fn arrow(ph: &str, ts: f64) -> Value {
        json!({ "ph": ph, "name": "x", "pid": 1, "tid": 2, "ts": ts, "id": 7 })
    }

    #[test]
    fn slices_may_touch_and_nest() {
        assert_eq!(
            flaw_of(&[slice(1.0, 2.0), slice(1.5, 0.5), slice(3.0, 1.0)]),
            None
        );
        assert_eq!(
            flaw_of(&[slice(1.0, 0.0), slice(1.0, 1.0), slice(2.0, 0.0)]),
            None
        );
    }

    #[test]
    fn each_rule_is_enforced() {
        let said = |events: &[Value]| flaw_of(events).unwrap_or_default();
        assert!(said(&[slice(1.0, 2.0), slice(2.0, 2.0)]).contains("crosses"));
        assert!(said(&[slice(2.0, 2.0), slice(1.0, 2.0)]).contains("earlier"));
        assert!(said(&[slice(1.0, -1.0)]).contains("duration"));
        assert!(said(&[slice(1.0, 2.0), arrow("f", 1.0)]).contains("another end"));
        assert!(said(&[slice(1.0, 2.0), arrow("s", 1.0)]).contains("does not end"));
        assert!(said(&[slice(1.0, 2.0), arrow("s", 1.0), arrow("f", 9.0)]).contains("no slice"));
        let stranger = json!({ "ph": "i", "name": "x", "pid": 1, "tid": 3, "ts": 1 });
        assert!(said(&[stranger]).contains("who 1/3 is"));
        assert!(flaw(&json!({})).is_some());
    }
}
