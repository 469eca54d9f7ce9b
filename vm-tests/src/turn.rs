//! How many machines run at the same time in one test program. Each takes a processor if it can,
//! and waits for its own time to pass now and then, which leaves that to the others.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// `BLACKHOLE_VM_MACHINES` says otherwise.
const MACHINES: usize = 3;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ONE_LESS: Condvar = Condvar::new();

/// The right to run a machine, until it is dropped.
#[derive(Debug)]
pub struct Turn(());

impl Turn {
    /// Waits until there is one.
    pub fn take() -> Self {
        let most = std::env::var("BLACKHOLE_VM_MACHINES").ok().and_then(|text| text.parse().ok());
        let most = most.unwrap_or(MACHINES).max(1);
        let mut running = running();
        while *running >= most {
            running = ONE_LESS.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        *running += 1;
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *running() -= 1;
        ONE_LESS.notify_one();
    }
}

fn running() -> MutexGuard<'static, usize> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
