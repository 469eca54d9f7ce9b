//! What this host gives the node, and what the node does without.

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

/// The group below which every instance has its own.
pub(super) const SERVICES: &str = "services";
/// What limits need. The order is that of `status`.
pub(super) const CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", "io"];

const PROCESS_GROUPS: &str = "process-groups";
const RESOURCE_LIMITS: &str = "resource-limits";

/// How this process came to be the orchestrator.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Somebody started it, and put it into its group.
    #[default]
    Started,
    /// It was the orchestrator before, as another program.
    InPlace,
}

#[derive(Debug)]
pub(super) struct Host {
    /// None: no cgroup v2 for us.
    pub(super) services_cgroup: Option<ServicesCgroup>,
    pub(super) degradations: Vec<Degradation>,
}

impl Host {
    /// For a node that does not come up: removes the groups in which nothing lives.
    pub(super) fn clean_up(&self) {
        self.services_cgroup.iter().cloned().for_each(ServicesCgroup::clean_up);
    }

    /// Why the limits of services are not enforced, if they are not.
    pub(super) fn without_limits(&self) -> Option<&Degradation> {
        let names = [PROCESS_GROUPS, RESOURCE_LIMITS];
        self.degradations.iter().find(|without| names.contains(&without.name.as_str()))
    }
}

/// Looks once, at the start, and takes its place among the groups. `without_journal` is why the
/// logs do not go to journald.
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

/// What services that are to be confined are not confined by.
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

/// Makes `services`, gives it what controllers there are, and leaves the unit's own group.
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
            // In place we are where we put ourselves, or where the service manager did: the mark
            // tells. Without it a crash takes the limits away until the next one writes them anew.
            if arrival == Arrival::Started {
                let _limits_are_written_anew = RuntimeFlag::OwnSubgroup.set(runtime_dir);
            }
            let services = unit.create(SERVICES)?;
            let missing = enable_controllers(&[&unit, &services]);
            Ok((ServicesCgroup { services: Arc::new(services), own_parent: None }, missing))
        }
        (Place::UnitAroundUs, _) => {
            // An older life was started otherwise only if systemd was updated since.
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

/// A name of its own for every runtime folder, the same at each start: the sweep finds it again.
fn base_name(runtime_dir: &Path) -> String {
    format!("blackhole{}", runtime_dir.to_string_lossy().replace(['/', '.'], "-"))
}

/// Disks are shared fairly without a controller; it is missed where weights were asked for.
fn is_missed(controller: &str, plan: &Plan) -> bool {
    controller != "io"
        || plan.instances.values().any(|instance| instance.limits.in_force().io_weight.is_some())
}

/// Each group of the path gives the controllers to those below it; the last one's are the
/// instances'. A controller that does not get through is missing.
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
    // The kernel would let it hand on `cpu` and `pids`, and then no group below it could hold a
    // process: it would be the root of a threaded domain (cgroups(7)).
    if is_kept_by_processes(group).map_err(|error| error.to_string())? {
        return Err(format!("there are processes in {} itself", group.path().display()));
    }
    group.enable_controller(controller).map_err(|error| error.to_string())
}

/// Whether processes in it keep it from handing anything on. The root of all groups may do both.
fn is_kept_by_processes(group: &Group) -> Result<bool, crate::linux::Error> {
    Ok(!group.is_root()? && group.holds_processes()?)
}

/// One degradation for all, each controller with its reason; equal reasons together.
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
