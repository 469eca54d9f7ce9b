//! How many machines run at the same time in one test program: as many as there are processors, for
//! two on one take longer than one after the other; and one more, up to twice as many, whenever
//! those leave a processor idle, because they wait for their own time to pass.

use std::fs;
use std::num::NonZero;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// How long a processor has to be idle until one more machine takes it.
const LOOK: Duration = Duration::from_secs(1);

/// The share of one processor, over that time, from which it counts as idle.
const IDLE: f64 = 0.25;

/// In which /proc/stat counts, a second (proc_stat(5)).
const TICKS: f64 = 100.0;

static STATE: Mutex<State> = Mutex::new(State { running: 0, looked: None });
static ONE_LESS: Condvar = Condvar::new();

#[derive(Debug)]
struct State {
    running: usize,
    /// When, and how long all processors had been idle by then, in seconds of one.
    looked: Option<(Instant, f64)>,
}

/// The right to run a machine, until it is dropped.
#[derive(Debug)]
pub struct Turn(());

impl Turn {
    /// Waits until there is one.
    pub fn take() -> Self {
        let (always, most) = limits();
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        while state.running >= always && !(state.running < most && state.is_idle()) {
            let waited = ONE_LESS.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.running += 1;
        state.looked = None;
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        STATE.lock().unwrap_or_else(PoisonError::into_inner).running -= 1;
        ONE_LESS.notify_one();
    }
}

/// How many may run in any case, and at most. `BLACKHOLE_VM_MACHINES` says it for both.
fn limits() -> (usize, usize) {
    let said = std::env::var("BLACKHOLE_VM_MACHINES").ok().and_then(|text| text.parse().ok());
    let processors = available_parallelism().map_or(1, NonZero::get);
    said.map_or((processors, 2 * processors), |said: usize| (said.max(1), said.max(1)))
}

impl State {
    /// Whether a processor was idle since somebody looked first, which was `LOOK` ago or longer.
    fn is_idle(&mut self) -> bool {
        let Some(idle) = idle_so_far() else { return false };
        let (since, before) = *self.looked.get_or_insert((Instant::now(), idle));
        let past = since.elapsed();
        if past < LOOK {
            return false;
        }
        self.looked = None;
        (idle - before) / past.as_secs_f64() > IDLE
    }
}

/// By all processors, in seconds of one: the fourth number of the first line.
fn idle_so_far() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let ticks: f64 = stat.lines().next()?.split_whitespace().nth(4)?.parse().ok()?;
    Some(ticks / TICKS)
}
