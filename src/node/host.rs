//! What this host offers the node, and what the node does without.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::delegation::{Delegation, Facts, ORCHESTRATOR, Place, Starter, place};
use super::runtime_flags::RuntimeFlag;
use crate::act::ServicesCgroup;
use crate::linux::cgroupfs::{Group, Hierarchy};
use crate::linux::process;
use crate::linux::sandbox::Support;
use crate::plan::Plan;
use crate::rpc::pb::node::Degradation;

/// The group that contains the groups of the instances.
pub(super) const SERVICES: &str = "services";
/// The controllers that limits need, in the order of `status`.
pub(super) const CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", "io"];

const PROCESS_GROUPS: &str = "process-groups";
const RESOURCE_LIMITS: &str = "resource-limits";

/// How this process became the orchestrator.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was started, in a group that somebody else chose.
    #[default]
    Started,
    /// By an exec handover, in the group of the former orchestrator.
    InPlace,
}

#[derive(Debug)]
pub(super) struct Host {
    /// `None`: the node has no cgroup v2.
    pub(super) services_cgroup: Option<ServicesCgroup>,
    pub(super) degradations: Vec<Degradation>,
}

impl Host {
    /// For a start that failed: removes the groups in which nothing runs.
    pub(super) fn clean_up(&self) {
        self.services_cgroup.iter().cloned().for_each(ServicesCgroup::clean_up);
    }

    /// The degradation of limits that are not enforced, if there is one.
    pub(super) fn without_limits(&self) -> Option<&Degradation> {
        let names = [PROCESS_GROUPS, RESOURCE_LIMITS];
        self.degradations.iter().find(|without| names.contains(&without.name.as_str()))
    }
}

/// Looks at the host once, at the start, and makes the groups. `without_journal`: why the logs do
/// not go to journald.
pub(super) fn look(
    runtime_dir: &Path,
    plan: &Plan,
    arrival: Arrival,
    without_journal: Option<String>,
) -> Host {
    let mut degradations = Vec::new();
    let services_cgroup = match find_services_cgroup(runtime_dir, arrival) {
        Ok((services_cgroup, mut missing)) => {
            missing.retain(|missing| is_missed(missing.controller, plan));
            degradations.extend(without_controllers(&missing));
            Some(services_cgroup)
        }
        Err(missing) => {
            degradations.push(degradation(
                PROCESS_GROUPS,
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
    degradations.extend(without_sandbox(Support::find()));
    if let Some(missing) = without_journal {
        degradations.push(degradation(
            "journald",
            &missing,
            "logs go to the console and stay in memory for `logs`",
        ));
    }
    Host { services_cgroup, degradations }
}

/// The parts of the sandbox that this kernel lacks.
fn without_sandbox(support: Support) -> Vec<Degradation> {
    let mut all = Vec::new();
    if support.landlock == 0 {
        all.push(degradation(
            "file-protection",
            "this kernel has no Landlock, or it is switched off",
            "services are kept from files by the files' own permissions only",
        ));
    }
    if !support.system_call_filter {
        all.push(degradation(
            "system-call-filter",
            "this kernel has no seccomp filters, or does not let us use them",
            "services have no capabilities, and may make every system call",
        ));
    }
    all
}

/// A controller that the services' groups do not have, and why.
#[derive(Debug, PartialEq, Eq)]
struct Missing {
    controller: &'static str,
    why: String,
}

fn find_services_cgroup(
    runtime_dir: &Path,
    arrival: Arrival,
) -> Result<(ServicesCgroup, Vec<Missing>), String> {
    let hierarchy = Hierarchy::find().map_err(|error| error.to_string())?;
    let hierarchy = hierarchy.ok_or_else(|| "the host has no cgroup v2".to_owned())?;
    take_place(&hierarchy, runtime_dir, arrival).map_err(|error| error.to_string())
}

/// Makes `services`, enables the available controllers for it, and moves this process out of the
/// unit's own group.
fn take_place(
    hierarchy: &Hierarchy,
    runtime_dir: &Path,
    arrival: Arrival,
) -> Result<(ServicesCgroup, Vec<Missing>), crate::linux::Error> {
    let own = Group::own(hierarchy)?;
    let above = Group::above_own(hierarchy)?;
    let facts = Facts {
        own: hierarchy.own_name.clone(),
        started_by: starter(),
        own_delegation: delegation(Some(&own))?,
        parent_delegation: delegation(above.as_ref())?,
    };
    match (place(&facts), above) {
        (Place::UnitAboveUs, Some(unit)) => {
            // After an exec handover the group tells nothing about who chose it, and the flag that
            // was set at the start holds. Without the flag, a crash takes the limits away until the
            // next orchestrator writes them anew.
            if arrival == Arrival::Started {
                let _limits_are_written_anew = RuntimeFlag::OwnSubgroup.set(runtime_dir);
            }
            let services = unit.create(SERVICES)?;
            let missing = enable_controllers(&[&unit, &services]);
            Ok((ServicesCgroup { services: Arc::new(services), own_parent: None }, missing))
        }
        (Place::UnitAroundUs, _) => {
            // The two differ only if systemd was updated since the node started.
            let _stays_where_it_was = RuntimeFlag::OwnSubgroup.clear(runtime_dir);
            own.create(ORCHESTRATOR)?.add(process::own_pid())?;
            let services = own.create(SERVICES)?;
            let missing = enable_controllers(&[&own, &services]);
            Ok((ServicesCgroup { services: Arc::new(services), own_parent: None }, missing))
        }
        (Place::BelowOurs | Place::UnitAboveUs, _) => {
            let base = own.create(&base_name(runtime_dir))?;
            let services = base.create(SERVICES).inspect_err(|_| {
                let _others_are_in_it = base.remove();
            })?;
            let missing = enable_controllers(&[&own, &base, &services]);
            let own_parent = Some(Arc::new(base));
            Ok((ServicesCgroup { services: Arc::new(services), own_parent }, missing))
        }
    }
}

fn starter() -> Starter {
    let exec_pid = std::env::var("SYSTEMD_EXEC_PID").ok();
    Starter::of(exec_pid.as_deref(), process::own_pid().0)
}

fn delegation(group: Option<&Group>) -> Result<Delegation, crate::linux::Error> {
    let delegated = group.map(Group::is_delegated).transpose()?.unwrap_or_default();
    Ok(if delegated { Delegation::Delegated } else { Delegation::None })
}

/// A group name for each runtime folder, the same at each start, so that the sweep finds it.
fn base_name(runtime_dir: &Path) -> String {
    format!("blackhole{}", runtime_dir.to_string_lossy().replace(['/', '.'], "-"))
}

/// Disks are shared evenly without `io`; it is missed only where weights are configured.
fn is_missed(controller: &str, plan: &Plan) -> bool {
    controller != "io"
        || plan.instances.values().any(|instance| instance.limits.in_force().io_weight.is_some())
}

/// Enables each controller along the path, so that the last group's children have it. One that
/// cannot be enabled somewhere is missing.
fn enable_controllers(path: &[&Group]) -> Vec<Missing> {
    CONTROLLERS
        .into_iter()
        .filter_map(|controller| {
            let given = path.iter().try_for_each(|group| give(group, controller));
            given.err().map(|why| Missing { controller, why })
        })
        .collect()
}

fn give(group: &Group, controller: &str) -> Result<(), String> {
    let has = |controllers: Result<BTreeSet<String>, crate::linux::Error>| {
        controllers.map(|all| all.contains(controller)).map_err(|error| error.to_string())
    };
    if has(group.enabled_controllers())? {
        return Ok(());
    }
    if !has(group.controllers())? {
        return Err("not given to us".to_owned());
    }
    // The kernel would accept `cpu` and `pids`, and then no group below could hold a process: it
    // would be the root of a threaded domain (cgroups(7)).
    if is_kept_by_processes(group).map_err(|error| error.to_string())? {
        return Err(format!("there are processes in {} itself", group.path().display()));
    }
    group.enable_controller(controller).map_err(|error| error.to_string())
}

/// Whether processes in the group keep it from enabling controllers; the root group is exempt.
fn is_kept_by_processes(group: &Group) -> Result<bool, crate::linux::Error> {
    Ok(!group.is_root()? && group.holds_processes()?)
}

/// One degradation for all missing controllers, with those of the same reason together.
fn without_controllers(missing: &[Missing]) -> Option<Degradation> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for Missing { controller, why } in missing {
        match reasons.iter_mut().find(|(known, _)| *known == why.as_str()) {
            Some((_, controllers)) => controllers.push(controller),
            None => reasons.push((why, vec![controller])),
        }
    }
    let words: Vec<String> =
        reasons.iter().map(|(why, names)| format!("{} ({why})", names.join(", "))).collect();
    (!words.is_empty()).then(|| {
        degradation(
            RESOURCE_LIMITS,
            &format!("cgroup v2 controllers are missing: {}", words.join("; ")),
            "what they would limit is not enforced; rlimits are",
        )
    })
}

fn degradation(name: &str, missing: &str, instead: &str) -> Degradation {
    Degradation { name: name.to_owned(), missing: missing.to_owned(), instead: instead.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_that_are_missing_are_named_with_their_reasons() {
        let missing = |controller, why: &str| Missing { controller, why: why.to_owned() };
        let all = [missing("memory", "not given to us"), missing("cpu", "busy")];
        let named = without_controllers(&all).unwrap().missing;
        let said = "cgroup v2 controllers are missing: memory (not given to us); cpu (busy)";
        assert_eq!(named, said);
        let both = [missing("memory", "not given to us"), missing("io", "not given to us")];
        assert!(
            without_controllers(&both).unwrap().missing.ends_with(": memory, io (not given to us)")
        );
        assert_eq!(without_controllers(&[]), None);
    }
}
