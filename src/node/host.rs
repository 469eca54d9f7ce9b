//! What this host gives the node, and what the node does without.

use std::path::Path;
use std::sync::Arc;

use crate::linux::cgroupfs::{Group, Hierarchy};
use crate::rpc::pb::node::Degradation;

#[derive(Debug)]
pub(super) struct Host {
    /// Below it the groups of the services are made.
    pub(super) base: Option<Arc<Group>>,
    pub(super) degradations: Vec<Degradation>,
}

/// Looks once, at the start. `without_journal` is why the logs do not go to journald.
pub(super) fn look(runtime_dir: &Path, without_journal: Option<String>) -> Host {
    let mut degradations = Vec::new();
    let base = match base_group(runtime_dir) {
        Ok(base) => {
            degradations.extend(missing_controllers(&base));
            Some(Arc::new(base))
        }
        Err(missing) => {
            degradations.push(degradation(
                "process-groups",
                &missing,
                "a mark in the environment finds the processes of a service; no limits but rlimits",
            ));
            None
        }
    };
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        degradations.push(degradation(
            "service-manager",
            "nothing told us NOTIFY_SOCKET",
            "nobody restarts the node itself; the next start clears what it left",
        ));
    }
    if let Some(missing) = without_journal {
        degradations.push(degradation(
            "journald",
            &missing,
            "logs go to the console and stay in memory for `logs`",
        ));
    }
    Host { base, degradations }
}

/// A name of its own for every runtime folder, the same at each start: the sweep finds it again.
fn base_group(runtime_dir: &Path) -> Result<Group, String> {
    let hierarchy = Hierarchy::find().map_err(|error| error.to_string())?;
    let hierarchy = hierarchy.ok_or_else(|| "the host has no cgroup v2".to_owned())?;
    let name = format!("blackhole{}", runtime_dir.to_string_lossy().replace(['/', '.'], "-"));
    Group::create_base(&hierarchy, &name).map_err(|error| error.to_string())
}

fn missing_controllers(base: &Group) -> Option<Degradation> {
    let given = base.read("cgroup.subtree_control").unwrap_or_default();
    let given: Vec<&str> = given.split_whitespace().collect();
    let missing: Vec<&str> =
        ["memory", "cpu", "pids"].into_iter().filter(|name| !given.contains(name)).collect();
    (!missing.is_empty()).then(|| {
        degradation(
            "resource-limits",
            &format!("cgroup v2 controllers {} are not given to us", missing.join(", ")),
            "memory, cpu_cores and max_tasks are not enforced; rlimits are",
        )
    })
}

fn degradation(name: &str, missing: &str, instead: &str) -> Degradation {
    Degradation { name: name.to_owned(), missing: missing.to_owned(), instead: instead.to_owned() }
}
