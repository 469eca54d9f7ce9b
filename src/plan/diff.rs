//! What differs between two plans, and what that means for what runs.

use std::collections::{BTreeMap, BTreeSet};

use super::build::{InstancePlan, Plan};
use super::launch::{LaunchPlan, Program};
use super::rules::Rules;
use crate::units::InstanceId;

/// The word for what the group of an instance limits: a process follows it without notice.
const LIMITS: &str = "limits";

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

    /// Those that go on with other limits.
    pub fn limited_otherwise(&self) -> impl Iterator<Item = &InstanceId> {
        self.adjusted.iter().filter(|(_, differs)| differs.contains(&LIMITS)).map(|(id, _)| id)
    }
}

/// Whether a socket it is handed stands elsewhere now.
fn moved_sockets(old: &Plan, new: &Plan, plan: &InstancePlan) -> bool {
    plan.launch.listeners().any(|id| old.sockets.get(id) != new.sockets.get(id))
}

fn about_the_process(old: &InstancePlan, new: &InstancePlan, moved: bool) -> Vec<&'static str> {
    let InstancePlan { launch, socket, .. } = new;
    let LaunchPlan {
        program,
        environment,
        working_directory,
        data_dir,
        passed,
        notify,
        limits,
        sandbox,
    } = launch;
    let before = &old.launch;
    let all = [
        (program_word(program), before.program != *program),
        ("environment", before.environment != *environment),
        ("working_directory", before.working_directory != *working_directory),
        ("data_dir", before.data_dir != *data_dir),
        ("sockets", moved || before.passed != *passed || old.socket != *socket),
        ("notify", before.notify != *notify),
        ("readiness", old.rules.readiness != new.rules.readiness),
        ("resources", before.limits != *limits),
        ("sandbox", before.sandbox != *sandbox),
    ];
    named(&all)
}

fn program_word(program: &Program) -> &'static str {
    match program {
        Program::Own(_) => "settings",
        Program::Foreign { .. } => "command",
    }
}

fn about_the_treatment(old: &InstancePlan, new: &InstancePlan) -> Vec<&'static str> {
    let InstancePlan { rules, limits, log_rate, log_burst, .. } = new;
    let Rules {
        needs,
        restart_with,
        readiness: _,
        restart,
        start_timeout,
        stop_timeout,
        drain,
        watchdog: _,
        unhealthy_threshold,
    } = rules;
    let before = &old.rules;
    let all = [
        ("depends_on", before.needs != *needs),
        ("restart_with", before.restart_with != *restart_with),
        ("restarts", before.restart != *restart),
        ("start_timeout", before.start_timeout != *start_timeout),
        ("stop_timeout", before.stop_timeout != *stop_timeout),
        ("drain", before.drain != *drain),
        ("health_checks", before.unhealthy_threshold != *unhealthy_threshold),
        (LIMITS, old.limits.in_force() != limits.in_force()),
        ("logs", old.log_rate != *log_rate || old.log_burst != *log_burst),
    ];
    named(&all)
}

fn named(all: &[(&'static str, bool)]) -> Vec<&'static str> {
    all.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
}
