//! The environment of a run: what the plan says, and what only the run can say.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;

use super::error::ActError;
use crate::plan::{LaunchPlan, MARK};
use crate::units::RunId;

/// The variable that, with [`MARK`], tells the runs of one node apart.
pub(super) const RUN: &str = "BLACKHOLE_RUN";

/// `NAME=value` for all of it but the variables that hold the new process's id.
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

/// What every process of the run carries, unless it takes it off.
pub(super) fn marks(runtime_dir: &Path, run: RunId) -> Vec<String> {
    vec![node_mark(runtime_dir), run_mark(run)]
}

/// What every process of the run carries, and those of no other run.
pub(super) fn run_mark(run: RunId) -> String {
    format!("{RUN}={run}")
}

/// What every process of this node carries, of this and of earlier lives.
pub(super) fn node_mark(runtime_dir: &Path) -> String {
    format!("{MARK}={}", runtime_dir.display())
}
