//! `ExecStopPost=` of the unit: what is to be done after the orchestrator has ended under a service
//! manager, beside the services, which outlive it (`KillMode=process`). After a wanted stop every
//! service is ended; after a crash they go on, to be adopted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::boot::LOCK;
use super::host::{CONTROLLERS, SERVICES};
use super::runtime_flags::RuntimeFlag;
use crate::act::{ActError, Spared, sweep};
use crate::linux::cgroupfs::{Group, Hierarchy};
use crate::linux::process::PidLock;

/// The exit status in the unit's `RestartPreventExitStatus=`: no orchestrator is started after it.
const WRONG_CONFIGURATION: &str = "78";
/// The group in which systemd runs control commands of a delegated unit.
const CONTROL: &str = ".control";

#[derive(Debug, thiserror::Error)]
pub enum AfterStopError {
    #[error(
        "after-stop is for the unit's ExecStopPost=: SERVICE_RESULT is not set, so no service \
         manager has started this"
    )]
    NotAsked,
    #[error("cannot tell which node has ended: neither --runtime-dir nor RUNTIME_DIRECTORY is set")]
    WhichNode,
    #[error("cannot begin: {0}")]
    Runtime(std::io::Error),
    #[error("{0}")]
    Linux(#[from] crate::linux::Error),
    #[error("{0}")]
    Act(#[from] ActError),
}

/// How the orchestrator ended (`$SERVICE_RESULT` and its companions, systemd.exec(5)).
#[derive(Debug, Clone, Copy)]
struct End<'a> {
    result: &'a str,
    exit_status: &'a str,
    /// Whether its start was finished (`READY=1`).
    was_ready: bool,
    /// Whether its shutdown had begun, whether or not it finished.
    stop_had_begun: bool,
    /// Whether the service manager puts the next orchestrator into a group of its own.
    own_subgroup: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cleanup {
    EndAll,
    /// The services go on. The next orchestrator is started in the unit's own group, into which no
    /// process can be put while it has controllers enabled for its children.
    FreeTheUnit,
    /// The services go on, with their limits.
    Nothing,
}

fn cleanup(end: End<'_>) -> Cleanup {
    // A timeout after the start is that of a stop: the stop was wanted, and the orchestrator hung.
    let hung = end.result == "timeout" && end.was_ready;
    let wanted = end.result == "success" || end.stop_had_begun || hung;
    if wanted || end.exit_status == WRONG_CONFIGURATION {
        Cleanup::EndAll
    } else if end.own_subgroup {
        Cleanup::Nothing
    } else {
        Cleanup::FreeTheUnit
    }
}

/// Does what the end of the orchestrator requires, and returns a line about it. `runtime_dir`: the
/// one of the command line.
pub fn after_stop(runtime_dir: Option<&Path>) -> Result<String, AfterStopError> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let (result, exit_status) = (variable("SERVICE_RESULT"), variable("EXIT_STATUS"));
    if result.is_empty() {
        return Err(AfterStopError::NotAsked);
    }
    let runtime_dir = match runtime_dir {
        Some(given) => given.to_owned(),
        None => first_folder(&variable("RUNTIME_DIRECTORY")).ok_or(AfterStopError::WhichNode)?,
    };
    let end = End {
        result: &result,
        exit_status: &exit_status,
        was_ready: RuntimeFlag::Ready.is_set(&runtime_dir),
        stop_had_begun: RuntimeFlag::Stopping.is_set(&runtime_dir),
        own_subgroup: RuntimeFlag::OwnSubgroup.is_set(&runtime_dir),
    };
    // The next orchestrator may hang at its start, and must not count as ready then.
    let _services_of_the_next_end_with_it_then = RuntimeFlag::Ready.clear(&runtime_dir);
    let unit = unit_around_us()?;
    match cleanup(end) {
        Cleanup::EndAll => end_all(unit.as_ref(), &runtime_dir),
        Cleanup::FreeTheUnit => {
            let taken = unit.as_ref().map(disable_controllers).transpose()?.unwrap_or_default();
            let what = if taken.is_empty() { "none".to_owned() } else { taken.join(", ") };
            Ok(format!("the services live on ({result}); controllers taken back: {what}"))
        }
        Cleanup::Nothing => Ok(format!("the services live on ({result})")),
    }
}

/// The first folder of `RUNTIME_DIRECTORY`, which lists those of the unit separated by colons.
fn first_folder(list: &str) -> Option<PathBuf> {
    list.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
}

/// `None`: the unit has no delegated group.
fn unit_around_us() -> Result<Option<Group>, crate::linux::Error> {
    let Some(hierarchy) = Hierarchy::find()? else { return Ok(None) };
    if hierarchy.own_name.rsplit('/').next() != Some(CONTROL) {
        return Ok(None);
    }
    Group::above_own(&hierarchy)
}

fn end_all(unit: Option<&Group>, runtime_dir: &Path) -> Result<String, AfterStopError> {
    let services = match unit.map(|unit| unit.child(SERVICES)) {
        Some(Ok(services)) => Some(Arc::new(services)),
        Some(Err(gone)) if gone.errno() == Some(libc::ENOENT) => None,
        Some(Err(error)) => return Err(error.into()),
        None => None,
    };
    let _lock = match PidLock::acquire(&runtime_dir.join(LOCK)) {
        Err(error) if error.errno() == Some(libc::ENOENT) => {
            return Ok("nothing was ever started".to_owned());
        }
        // The folder is locked: a node runs there that does not belong to this unit.
        locked => locked?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(AfterStopError::Runtime)?;
    let swept = runtime.block_on(sweep(services.as_ref(), runtime_dir, &Spared::default()))?;
    if let Some(services) = services {
        services.remove()?;
    }
    Ok(format!("nothing lives on: {} processes were killed", swept.processes))
}

/// From the leaves up: a controller cannot be disabled while a child has it enabled.
fn disable_controllers(unit: &Group) -> Result<Vec<&'static str>, crate::linux::Error> {
    let groups = match unit.child(SERVICES) {
        Ok(services) => vec![services],
        Err(gone) if gone.errno() == Some(libc::ENOENT) => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut taken = Vec::new();
    for group in groups.iter().chain([unit]) {
        let handed_on = group.enabled_controllers()?;
        for controller in CONTROLLERS.into_iter().filter(|name| handed_on.contains(*name)) {
            group.disable_controller(controller)?;
            taken.push(controller);
        }
    }
    taken.sort_unstable();
    taken.dedup();
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: End<'_> = End {
        result: "signal",
        exit_status: "KILL",
        was_ready: true,
        stop_had_begun: false,
        own_subgroup: false,
    };

    #[test]
    fn services_live_on_after_a_crash_and_only_then() {
        let after = |result, exit_status| cleanup(End { result, exit_status, ..CRASH });
        assert_eq!(after("signal", "KILL"), Cleanup::FreeTheUnit);
        assert_eq!(after("core-dump", "ABRT"), Cleanup::FreeTheUnit);
        assert_eq!(after("watchdog", "ABRT"), Cleanup::FreeTheUnit);
        assert_eq!(after("exit-code", "1"), Cleanup::FreeTheUnit);
        assert_eq!(after("success", "0"), Cleanup::EndAll);
        assert_eq!(after("success", "TERM"), Cleanup::EndAll);
        assert_eq!(after("exit-code", "78"), Cleanup::EndAll);
    }

    #[test]
    fn a_stop_that_came_out_badly_was_wanted_all_the_same() {
        let late = End { result: "timeout", stop_had_begun: true, ..CRASH };
        assert_eq!(cleanup(late), Cleanup::EndAll);
        assert_eq!(cleanup(End { own_subgroup: true, ..late }), Cleanup::EndAll);
    }

    #[test]
    fn a_node_that_hung_as_it_was_stopped_takes_its_services_with_it_and_one_that_hung_before_not()
    {
        let hung = End { result: "timeout", ..CRASH };
        assert_eq!(cleanup(hung), Cleanup::EndAll);
        assert_eq!(cleanup(End { was_ready: false, ..hung }), Cleanup::FreeTheUnit);
    }

    #[test]
    fn limits_stay_where_the_next_orchestrator_has_a_group_of_its_own() {
        assert_eq!(cleanup(End { own_subgroup: true, ..CRASH }), Cleanup::Nothing);
    }

    #[test]
    fn the_first_runtime_folder_is_the_nodes() {
        assert_eq!(first_folder("/run/b:/run/c"), Some("/run/b".into()));
        assert_eq!(first_folder(""), None);
    }
}
