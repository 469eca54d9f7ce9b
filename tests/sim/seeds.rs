//! Which histories are lived: fixed ones, new ones in every run, on all processors. Knows nothing
//! of what is in them.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::world::World;

/// Fixed histories in one run of the tests, and as many new ones.
pub const FIXED: u64 = 2_000;
/// New ones begin anywhere above the fixed ones, and their numbers stay short enough to be typed.
const NEW_ABOVE: u64 = 1_000_000;
const NEW_BELOW: u64 = 1_000_000_000;

/// Of all histories together.
#[derive(Debug, Default)]
pub struct Tally {
    pub histories: u64,
    pub steps: u64,
    pub seen: BTreeSet<&'static str>,
}

/// As `SIM_SEEDS` says; without it the fixed ones, and as many that no run had before.
pub fn chosen() -> Vec<u64> {
    if let Some(count) = number_from("SIM_SEEDS") {
        return (0..count).collect();
    }
    let first = NEW_ABOVE + getrandom::u64().unwrap() % (NEW_BELOW - NEW_ABOVE);
    (0..FIXED).chain(first..first + FIXED).collect()
}

/// Lives them all, or ends at the first that fails and says how to see it again.
pub fn live_all(seeds: &[u64]) -> Tally {
    let next = Mutex::new(seeds.iter().copied());
    let (tally, failed) = (Mutex::new(Tally::default()), Mutex::new(None));
    let work = || {
        while failed.lock().unwrap().is_none() {
            let Some(seed) = next.lock().unwrap().next() else { return };
            let mut world = World::new(seed);
            // It is of no use after a panic, and nobody uses it.
            if catch_unwind(AssertUnwindSafe(|| world.live())).is_err() {
                failed.lock().unwrap().get_or_insert(seed);
                return;
            }
            let mut tally = tally.lock().unwrap();
            tally.histories += 1;
            tally.steps += world.steps;
            tally.seen.extend(world.seen());
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    if let Some(seed) = failed.into_inner().unwrap() {
        panic!(
            "history {seed} fails; this prints it:\n    \
             SIM_SEED={seed} cargo test --test sim -- --nocapture"
        );
    }
    let tally = tally.into_inner().unwrap();
    println!("{} histories, {} steps", tally.histories, tally.steps);
    tally
}

pub fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}
