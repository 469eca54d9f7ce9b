//! The environment of a run: the variables of the plan, and those that differ from run to run.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;

use super::error::ActError;
use crate::plan::{LaunchPlan, MARK};
use crate::units::RunId;

/// The variable that, with [`MARK`], tells the runs of one node apart.
pub(super) const RUN: &str = "BLACKHOLE_RUN";

/// `NAME=value` for every variable, except those that hold the id of the new process.
pub(super) fn of_run(
    launch: &LaunchPlan,
    run: RunId,
    notify_socket: Option<&Path>,
    fd_names: &[&str],
) -> Result<Vec<CString>, ActError> {
    let mut all: BTreeMap<&str, String> =
        launch.environment.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    all.insert(RUN, run.to_string());
    all.insert("LISTEN_FDS", fd_names.len().to_string());
    all.insert("LISTEN_FDNAMES", fd_names.join(":"));
    if let Some(path) = notify_socket {
        all.insert("NOTIFY_SOCKET", path.to_string_lossy().into_owned());
    }
    if let Some(watchdog) = launch.notify.and_then(|notify| notify.watchdog) {
        all.insert("WATCHDOG_USEC", watchdog.as_micros().to_string());
    }
    let entry = |(name, value): (&str, String)| {
        CString::new(format!("{name}={value}"))
            .map_err(|_| ActError::Nul { what: "its environment" })
    };
    all.into_iter().map(entry).collect()
}

/// The mark that every process of the run inherits, unless it removes the variable.
pub(super) fn marks(runtime_dir: &Path, run: RunId) -> Vec<String> {
    vec![node_mark(runtime_dir), run_mark(run)]
}

/// The marks by which the processes of this run are told from those of all other runs.
pub(super) fn run_mark(run: RunId) -> String {
    format!("{RUN}={run}")
}

/// The mark of all processes of this node, started by this orchestrator or an earlier one.
pub(super) fn node_mark(runtime_dir: &Path) -> String {
    format!("{MARK}={}", runtime_dir.display())
}
