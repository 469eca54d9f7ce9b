//! What services leave behind, what they are given, and in which order they come and go: the real
//! binary with real children. The numbers are those of the fault catalogue (B, C).
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use common::processes::{self, children, environment, kill, runs, zombies};
use common::{Background, Lab, Pid, eventually, idle, lines_of, service, sh};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;

/// Reliability 13.
#[test]
fn a_daemon_that_left_its_session_and_pipes_is_gone_after_the_stop() {
    let lab = Lab::new();
    let node = lab.node(&service("forks", &lab.ready_puppet(), "readiness = \"notify\"")).up();
    let daemon = Pid::try_from(lab.tell("forks-0", "daemon()").as_i64().unwrap()).unwrap();
    assert!(runs(daemon));
    lab.done(&["stop", "forks"]);
    assert!(!runs(daemon));
    node.console.line("forks-0 left processes behind; they are killed");
    assert!(lab.processes().is_empty());
    eventually("the daemon is collected", || children(node.pid()).is_empty());
}

/// Reliability 21.
#[test]
fn a_grandchild_that_holds_the_output_does_not_hold_up_the_restart() {
    let lab = Lab::new();
    let run = sh("echo x >> starts\n\
                  [ $(wc -l < starts) = 1 ] || exec sleep 1000000\n\
                  sleep 1000000 & echo $! > grandchild; exit 1");
    let node = lab.node(&service("parent", &run, "")).start();
    node.console.nth_line(2, "parent-0 ready in");
    let grandchild = fs::read_to_string(lab.data("parent", "grandchild")).unwrap();
    assert!(!runs(grandchild.trim().parse().unwrap()));
    eventually("only the second run is left", || lab.processes() == [lab.pid("parent-0")]);
}

/// Reliability 16.
#[test]
fn orphans_that_end_are_collected_and_are_nobodys_news() {
    let lab = Lab::new();
    let run =
        sh("for i in $(seq 1000); do (/bin/true &) ; done; echo all forked; exec sleep 1000000");
    let node = lab.node(&service("forks", &run, "")).up();
    node.console.line("all forked");
    let main = lab.pid("forks-0");
    eventually("only the service is left", || children(node.pid()) == [main]);
    assert_eq!(zombies(node.pid()), Vec::<Pid>::new());
    assert_eq!(lab.instance("forks-0")["restarts"], 0);
    assert_eq!(node.console.count("WARN  node            forks-0"), 0);
}

/// Reliability 20.
#[test]
fn a_service_that_ignores_sigterm_is_killed_after_its_stop_timeout() {
    let lab = Lab::new();
    let run = sh("trap '' TERM; echo armed; while :; do sleep 1000000; done");
    let node = lab.node(&service("deaf", &run, "stop_timeout = \"200ms\"")).up();
    node.console.line("armed");
    assert_eq!(lab.done(&["stop", "deaf"]), "deaf-0 stopped");
    node.console.line("deaf-0 did not end within its stop timeout and is killed");
    assert_eq!(lab.reason("deaf-0"), "SIGKILL (asked by the operator)");
    assert!(lab.processes().is_empty());
}

/// Reliability 17: a stopped process obeys no SIGTERM, but dies of SIGKILL.
#[test]
fn a_stopped_service_is_ended_all_the_same() {
    let lab = Lab::new();
    let ready = lab.ready_puppet();
    let more = "readiness = \"notify\"\nstop_timeout = \"200ms\"";
    let _node = lab.node(&service("web", &ready, more)).up();
    let pid = lab.pid("web-0");
    processes::signal(pid, Signal::STOP);
    let told = lab.done(&["restart", "web"]);
    assert!(told.starts_with("web-0 ready (pid "), "{told}");
    assert_ne!(lab.pid("web-0"), pid);
}

/// Reliability 19.
#[test]
fn a_frozen_group_is_not_restarted_and_can_be_stopped() {
    let lab = Lab::new();
    let Some(base) = lab.base_group() else {
        println!("skipped: no cgroup2 here");
        return;
    };
    let _node = lab.node(&service("web", &idle(), "stop_timeout = \"200ms\"")).up();
    let group = base.join("services/web-0");
    fs::write(group.join("cgroup.freeze"), "1").unwrap();
    eventually("it is frozen", || {
        fs::read_to_string(group.join("cgroup.events")).unwrap().contains("frozen 1")
    });
    let web = lab.instance("web-0");
    assert_eq!((&web["phase"], &web["restarts"]), (&"ready".into(), &0.into()));
    lab.done(&["stop", "web"]);
    assert!(lab.processes().is_empty());
}

/// Reliability 19: a frozen service answers no check, and that is not held against it.
#[test]
fn a_frozen_service_that_is_asked_for_its_health_is_not_restarted() {
    let lab = Lab::new();
    let Some(base) = lab.base_group() else {
        println!("skipped: no cgroup2 here");
        return;
    };
    let node = lab
        .node("")
        .set("services.identity.enabled=true")
        .set("process_management.health_checks.interval=\"100ms\"")
        .set("process_management.health_checks.timeout=\"50ms\"")
        .up();
    let pid = lab.pid("identity-0");
    let freeze = |state| fs::write(base.join("services/identity-0/cgroup.freeze"), state).unwrap();
    freeze("1");
    node.console.nth_line(5, "identity-0 did not answer, but was given no processor: not counted");
    freeze("0");
    let identity = lab.instance("identity-0");
    assert_eq!((&identity["phase"], &identity["restarts"]), (&"ready".into(), &0.into()));
    assert_eq!((lab.pid("identity-0"), node.console.count("health check")), (pid, 0));
}

/// Reliability 24.
#[test]
fn a_child_has_the_declared_descriptors_and_no_other() {
    let lab = Lab::new();
    // What the node itself was given carelessly must not reach its services.
    let careless = File::create(lab.path("careless")).unwrap();
    fcntl_setfd(careless.as_fd(), FdFlags::empty()).unwrap();
    let services =
        service("alone", &idle(), "") + &service("both", &idle(), "shared_socket = true");
    let _node = lab.node(&services).up();
    drop(careless);
    for (name, last) in [("alone", 3), ("both", 4)] {
        let found = processes::descriptors(lab.pid(&format!("{name}-0")));
        let numbers: Vec<i32> = found.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (0..=last).collect::<Vec<_>>(), "{found:?}");
        assert_eq!(found[0].1, "/dev/null");
        assert!(found[1].1.starts_with("pipe:") && found[2].1.starts_with("pipe:"), "{found:?}");
        assert!(found[3..].iter().all(|(_, what)| what.starts_with("socket:")), "{found:?}");
    }
}

/// Reliability 24.
#[test]
fn a_child_has_the_declared_environment_and_no_other() {
    let lab = Lab::new();
    let more = "readiness = \"notify\"\nwatchdog = \"1h\"\nenvironment = { MODE = \"a b\" }";
    let services = service("web", &lab.ready_puppet(), more);
    let _node = lab.node(&services).env("SECRET", "1").env("LISTEN_FDNAMES", "x").up();
    let pid = lab.pid("web-0");
    let mut found = environment(pid);
    found.sort();
    let data = lab.path("data/services/web").display().to_string();
    let run = lab.runtime_dir().display().to_string();
    let mut expected = [
        "BLACKHOLE_INSTANCE=web-0".to_owned(),
        "BLACKHOLE_NODE=bench".to_owned(),
        "BLACKHOLE_RUN=1".to_owned(),
        "BLACKHOLE_SERVICE=web".to_owned(),
        format!("BLACKHOLE_SUPERVISED={run}"),
        format!("HOME={data}"),
        "LANG=C.UTF-8".to_owned(),
        "LISTEN_FDNAMES=socket".to_owned(),
        "LISTEN_FDS=1".to_owned(),
        format!("LISTEN_PID={pid}"),
        "MODE=a b".to_owned(),
        format!("NOTIFY_SOCKET={run}/notify/web-0.1.sock"),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("RUNTIME_DIRECTORY={run}/services/web-0"),
        format!("STATE_DIRECTORY={data}"),
        format!("TMPDIR={run}/services/web-0/tmp"),
        format!("WATCHDOG_PID={pid}"),
        "WATCHDOG_USEC=3600000000".to_owned(),
    ];
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), lab.path("data/services/web"));
}

/// Reliability 24.
#[test]
fn a_child_has_no_signal_blocked_or_ignored() {
    let lab = Lab::new();
    let _node = lab.node(&service("web", &idle(), "")).up();
    let pid = lab.pid("web-0");
    for key in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(processes::status_field(pid, key), "0000000000000000", "{key}");
    }
}

#[test]
fn rlimits_of_the_configuration_are_those_of_the_process() {
    let lab = Lab::new();
    let more = "resources = { max_files = 77, max_core = 0, max_file_size = \"1MiB\" }";
    let _node = lab.node(&service("web", &idle(), more)).up();
    let text = fs::read_to_string(format!("/proc/{}/limits", lab.pid("web-0"))).unwrap();
    let limit = |name: &str| -> Vec<String> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect()
    };
    assert_eq!(limit("Max open files"), ["77", "77"]);
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    assert_eq!(limit("Max file size"), ["1048576", "1048576"]);
}

#[test]
fn every_instance_is_in_a_group_of_its_own() {
    let lab = Lab::new();
    let Some(base) = lab.base_group() else {
        println!("skipped: no cgroup2 here");
        return;
    };
    let services = service("web", &idle(), "instances = 2") + &service("forks", &lab.puppet(), "");
    let node = lab.node(&services).up();
    let base_name = base.file_name().unwrap().to_str().unwrap();
    for instance in ["web-0", "web-1", "forks-0"] {
        let group = processes::group_of(lab.pid(instance));
        assert!(group.ends_with(&format!("/{base_name}/services/{instance}")), "{group}");
    }
    let daemon = Pid::try_from(lab.tell("forks-0", "daemon()").as_i64().unwrap()).unwrap();
    assert_eq!(processes::group_of(daemon), processes::group_of(lab.pid("forks-0")));
    assert_ne!(processes::group_of(node.pid()), processes::group_of(daemon));
    assert_eq!(lab.instance("forks-0")["tasks"], 2);
}

/// Reliability 73: nobody else may speak with the services.
#[test]
fn sockets_and_folders_are_the_owners_alone() {
    let lab = Lab::new();
    let _node = lab.node(&service("web", &idle(), "")).up();
    let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(lab.runtime_dir()), 0o700);
    assert_eq!(mode(lab.path("data")), 0o700);
    assert_eq!(mode(lab.data("web", ".")), 0o700);
    assert_eq!(mode(lab.socket("web-0")), 0o600);
    assert_eq!(mode(lab.path("run/control.sock")), 0o600);
}

/// Reliability 33.
#[test]
fn starts_follow_the_dependencies_and_stops_go_against_them() {
    let lab = Lab::new();
    let chain = [("m", ""), ("c", "m"), ("z", "c"), ("a", "z"), ("k", "a")];
    let ready = lab.ready_puppet();
    let section = |(name, need): &(&str, &str)| {
        let need = if need.is_empty() { String::new() } else { format!("\"{need}\"") };
        service(name, &ready, &format!("readiness = \"notify\"\ndepends_on = [{need}]"))
    };
    let mut node = lab.node(&chain.iter().map(section).collect::<String>()).up();
    node.signal(Signal::INT);
    assert_eq!(node.end().code(), Some(0));
    let place = |name: &str, what: &str| node.console.position(&format!("{name}-0 {what}"));
    for pair in chain.windows(2) {
        let (need, dependant) = (pair[0].0, pair[1].0);
        assert!(place(need, "ready in") < place(dependant, "starting"));
        assert!(place(dependant, "stopped") < place(need, "stopping: the node stops"));
    }
    assert!(node.console.lines().last().unwrap().ends_with("stopped"));
    assert!(!lab.path("run/control.sock").exists() && !lab.socket("m-0").exists());
}

const DEAF: &str = "trap '' TERM; echo armed; while :; do sleep 1000000; done";

/// Reliability 33, 32: one that does not end holds up only what it needs; a second signal ends all.
#[test]
fn a_stuck_service_delays_only_what_it_needs_and_a_second_signal_kills_at_once() {
    let lab = Lab::new();
    let services = service("base", &idle(), "")
        + &service("deaf", &sh(DEAF), "depends_on = [\"base\"]\nstop_timeout = \"1h\"")
        + &service("free", &idle(), "")
        + &service("user", &idle(), "depends_on = [\"free\"]");
    let mut node = lab.node(&services).up();
    node.console.line("armed");
    node.signal(Signal::INT);
    node.console.line("free-0 stopped");
    assert_eq!(lab.phase("deaf-0"), "stopping");
    assert_eq!(node.console.count("base-0 stop"), 0);
    node.signal(Signal::INT);
    assert_eq!(node.end().code(), Some(0));
    assert!(lab.processes().is_empty());
}

/// Reliability 32.
#[test]
fn sigterm_while_starting_starts_nothing_more_and_leaves_nothing() {
    let lab = Lab::new();
    let count = sh("echo x >> starts; exec sleep 1000000");
    let slow = "readiness = \"notify\"\nstart_timeout = \"1h\"";
    let services =
        service("slow", &lab.puppet(), slow) + &service("later", &count, "depends_on = [\"slow\"]");
    let mut node = lab.node(&services).start();
    node.console.line("slow-0 starting");
    lab.tell("slow-0", "None");
    node.stop();
    assert_eq!(lines_of(&lab.data("later", "starts")), 0);
    assert_eq!(node.console.count("after the start"), 0);
}

/// Reliability 23.
#[test]
fn a_stranger_in_the_group_of_a_service_is_gone_with_its_run() {
    let lab = Lab::new();
    let Some(base) = lab.base_group() else {
        println!("skipped: no cgroup2 here");
        return;
    };
    let node = lab.node(&service("web", &idle(), "")).up();
    let mut stranger = Background::stranger();
    let group = base.join("services/web-0/cgroup.procs");
    fs::write(&group, stranger.pid().to_string()).unwrap();
    kill(lab.pid("web-0"));
    assert_eq!(stranger.end(), None, "it was killed");
    node.console.nth_line(2, "web-0 ready in");
}

/// Reliability 23.
#[test]
fn a_stranger_in_the_group_of_a_stopped_service_does_not_become_part_of_it() {
    let lab = Lab::new();
    let Some(base) = lab.base_group() else {
        println!("skipped: no cgroup2 here");
        return;
    };
    let node = lab.node(&service("web", &idle(), "")).up();
    lab.done(&["stop", "web"]);
    let mut stranger = Background::stranger();
    fs::create_dir_all(base.join("services/web-0")).unwrap();
    let group = base.join("services/web-0/cgroup.procs");
    fs::write(&group, stranger.pid().to_string()).unwrap();
    lab.done(&["start", "web"]);
    assert_eq!(stranger.end(), None, "it was killed");
    let words = format!("web-0 process {}, none of its own, was in its group", stranger.pid());
    node.console.line(&words);
    let members = fs::read_to_string(&group).unwrap();
    assert_eq!(members.trim(), lab.pid("web-0").to_string());
}

/// Reliability 23.
#[test]
fn a_stranger_in_a_group_of_the_node_is_gone_before_the_first_start() {
    let lab = Lab::new();
    let Some(base) = lab.base_group() else {
        println!("skipped: no cgroup2 here");
        return;
    };
    let mut stranger = Background::stranger();
    fs::create_dir_all(base.join("services/web-0/below")).unwrap();
    let group = base.join("services/web-0/below/cgroup.procs");
    fs::write(&group, stranger.pid().to_string()).unwrap();
    let node = lab.node(&service("web", &idle(), "")).up();
    assert_eq!(stranger.end(), None, "it was killed");
    node.console.line("cleared what an earlier node left: 1 processes");
    assert!(!base.join("services/web-0/below").exists());
}

/// The last half of a line is not lost (Reliability 56).
#[test]
fn what_was_written_last_before_the_end_is_read() {
    let lab = Lab::new();
    let run = lab.python(
        "last.py",
        "import os\n\
         os.write(1, b'x' * 1_000_000 + b'\\nnot utf-8 \\xff \\x00 \\x1b[31m\\nhalf a line')\n\
         os._exit(0)\n",
    );
    let node = lab.node(&service("last", &run, "restart_policy = \"never\"")).up();
    node.console.line("half a line");
    let odd = node.console.line("not utf-8");
    assert!(!odd.contains('\x1b') && !odd.contains('\0'), "{odd:?}");
    let lines = node.console.lines();
    let pieces = lines.iter().filter(|line| line.contains("xxxx"));
    let long: usize = pieces.map(|line| line.matches('x').count()).sum();
    assert_eq!(long, 1_000_000);
}

/// The node may be sheltered from the OOM killer (`OOMScoreAdjust=`); its services never are.
#[test]
fn a_service_does_not_inherit_the_shelter_of_the_node() {
    let lab = Lab::new();
    let node = lab.node(&service("web", &idle(), "")).up();
    let score = |pid: Pid| format!("/proc/{pid}/oom_score_adj");
    if let Err(reason) = fs::write(score(node.pid()), "-500") {
        eprintln!("skipped: no score can be lowered here ({reason})");
        return;
    }
    lab.done(&["restart", "web"]);
    assert_eq!(fs::read_to_string(score(lab.pid("web-0"))).unwrap(), "0\n");
    assert_eq!(fs::read_to_string(score(node.pid())).unwrap(), "-500\n");
    fs::write(score(node.pid()), "300").unwrap();
    lab.done(&["restart", "web"]);
    assert_eq!(fs::read_to_string(score(lab.pid("web-0"))).unwrap(), "300\n");
}
