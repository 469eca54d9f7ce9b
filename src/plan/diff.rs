//! What differs between two plans, and what that means for what runs.

use std::collections::{BTreeMap, BTreeSet};

use super::build::{InstancePlan, Plan};
use super::launch::Program;
use crate::units::InstanceId;

/// From one plan to the next. No instance is in two of these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    pub added: BTreeSet<InstanceId>,
    pub removed: BTreeSet<InstanceId>,
    /// What is different about its process, which is therefore another; in words.
    pub relaunched: BTreeMap<InstanceId, Vec<&'static str>>,
    /// What is different about how it is treated; its process does not notice.
    pub adjusted: BTreeMap<InstanceId, Vec<&'static str>>,
}

impl Changes {
    pub fn between(old: &Plan, new: &Plan) -> Self {
        let mut changes = Self::default();
        for (id, after) in &new.instances {
            let Some(before) = old.instances.get(id) else {
                changes.added.insert(id.clone());
                continue;
            };
            let differs = about_the_process(before, after, moved_sockets(old, new, after));
            if !differs.is_empty() {
                changes.relaunched.insert(id.clone(), differs);
                continue;
            }
            let differs = about_the_treatment(before, after);
            if !differs.is_empty() {
                changes.adjusted.insert(id.clone(), differs);
            }
        }
        let gone = old.instances.keys().filter(|id| !new.instances.contains_key(id));
        changes.removed.extend(gone.cloned());
        changes
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a socket it is handed stands elsewhere now.
fn moved_sockets(old: &Plan, new: &Plan, plan: &InstancePlan) -> bool {
    plan.launch.listeners().any(|id| old.sockets.get(id) != new.sockets.get(id))
}

fn about_the_process(old: &InstancePlan, new: &InstancePlan, moved: bool) -> Vec<&'static str> {
    let (before, after) = (&old.launch, &new.launch);
    let all = [
        (program_word(&after.program), before.program != after.program),
        ("environment", before.environment != after.environment),
        ("working_directory", before.working_directory != after.working_directory),
        ("data_dir", before.data_dir != after.data_dir),
        ("sockets", moved || before.passed != after.passed),
        ("notify", before.notify != after.notify),
        ("readiness", old.rules.readiness != new.rules.readiness),
        ("tier", old.cpu_weight != new.cpu_weight),
        ("resources", before.limits != after.limits || old.resources != new.resources),
    ];
    named(&all)
}

fn program_word(program: &Program) -> &'static str {
    match program {
        Program::Own { .. } => "settings",
        Program::Foreign { .. } => "command",
    }
}

fn about_the_treatment(old: &InstancePlan, new: &InstancePlan) -> Vec<&'static str> {
    let (before, after) = (&old.rules, &new.rules);
    let all = [
        ("depends_on", before.needs != after.needs),
        ("restart_with", before.restart_with != after.restart_with),
        ("restarts", before.restart != after.restart),
        ("start_timeout", before.start_timeout != after.start_timeout),
        ("stop_timeout", before.stop_timeout != after.stop_timeout),
        ("drain", before.drain != after.drain),
        ("health_checks", before.unhealthy_threshold != after.unhealthy_threshold),
        ("logs", (old.log_rate, old.log_burst) != (new.log_rate, new.log_burst)),
    ];
    named(&all)
}

fn named(all: &[(&'static str, bool)]) -> Vec<&'static str> {
    all.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
}
