//! How often a server may die before it is given up.

/// The most deaths of one server in [`WINDOW_NS`] after which it starts again.
const MAX_RESTARTS: usize = 10;

/// How long a death counts, in nanoseconds.
const WINDOW_NS: u64 = 10_000_000_000;

/// When a server died, as far as that counts.
#[derive(Debug, Default)]
pub struct Restarts {
    times_ns: heapless::Vec<u64, MAX_RESTARTS>,
}

impl Restarts {
    /// Whether a server that has died at this time may start again.
    pub fn may_start(&mut self, now_ns: u64) -> bool {
        self.times_ns
            .retain(|&time_ns| now_ns.saturating_sub(time_ns) < WINDOW_NS);
        self.times_ns.push(now_ns).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_dies_too_often_is_given_up() {
        let mut restarts = Restarts::default();
        let mut deaths = (0..).map(|nr| restarts.may_start(nr));
        assert!(
            deaths
                .by_ref()
                .take(MAX_RESTARTS)
                .all(|may_start| may_start)
        );
        assert_eq!(deaths.next(), Some(false));
    }

    #[test]
    fn deaths_long_ago_do_not_count() {
        let mut restarts = Restarts::default();
        for nr in 0..100 {
            assert!(restarts.may_start(nr * WINDOW_NS / MAX_RESTARTS as u64));
        }
    }
}
