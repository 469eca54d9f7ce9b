//! The core under seeded histories: processes that crash, hang, leave children behind, refuse to
//! start; operators that start, stop and restart; news that comes late, doubled or never. First
//! safety with faults, then the faults end and everything must come up, and stop, in bounded time.
//! `sim/oracle.rs` reckons beside the node what it is to do, and each of its steps is compared.
//!
//! `SIM_SEED=17 cargo test --test sim -- --nocapture` replays one history and prints it;
//! `SIM_SEEDS=100000` runs more of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "sim/limits.rs"]
mod limits;
#[path = "sim/oracle.rs"]
mod oracle;
#[path = "sim/oracle_ends.rs"]
mod oracle_ends;
#[path = "sim/oracle_events.rs"]
mod oracle_events;
#[path = "sim/oracle_verdict.rs"]
mod oracle_verdict;
#[path = "sim/processes.rs"]
mod processes;
#[path = "sim/samples.rs"]
mod samples;
#[path = "sim/scenarios.rs"]
mod scenarios;
#[path = "sim/succession.rs"]
mod succession;
#[path = "sim/trouble.rs"]
mod trouble;
#[path = "sim/words.rs"]
mod words;
#[path = "sim/world.rs"]
mod world;

use std::collections::BTreeSet;

use world::World;

/// Histories in one run of the tests, when `SIM_SEEDS` says nothing else.
const SEEDS: u64 = 2_000;

#[test]
fn every_history_is_safe_under_faults_and_alive_after_them() {
    if let Some(seed) = number_from("SIM_SEED") {
        World::new(seed).loud().live();
        return;
    }
    let seeds = number_from("SIM_SEEDS").unwrap_or(SEEDS);
    let mut seen = BTreeSet::new();
    let mut steps = 0;
    for seed in 0..seeds {
        let mut world = World::new(seed);
        world.live();
        steps += world.steps;
        seen.extend(world.seen());
    }
    println!("{seeds} histories, {steps} steps, {} kinds of remark seen", seen.len());
    let never: Vec<_> = words::REMARKS.iter().filter(|kind| !seen.contains(**kind)).collect();
    assert!(never.is_empty(), "no history ever led to: {never:?}");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..50 {
        let (mut one, mut other) = (World::new(seed).kept(), World::new(seed).kept());
        one.live();
        other.live();
        assert_eq!(one.log(), other.log(), "seed {seed}");
    }
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}
