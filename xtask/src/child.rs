//! Processes that may take only so long.

use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How often something that runs is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Waits for the end of a process, at most for so long. `None`: it is still running.
pub(crate) fn wait_within(
    child: &mut Child,
    limit: Option<Duration>,
) -> Result<Option<ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if limit.is_some_and(|limit| begin.elapsed() >= limit) {
            return Ok(None);
        }
        thread::sleep(TICK);
    }
}

/// The same, and ends the process if it is still running then.
pub(crate) fn end_within(child: &mut Child, limit: Option<Duration>) -> Result<Option<ExitStatus>> {
    let status = wait_within(child, limit)?;
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn cat() -> Child {
        let mut cat = Command::new("cat");
        cat.stdin(Stdio::piped()).spawn().expect("cat")
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        let mut cat = cat();
        let wait = wait_within(&mut cat, Some(Duration::ZERO));
        assert!(wait.expect("it is there").is_none());
        assert!(cat.try_wait().expect("status").is_none(), "it is not ended");
        let end = end_within(&mut cat, Some(Duration::ZERO));
        assert!(end.expect("it can be ended").is_none());
        assert!(cat.try_wait().expect("status").is_some());
    }

    #[test]
    fn the_end_is_waited_for() {
        let mut cat = cat();
        drop(cat.stdin.take());
        let status = end_within(&mut cat, None).expect("it ends");
        assert!(status.is_some_and(|status| status.success()));
    }
}
