//! When a service that ended is started again: pure arithmetic over its past.

use std::time::Duration;

use super::node::{Instance, Wanted};
use super::phase::{Ended, Ending, GiveUpReason};
use super::rng::Rng;
use crate::plan::{Readiness, RestartPolicy, RestartRules};
use crate::units::{ExitStatus, Signal, Tick};

/// A run without a readiness signal of its own has shown that it works when it lived this long.
pub(super) const PROVED_AFTER: Duration = Duration::from_secs(1);

/// What follows the end of a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    Rest,
    /// Somebody asked for it: no delay, and it does not count.
    Restart,
    /// A restart nobody is to blame for: no delay, counted for the operator only.
    AtOnce,
    /// A restart that counts towards the limit.
    After {
        delay: Duration,
        attempt: u32,
    },
    GiveUp(GiveUpReason),
}

/// Decides, and keeps the books (`attempt`, `recent`).
pub(super) fn after(instance: &mut Instance, ended: &Ended, now: Tick, rng: &mut Rng) -> Next {
    match instance.wanted {
        Wanted::Down => return Next::Rest,
        Wanted::Restart => return Next::Restart,
        Wanted::Up => {}
    }
    match (instance.rules.restart.policy, ended.is_success()) {
        (RestartPolicy::Never | RestartPolicy::OnFailure, true) => return Next::Rest,
        (RestartPolicy::Never, false) => {
            return Next::GiveUp(GiveUpReason::NotRestarted { last: ended.clone() });
        }
        (RestartPolicy::Always, _) | (RestartPolicy::OnFailure, false) => {}
    }
    if ended.ready_for.is_some_and(|time| time >= instance.rules.restart.stable_after) {
        instance.attempt = 0;
    }
    if was_killed_from_outside(instance.rules.readiness, ended) {
        return Next::AtOnce;
    }
    counted(instance, ended, now, rng)
}

/// A run that had shown it works and was ended by a signal that only others send: an operator's
/// `kill`, or the kernel when the run has used up its processor time (SIGXCPU); not a crash. (The
/// kernel's own SIGKILL for want of memory is no such case.)
fn was_killed_from_outside(readiness: Readiness, ended: &Ended) -> bool {
    let proved = match readiness {
        Readiness::Started => ended.ready_for.is_some_and(|time| time >= PROVED_AFTER),
        Readiness::Notify | Readiness::Grpc | Readiness::Port(_) => ended.ready_for.is_some(),
    };
    let Ending::Exited(facts) = ended.how else { return false };
    let sent_by_others = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP, Signal::XCPU];
    let signalled = match facts.status {
        ExitStatus::Signal { number, .. } => sent_by_others.contains(&number),
        ExitStatus::Code(_) | ExitStatus::Unseen => false,
    };
    proved && signalled && facts.oom_kills == 0 && ended.asked.is_none()
}

fn counted(instance: &mut Instance, ended: &Ended, now: Tick, rng: &mut Rng) -> Next {
    let rules = &instance.rules.restart;
    let horizon = now - rules.window;
    while instance.recent.front().is_some_and(|at| *at <= horizon && now.0 >= rules.window) {
        instance.recent.pop_front();
    }
    let restarts = u32::try_from(instance.recent.len()).unwrap_or(u32::MAX);
    if restarts >= rules.max_restarts {
        let reason =
            GiveUpReason::TooManyRestarts { restarts, window: rules.window, last: ended.clone() };
        return Next::GiveUp(reason);
    }
    let delay = backoff(rules, instance.attempt, rng);
    instance.recent.push_back(now);
    instance.attempt = instance.attempt.saturating_add(1);
    Next::After { delay, attempt: instance.attempt }
}

/// The first restart is immediate; the n-th after it waits `initial * 2^(n-1)`, at most `max`,
/// plus up to a quarter of that by rng, so that services that fell together do not rise
/// together.
fn backoff(rules: &RestartRules, attempt: u32, rng: &mut Rng) -> Duration {
    let Some(doublings) = attempt.checked_sub(1) else { return Duration::ZERO };
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    let base = rules.backoff_initial.saturating_mul(factor).min(rules.backoff_max);
    let quarter = u64::try_from(base.as_micros() / 4).unwrap_or(u64::MAX);
    base + Duration::from_micros(rng.below(quarter.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{SpawnFailure, samples};
    use crate::plan::LimitLayers;
    use crate::units::RunId;

    fn rules() -> RestartRules {
        samples::rules(&[]).restart
    }

    #[test]
    fn the_first_restart_is_immediate_and_each_further_one_waits_twice_as_long() {
        let mut rng = Rng::seeded(7);
        assert_eq!(backoff(&rules(), 0, &mut rng), Duration::ZERO);
        for (attempt, base) in [(1, 1), (2, 2), (3, 4), (4, 8), (6, 32), (7, 60), (40, 60)] {
            let base = Duration::from_secs(base);
            for _ in 0..200 {
                let delay = backoff(&rules(), attempt, &mut rng);
                assert!(delay >= base && delay <= base + base / 4, "{attempt}: {delay:?}");
            }
        }
    }

    #[test]
    fn delays_of_equal_services_differ() {
        let mut rng = Rng::seeded(1);
        let delays: std::collections::BTreeSet<_> =
            (0..100).map(|_| backoff(&rules(), 1, &mut rng)).collect();
        assert!(delays.len() > 90);
        assert!(delays.last() > Some(&Duration::from_millis(1_220)), "nearly a quarter more");
    }

    #[test]
    fn a_restart_counts_as_long_as_its_window_and_no_longer() {
        let window = rules().window;
        for began in [Tick::ZERO, Tick::from_millis(77)] {
            let next = |since: Duration| {
                let mut rules = samples::rules(&[]);
                rules.restart.max_restarts = 1;
                let mut instance = Instance::new(rules, LimitLayers::default());
                instance.recent = [began].into();
                let how = Ending::NeverStarted(SpawnFailure(String::new()));
                let (run, lasted) = (RunId::FIRST, Duration::ZERO);
                let (pid, asked, ready_for) = (None, None, None);
                let ended = Ended { run, pid, at: began, how, asked, lasted, ready_for };
                after(&mut instance, &ended, began + since, &mut Rng::seeded(1))
            };
            assert!(matches!(next(window - Duration::from_nanos(1)), Next::GiveUp(_)));
            assert!(matches!(next(window), Next::After { attempt: 1, .. }));
        }
    }
}
