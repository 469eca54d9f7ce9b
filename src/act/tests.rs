//! What fails in the middle leaves nothing half done. The group is a folder with the files that a
//! test needs, so that each of them can be made to fail.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::service_manager::ServiceManager;
use super::*;
use crate::config::{HostDefaults, Sources, load};
use crate::decide::{AdoptedRun, SpawnFailure};
use crate::linux::cgroupfs::Hierarchy;

struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["run/sockets", "run/notify", "data", "group"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, text: &str) -> NodeConfig {
        let host = HostDefaults {
            node_name: "host-1".to_owned(),
            data_dir: self.path("data"),
            runtime_dir: self.path("run"),
            memory: None,
            processors: None,
        };
        let basics = "identity.enabled = false\nstorage.enabled = false\nledger.enabled = false\n\
                      gateway.enabled = false\n";
        let text = format!("[services]\n{basics}{text}");
        let file = Some((Path::new("node.toml"), text.as_str()));
        let given = Sources { file, ..Sources::default() };
        load(&given, &host).unwrap_or_else(|errors| panic!("{errors}")).config
    }

    fn plan(&self, text: &str) -> Plan {
        Plan::of(&self.config(text))
    }

    fn group(&self) -> ServicesCgroup {
        let hierarchy = Hierarchy {
            mount: self.path("group"),
            own_name: "/".to_owned(),
            own_path: self.path("group"),
            controllers: BTreeSet::new(),
        };
        let services = Arc::new(Group::own(&hierarchy).unwrap());
        ServicesCgroup { services, own_parent: None }
    }

    fn act(&self, text: &str) -> Act {
        let config = self.config(text);
        let (plan, group) = (Plan::of(&config), Some(self.group()));
        let silent = ServiceManager::silent();
        Act::new(&config, plan, group, silent, (&mut InheritedFds::default(), None)).unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }
}

fn web(more: &str) -> String {
    format!("web = {{ command = ['sleep', '1000000'], {more} }}\n")
}

fn id() -> InstanceId {
    "web-0".parse().unwrap()
}

#[test]
fn a_plan_that_fails_after_listeners_were_bound_leaves_everything_as_it_was() {
    let lab = Lab::new();
    lab.write("group/memory.min", "00000000");
    let before = web("resources.memory_min = '64MiB'");
    let mut act = lab.act(&before);
    assert_eq!(lab.read("group/memory.min"), "67108864");
    let (socket, at) = (lab.path("extra.sock"), act.plan().clone());
    let unix = socket.display();
    let next = lab.plan(&web(&format!("unix_socket = '{unix}', resources.memory_min = '80MiB'")));
    // It is written after memory.min, and a folder cannot be.
    fs::create_dir(lab.path("group/memory.low")).unwrap();
    let refused = act.apply_plan(next.clone(), &BTreeSet::new()).unwrap_err();
    assert!(refused.to_string().contains("memory.low"), "{refused}");
    assert!(!socket.exists());
    assert_eq!(act.sockets.numbered().count(), at.sockets.len());
    assert_eq!(lab.read("group/memory.min"), "67108864");
    assert_eq!(*act.plan(), at);
    fs::remove_dir(lab.path("group/memory.low")).unwrap();
    act.apply_plan(next.clone(), &BTreeSet::new()).unwrap();
    assert!(socket.exists());
    assert_eq!((lab.read("group/memory.min"), act.plan()), ("83886080".to_owned(), &next));
    act.clean_up();
}

#[test]
fn who_cannot_protect_memory_binds_nothing() {
    let lab = Lab::new();
    fs::create_dir(lab.path("group/memory.min")).unwrap();
    let config = lab.config(&web(""));
    let (plan, group) = (Plan::of(&config), Some(lab.group()));
    let mut inherited = InheritedFds::default();
    let made = Act::new(&config, plan, group, ServiceManager::silent(), (&mut inherited, None));
    assert!(made.unwrap_err().to_string().contains("memory.min"));
    assert_eq!(fs::read_dir(lab.path("run/sockets")).unwrap().count(), 0);
}

#[test]
fn a_spawn_that_fails_leaves_no_notify_socket() {
    let lab = Lab::new();
    let mut act = lab.act("web = { command = ['no-such-program'], readiness = 'notify' }\n");
    // No process is in the group.
    lab.write("group/web-0/cgroup.events", "populated 0\n");
    let SpawnFailure(why) = act.spawn(&id(), RunId(1), &GroupLimits::default()).unwrap_err();
    assert!(why.contains("\"no-such-program\" is not in"), "{why}");
    assert_eq!(fs::read_dir(lab.path("run/notify")).unwrap().count(), 0);
    act.clean_up();
}

fn sleeper() -> (Child, Pid) {
    #[allow(clippy::disallowed_methods, reason = "a test's own child, not one of the node's")]
    let child = Command::new("sleep").arg("1000000").spawn().unwrap();
    let pid = Pid(i32::try_from(child.id()).unwrap());
    (child, pid)
}

/// What a former orchestrator held of a run with this process.
fn inherited(pid: Pid) -> InheritedFds {
    let pidfd = Pidfd::open(pid).unwrap().unwrap().as_fd().try_clone_to_owned().unwrap();
    let pipe = || fds::pipe().unwrap().0;
    let parts: [(RunFd, OwnedFd); 3] =
        [(RunFd::Pidfd, pidfd), (RunFd::Stdout, pipe()), (RunFd::Stderr, pipe())];
    let runs = BTreeMap::from([((id(), RunId(7)), BTreeMap::from(parts))]);
    InheritedFds { runs, ..InheritedFds::default() }
}

/// It runs, and the core knows of it: somebody has to look after it, whatever else fails.
#[tokio::test]
async fn a_run_is_adopted_although_its_limits_cannot_be_written() {
    let lab = Lab::new();
    let mut act = lab.act(&web("resources.memory = '64MiB'"));
    fs::create_dir_all(lab.path("group/web-0/memory.max")).unwrap();
    // Killing it as a group fails as well, and it dies all the same.
    fs::create_dir_all(lab.path("group/web-0/cgroup.kill")).unwrap();
    let (mut child, pid) = sleeper();
    let adopted = AdoptedRun { run: RunId(7), pid };
    let started = act.adopt_run(&mut inherited(pid), (&id(), adopted), None).unwrap();
    assert!(matches!(started.members, Members::Group(_)));
    assert!(act.run(RunId(7)).is_some());
    act.kill_group(RunId(7)).unwrap_err();
    started.pidfd.exited().await.unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_is_adopted_although_its_group_cannot_be_used() {
    let lab = Lab::new();
    let mut act = lab.act(&web(""));
    lab.write("group/web-0", "no folder");
    let (mut child, pid) = sleeper();
    let adopted = AdoptedRun { run: RunId(7), pid };
    let started = act.adopt_run(&mut inherited(pid), (&id(), adopted), None).unwrap();
    assert!(matches!(started.members, Members::Marked(_)));
    act.signal(RunId(7), Signal::KILL).unwrap();
    child.wait().unwrap();
}
