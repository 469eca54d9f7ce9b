//! The pauses after failed waits, which grow so that a wait that fails at once costs no processor
//! time, and the warnings about the first failures. Knows nothing of what is waited for.

use std::time::Duration;

/// The first pause. Each next one is twice as long, up to `LONGEST`.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// How many failures in a row are reported with a warning.
const WARNINGS: u32 = 3;

/// The failures of one wait since its last success.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) pause: Duration,
    pub(super) report: Report,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    Warn,
    /// It was reported often enough.
    Nothing,
}

impl Retry {
    pub(super) fn failed(&mut self) -> Failed {
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let pause = FIRST.saturating_mul(doubled).min(LONGEST);
        let report = if self.failures < WARNINGS { Report::Warn } else { Report::Nothing };
        self.failures = self.failures.saturating_add(1);
        Failed { pause, report }
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_warnings_end() {
        let mut retry = Retry::default();
        let all: Vec<Failed> = (0..100).map(|_| retry.failed()).collect();
        let millis: Vec<u128> = all.iter().take(8).map(|one| one.pause.as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert!(all.iter().skip(6).all(|one| one.pause == LONGEST));
        let warned = all.iter().take_while(|one| one.report == Report::Warn).count();
        assert_eq!(warned, 3);
        assert!(all.iter().skip(3).all(|one| one.report == Report::Nothing));
        retry.succeeded();
        assert_eq!(retry.failed(), Failed { pause: FIRST, report: Report::Warn });
    }
}
