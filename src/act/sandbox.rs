//! From a sandbox plan to the rules that the kernel is given. Knows the paths that programs need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ActError;
use crate::catalog::Profile;
use crate::config::SystemCallFilter;
use crate::linux::chown::Owner;
use crate::linux::sandbox::{
    Access, Families, FileRules, Filter, FilterRules, Required, Sandbox, Support,
};
use crate::linux::users::{self, User};
use crate::plan::{LaunchPlan, Plan, Program, SandboxPlan};
use crate::units::capability_bits;

/// The sandbox features of this kernel, and the filters that runs share.
#[derive(Debug)]
pub(super) struct Sandboxes {
    support: Support,
    filters: BTreeMap<FilterRules, Arc<Filter>>,
}

/// The rules for one run.
#[derive(Debug)]
pub(super) struct Prepared {
    user: Option<User>,
    capabilities: u64,
    no_new_privileges: bool,
    files: Option<FileRules>,
    filter: Option<Arc<Filter>>,
}

impl Sandboxes {
    pub(super) fn of_this_host() -> Self {
        Self { support: Support::find(), filters: BTreeMap::new() }
    }

    pub(super) fn support(&self) -> Support {
        self.support
    }

    /// The rules of a launch; the folders of the instance must exist. Features that the kernel
    /// lacks are left out and named among the node's degradations.
    pub(super) fn prepare(
        &mut self,
        launch: &LaunchPlan,
        user: Option<User>,
    ) -> Result<Prepared, ActError> {
        let rules = &launch.sandbox.rules;
        let protect = rules.protect_files && self.support.landlock > 0;
        Ok(Prepared {
            user,
            capabilities: capability_bits(&rules.capabilities),
            no_new_privileges: rules.no_new_privileges,
            files: if protect { file_rules(launch)? } else { None },
            filter: self.filter(&launch.sandbox),
        })
    }

    /// One filter is made for all services with the same rules.
    fn filter(&mut self, plan: &SandboxPlan) -> Option<Arc<Filter>> {
        let given_back = match &plan.rules.system_call_filter {
            SystemCallFilter::On { given_back } if self.support.system_call_filter => given_back,
            SystemCallFilter::On { .. } | SystemCallFilter::Off => return None,
        };
        let families = match plan.profile {
            Profile::Own => Families::Unix,
            Profile::Internet => Families::Internet,
            Profile::Program => Families::Common,
        };
        let rules = FilterRules { families, allowed: given_back.clone() };
        let filter =
            self.filters.entry(rules.clone()).or_insert_with(|| Arc::new(Filter::new(&rules)));
        Some(Arc::clone(filter))
    }
}

impl Prepared {
    pub(super) fn sandbox(&self) -> Sandbox<'_> {
        Sandbox {
            user: self.user.as_ref(),
            capabilities: Some(self.capabilities),
            no_new_privileges: self.no_new_privileges,
            files: self.files.as_ref(),
            filter: self.filter.as_deref(),
        }
    }
}

/// The user that a service runs as; `None`: the orchestrator's own. An error: the node is not root,
/// or there is no such user or group.
pub(super) fn user_of(launch: &LaunchPlan) -> Result<Option<User>, ActError> {
    let rules = &launch.sandbox.rules;
    let Some(name) = &rules.user else { return Ok(None) };
    if Owner::us().uid != 0 {
        return Err(ActError::NotRoot { user: name.clone() });
    }
    let group = match &rules.group {
        None => None,
        Some(group) => {
            let found = users::group(group).map_err(ActError::Users)?;
            Some(found.ok_or_else(|| ActError::NoGroup { group: group.clone() })?)
        }
    };
    let found = users::user(name, group).map_err(ActError::Users)?;
    Ok(Some(found.ok_or_else(|| ActError::NoUser { user: name.clone() })?))
}

/// Whether each service can run as its configured user.
pub(super) fn check_users(plan: &Plan) -> Result<(), ActError> {
    for (id, instance) in &plan.instances {
        user_of(&instance.launch).map_err(|reason| ActError::Sandbox {
            service: id.service.clone(),
            reason: Box::new(reason),
        })?;
    }
    Ok(())
}

/// The system's programs and libraries. Not all are on every system.
const PROGRAMS: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store"];
/// Facts about the system, and the resolution of host names.
const FACTS: [&str; 6] = [
    "/proc",
    "/sys",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
];
const DEVICES: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
/// POSIX shared memory, which is a folder.
const SHARED_MEMORY: &str = "/dev/shm";

/// Where this binary's libraries are.
const LIBRARIES: [&str; 6] = ["/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64"];
/// What runtimes of programming languages and of tasks read.
const OWN_FACTS: [&str; 3] = ["/proc", "/sys/fs/cgroup", "/etc/ld.so.cache"];
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// The resolution of host names (resolv.conf(5), nsswitch.conf(5), gai.conf(5)). A file that is
/// replaced while the service runs becomes unreadable to it, unless it is below a folder that is
/// named here.
const NAMES_OF_HOSTS: [&str; 9] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
];
/// Trusted certificates: the places of Debian and Arch, Red Hat, Alpine, and SUSE.
const AUTHORITIES: [&str; 6] = [
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/usr/share/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/var/lib/ca-certificates",
];

type Rule<'a> = (&'a Path, Access, Required);

fn file_rules(launch: &LaunchPlan) -> Result<Option<FileRules>, ActError> {
    let mut all = match launch.sandbox.profile {
        Profile::Own => own_rules(),
        Profile::Internet => own_rules().into_iter().chain(internet_rules()).collect(),
        Profile::Program => program_rules(launch),
    };
    let folders = match launch.sandbox.profile {
        Profile::Own | Profile::Internet => Access::Write,
        Profile::Program => Access::WriteAndExecute,
    };
    let own = [&launch.data_dir, &launch.sandbox.runtime_folder].map(PathBuf::as_path);
    all.extend(own.map(|path| (path, folders, Required::Yes)));
    let rules = &launch.sandbox.rules;
    let written = |path, access| (path, access, Required::Yes);
    all.extend(rules.read_only_paths.iter().map(|p| written(p.as_path(), Access::ReadAndExecute)));
    all.extend(
        rules.read_write_paths.iter().map(|p| written(p.as_path(), Access::WriteAndExecute)),
    );
    let writable: Vec<&Path> =
        own.into_iter().chain(rules.read_write_paths.iter().map(PathBuf::as_path)).collect();
    all.retain(|(path, ..)| !is_in_its_hands(path, &writable));
    FileRules::new(all).map_err(ActError::Files)
}

/// Whether the service can replace the path by a link to something that it must not reach. Below
/// its own folders no rule is needed anyway.
fn is_in_its_hands(path: &Path, writable: &[&Path]) -> bool {
    writable.iter().any(|folder| path != *folder && path.starts_with(folder))
}

fn own_rules<'a>() -> Vec<Rule<'a>> {
    let libraries = LIBRARIES.iter().chain([&OWN_EXECUTABLE]);
    let libraries = libraries.map(|path| optional(path, Access::ReadAndExecute));
    let facts = OWN_FACTS.iter().map(|path| optional(path, Access::Read));
    let devices = DEVICES.iter().map(|path| optional(path, Access::Use));
    libraries.chain(facts).chain(devices).collect()
}

fn internet_rules<'a>() -> impl Iterator<Item = Rule<'a>> {
    NAMES_OF_HOSTS.iter().chain(&AUTHORITIES).map(|path| optional(path, Access::Read))
}

fn program_rules(launch: &LaunchPlan) -> Vec<Rule<'_>> {
    let programs = PROGRAMS.iter().map(|path| optional(path, Access::ReadAndExecute));
    let facts = FACTS.iter().map(|path| optional(path, Access::Read));
    let devices = DEVICES.iter().map(|path| optional(path, Access::Use));
    let mut all: Vec<Rule<'_>> = programs.chain(facts).chain(devices).collect();
    all.push(optional(SHARED_MEMORY, Access::Write));
    if let Program::Foreign { program, arguments } = &launch.program {
        let words = std::iter::once(program).chain(arguments).filter(|word| word.starts_with('/'));
        all.extend(words.map(|word| optional(word, Access::ReadAndExecute)));
    }
    let folder = launch.working_directory.as_path();
    all.push((folder, Access::ReadAndExecute, Required::No));
    all
}

fn optional(path: &str, access: Access) -> Rule<'_> {
    (Path::new(path), access, Required::No)
}

impl From<&User> for Owner {
    fn from(user: &User) -> Self {
        Self { uid: user.uid, gid: user.gid }
    }
}

#[cfg(test)]
#[path = "sandbox_tests.rs"]
mod tests;
