//! What bench programs print, as values.

use anyhow::{Context, Result};

/// A figure: what an operation took in each of some rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) name: String,
    pub(super) median: u64,
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) rounds: u64,
}

impl Reading {
    /// A figure that was taken once.
    pub(super) fn once(name: &str, value: u64) -> Reading {
        Reading {
            name: name.to_owned(),
            median: value,
            min: value,
            max: value,
            rounds: 1,
        }
    }
}

/// The readings in a machine's output:
///
/// ```text
/// bench NAME median MEDIAN min MIN max MAX rounds ROUNDS
/// init began at TICKS ticks
/// sh began at TICKS ticks
/// ```
///
/// Boot times are readings only where the shell tells its own.
pub(super) fn readings(output: &str) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    let (mut init, mut shell) = (None, None);
    for line in output.lines().map(str::trim) {
        let parsed = match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
            ["bench", name, ..] => benchmark(name, line).map(|reading| readings.push(reading)),
            ["init", "began", "at", ticks, "ticks"] => number(ticks).map(|n| init = Some(n)),
            ["sh", "began", "at", ticks, "ticks"] => number(ticks).map(|n| shell = Some(n)),
            _ => Some(()),
        };
        parsed.with_context(|| format!("not understood: `{line}`"))?;
    }
    if let Some(shell) = shell {
        readings.extend(init.map(|ticks| Reading::once("boot_to_init", ticks)));
        readings.push(Reading::once("boot_to_shell", shell));
    }
    Ok(readings)
}

fn benchmark(name: &str, line: &str) -> Option<Reading> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let of = |key: &str| {
        let at = words.iter().position(|&word| word == key)?;
        number(words.get(at + 1)?)
    };
    Some(Reading {
        name: name.to_owned(),
        median: of("median")?,
        min: of("min")?,
        max: of("max")?,
        rounds: of("rounds")?,
    })
}

fn number(word: &str) -> Option<u64> {
    word.parse().ok()
}

/// Checks that two runs have the same readings; the error lists those that differ.
pub(super) fn agree(first: &[Reading], second: &[Reading]) -> Result<(), String> {
    if first == second {
        return Ok(());
    }
    let mut differences = String::new();
    for a in first {
        match second.iter().find(|b| b.name == a.name) {
            Some(b) if a == b => {}
            Some(b) => differences += &format!("{}\n{}\n", shown(a), shown(b)),
            None => differences += &format!("{}, once only\n", shown(a)),
        }
    }
    let only_second = |b: &&Reading| first.iter().all(|a| a.name != b.name);
    for b in second.iter().filter(only_second) {
        differences += &format!("{}, once only\n", shown(b));
    }
    Err(differences)
}

fn shown(reading: &Reading) -> String {
    let Reading {
        name,
        median,
        min,
        max,
        rounds,
    } = reading;
    format!("  {name}: median {median}, {min} to {max} in {rounds} rounds")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "bench ipc_rtt/0w median 187 min 180 max 4178 rounds 200\n";

    #[test]
    fn lines_are_read() {
        let read = readings(&format!("starting\n{LINE}done\n")).unwrap();
        let expected = Reading {
            name: "ipc_rtt/0w".into(),
            median: 187,
            min: 180,
            max: 4178,
            rounds: 200,
        };
        assert_eq!(read, [expected]);
        assert!(readings("bench x median 1 min\n").is_err());
        assert!(readings("bench x median y min 1 max 1 rounds 1\n").is_err());
    }

    #[test]
    fn boot_is_told_by_the_shell() {
        let read = readings("init began at 17 ticks\nsh began at 30 ticks\n").unwrap();
        let expected = [
            Reading::once("boot_to_init", 17),
            Reading::once("boot_to_shell", 30),
        ];
        assert_eq!(read, expected);
        assert_eq!(readings("init began at 17 ticks\n").unwrap(), []);
    }

    #[test]
    fn runs_must_agree() {
        let (a, b) = (Reading::once("a", 1), Reading::once("b", 2));
        let later = Reading::once("b", 3);
        assert!(agree(&[a.clone(), b.clone()], &[a.clone(), b.clone()]).is_ok());
        let text = agree(&[a.clone(), b.clone()], &[a.clone(), later]).unwrap_err();
        assert!(text.contains("b: median 2") && text.contains("b: median 3"));
        assert!(!text.contains("a: "));
        let longer = [a.clone(), b];
        assert!(agree(&[a], &longer).unwrap_err().contains("once"));
    }
}
