//! The sandbox of each service: as the kernel shows it, compared with the configuration.

use crate::act::Act;
use crate::config::SystemCallFilter;
use crate::linux::procfs::{self, Rights, SystemCalls};
use crate::linux::sandbox::Support;
use crate::linux::users;
use crate::plan::SandboxPlan;
use crate::rpc::pb::node as pb;
use crate::units::{InstanceId, Pid, capability_bits, capability_names};

/// The sandbox of one instance. `pid`: its main process, if it has one.
pub(super) fn of(act: &Act, id: &InstanceId, pid: Option<Pid>) -> pb::InstanceSecurity {
    let rights = pid.and_then(|pid| Some((pid, procfs::rights(pid).ok()??)));
    let plan = act.plan().instances.get(id).map(|plan| &plan.launch.sandbox);
    let told = pb::InstanceSecurity {
        service: id.service.to_string(),
        instance: id.to_string(),
        ..plan.map(planned).unwrap_or_default()
    };
    let Some((pid, rights)) = rights else { return told };
    let support = act.sandbox_support();
    let protected = plan.is_some_and(|plan| plan.rules.protect_files);
    pb::InstanceSecurity {
        pid: pid.0,
        uid: rights.uid,
        gid: rights.gid,
        user: users::name(rights.uid).ok().flatten().unwrap_or_default(),
        no_new_privileges: rights.no_new_privileges,
        capabilities: capability_names(rights.capabilities),
        bounding_set: capability_names(rights.bounding_set),
        system_calls: word(rights.system_calls).to_owned(),
        landlock: if protected { support.landlock } else { 0 },
        missing: plan.map(|plan| missing(plan, support, rights)).unwrap_or_default(),
        ..told
    }
}

/// The rules for `why`: for an operator who sees a program fail with "permission denied".
pub(super) fn in_words(plan: &SandboxPlan) -> String {
    let given_back = plan.rules.given_back();
    match given_back.as_slice() {
        [] => "confined to its own files and to what every service may do".to_owned(),
        some => format!("confined but for: {}", some.join("; ")),
    }
}

fn planned(plan: &SandboxPlan) -> pb::InstanceSecurity {
    pb::InstanceSecurity {
        profile: plan.profile.word().to_owned(),
        given_back: plan.rules.given_back(),
        ..pb::InstanceSecurity::default()
    }
}

fn word(system_calls: SystemCalls) -> &'static str {
    match system_calls {
        SystemCalls::All => "all",
        SystemCalls::Strict => "strict",
        SystemCalls::Filtered => "filtered",
    }
}

/// The rules of the configuration that the kernel does not enforce.
fn missing(plan: &SandboxPlan, support: Support, rights: Rights) -> Vec<String> {
    let rules = &plan.rules;
    let mut all = Vec::new();
    if rules.no_new_privileges && !rights.no_new_privileges {
        all.push("programs that it executes may give it privileges".to_owned());
    }
    let kept = capability_bits(&rules.capabilities);
    let more = capability_names(rights.capabilities & !kept);
    if !more.is_empty() {
        all.push(format!("it has {}", more.join(", ")));
    }
    // Under no_new_privs a process cannot gain capabilities.
    if !rights.no_new_privileges && rights.bounding_set & !kept != 0 {
        all.push("programs that it executes may give it capabilities".to_owned());
    }
    if rules.system_call_filter != SystemCallFilter::Off && rights.system_calls == SystemCalls::All
    {
        all.push("its system calls are not filtered".to_owned());
    }
    if rules.protect_files && support.landlock == 0 {
        all.push("files are protected by their own permissions only".to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Profile;
    use crate::config::Sandbox;

    fn plan() -> SandboxPlan {
        let rules = Sandbox {
            user: None,
            group: None,
            no_new_privileges: true,
            capabilities: ["CAP_CHOWN".parse().unwrap()].into(),
            system_call_filter: SystemCallFilter::On { given_back: [].into() },
            protect_files: true,
            read_only_paths: [].into(),
            read_write_paths: [].into(),
        };
        SandboxPlan { profile: Profile::Program, rules, runtime_folder: "/run/x".into() }
    }

    const CONFINED: Rights = Rights {
        uid: 1,
        gid: 1,
        no_new_privileges: true,
        capabilities: 1,
        bounding_set: 0x1ff,
        system_calls: SystemCalls::Filtered,
    };

    #[test]
    fn nothing_is_missing_where_everything_holds() {
        let support = Support { landlock: 2, system_call_filter: true };
        assert_eq!(missing(&plan(), support, CONFINED), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_hold_is_named() {
        let free = Rights {
            no_new_privileges: false,
            capabilities: 3,
            system_calls: SystemCalls::All,
            ..CONFINED
        };
        let expected = [
            "programs that it executes may give it privileges",
            "it has CAP_DAC_OVERRIDE",
            "programs that it executes may give it capabilities",
            "its system calls are not filtered",
            "files are protected by their own permissions only",
        ];
        assert_eq!(missing(&plan(), Support::default(), free), expected);
    }
}
