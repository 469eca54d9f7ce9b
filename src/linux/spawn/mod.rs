//! Starting a program as a child process that is in its group from its first instant.
//!
//! `launch` is what is wanted, `child_setup` prepares all, `clone` makes the process, `child`
//! runs in it until exec, `report` tells the parent how that went. Knows nothing of services.

mod child;
mod child_setup;
mod clone;
mod confine;
#[cfg(test)]
mod confine_tests;
mod errno;
mod launch;
mod method;
mod report;
mod signal_mask;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use self::child_setup::ChildSetup;
pub use self::launch::{Launch, Limit, Program, Resource};
pub use self::method::SpawnMethod;
use self::report::Subjects;
pub use self::report::{ExecFailure, ExecOutcome, ExecReport, Stage};
use super::error::Error;
use super::pidfd::Pidfd;
use crate::units::Pid;

/// A process that was just made.
#[derive(Debug)]
pub struct Child {
    pub pid: Pid,
    pub pidfd: Pidfd,
    /// Whether the program was executed, known a little later.
    pub exec: ExecReport,
}

/// Whether this kernel, or the sandbox around us, has refused `clone3` before.
static CLONE3_REFUSED: AtomicBool = AtomicBool::new(false);

/// Makes a process that executes the program. An error means that there is no process; a process
/// that could not execute says so through `Child::exec` and ends with code 127.
///
/// Through `clone3` we wait until the program is executed, which in a frozen group would be until
/// somebody thaws it: there the other method is used.
pub fn spawn(launch: &Launch<'_>) -> Result<Child, Error> {
    let frozen = launch.group.is_some_and(|group| group.frozen().unwrap_or(false));
    if !frozen && !CLONE3_REFUSED.load(Ordering::Relaxed) {
        match spawn_with(SpawnMethod::Clone3, launch) {
            Err(Error::Clone { reason, .. }) if is_clone3_refused(&reason) => {
                CLONE3_REFUSED.store(true, Ordering::Relaxed);
            }
            outcome => return outcome,
        }
    }
    spawn_with(SpawnMethod::CloneThenJoin, launch)
}

/// `spawn` by this method only.
pub fn spawn_with(method: SpawnMethod, launch: &Launch<'_>) -> Result<Child, Error> {
    let (mut setup, report) = ChildSetup::prepare(method, launch)?;
    let (pid, pidfd) = clone::clone(method, launch.group, &mut setup).map_err(|reason| {
        let program = launch.program_name();
        Error::Clone { program, method, reason }
    })?;
    drop(setup);
    Ok(Child { pid, pidfd, exec: ExecReport::new(report, Subjects::of(launch)) })
}

/// Whether `clone3` itself was refused, rather than this one process.
fn is_clone3_refused(reason: &io::Error) -> bool {
    let errno = Errno::from_io_error(reason);
    // No such call; not in this sandbox; flag or structure unknown to Linux 5.3 to 5.6.
    [Errno::NOSYS, Errno::PERM, Errno::TOOBIG, Errno::INVAL].map(Some).contains(&errno)
}
