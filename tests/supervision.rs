//! What the node does when a service ends, cannot start, or does not come up: the real binary with
//! real children. The numbers are those of the fault catalogue (A).
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use common::processes::{self, kill, zombies};
use common::{Background, Lab, PATIENCE, command, eventually, idle, lines_of, service, sh};
use rustix::process::Signal;

/// Reliability 1.
#[test]
fn exit_code_0_is_no_reason_to_restart_on_failure() {
    let lab = Lab::new();
    let run = sh("echo x >> starts; exit 0");
    let node = lab.node(&service("once", &run, "restart_policy = \"on_failure\"")).up();
    node.console.line("once-0 stopped");
    let once = lab.instance("once-0");
    assert_eq!((&once["phase"], &once["restarts"]), (&"stopped".into(), &0.into()));
    assert!(lab.reason("once-0").starts_with("exit code 0 after "), "{once}");
    assert_eq!(lab.status()["node"]["phase"], "ready");
    assert_eq!(lines_of(&lab.data("once", "starts")), 1);
}

/// Reliability 1, by the default policy.
#[test]
fn exit_code_0_is_restarted_always() {
    let lab = Lab::new();
    let run = sh("echo x >> starts; [ $(wc -l < starts) = 1 ] && exit 0; exec sleep 1000000");
    let node = lab.node(&service("twice", &run, "")).start();
    node.console.nth_line(2, "twice-0 ready in");
    assert_eq!(lab.instance("twice-0")["restarts"], 1);
}

/// Reliability 2.
#[test]
fn exit_code_1_is_restarted_on_failure() {
    let lab = Lab::new();
    let run = sh("echo x >> starts; [ $(wc -l < starts) = 1 ] && exit 1; exec sleep 1000000");
    let node = lab.node(&service("twice", &run, "restart_policy = \"on_failure\"")).start();
    node.console.nth_line(2, "twice-0 ready in");
    node.console.line("twice-0 ended: exit code 1 after ");
    node.console.line("twice-0 restarts at once (attempt 1)");
    let twice = lab.instance("twice-0");
    assert_eq!((&twice["phase"], &twice["restarts"]), (&"ready".into(), &1.into()));
    assert!(lab.reason("twice-0").contains("exit code 1"), "{twice}");
}

/// Reliability 3.
#[test]
fn a_crash_loop_ends_failed_after_exactly_its_restarts_and_a_start_brings_it_back() {
    let lab = Lab::new();
    let crash = sh("echo x >> starts; [ -e cured ] && exec sleep 1000000; exit 7");
    let services = service("crash", &crash, "") + &service("other", &idle(), "");
    let node = lab.node(&services).up();
    let failed = node.console.line("crash-0 failed: ");
    assert!(failed.contains("5 restarts within 5m; last: exit code 7 after "), "{failed}");
    assert!(failed.contains("`start` tries again"), "{failed}");
    let bystander = lab.instance("other-0");
    assert_eq!((&bystander["phase"], &bystander["restarts"]), (&"ready".into(), &0.into()));
    let status = lab.status();
    assert_eq!(status["node"]["phase"], "degraded");
    assert!(lab.reason("crash-0").starts_with("5 restarts within 5m; last: exit code 7"));
    let why = lab.done(&["why", "crash"]);
    assert!(why.starts_with("crash-0 is failed: 5 restarts within 5m; last: exit code 7"), "{why}");
    assert!(why.contains("at most 5 counted restarts within 5m; 5 so far"), "{why}");
    assert_eq!(why.matches("ended: exit code 7 after ").count(), 6, "{why}");
    // Another service comes and goes meanwhile; the failed one stays down.
    lab.done(&["restart", "other"]);
    assert_eq!(lines_of(&lab.data("crash", "starts")), 6);
    assert_eq!(node.console.count("crash-0 starting"), 6);

    File::create(lab.data("crash", "cured")).unwrap();
    let told = lab.done(&["start", "crash"]);
    assert!(told.starts_with("crash-0 ready (pid "), "{told}");
    eventually("it was started", || lines_of(&lab.data("crash", "starts")) == 7);
    assert_eq!(lab.status()["node"]["phase"], "ready");
}

/// An operator's `restart` is carried out once; what ends after it counts as always.
#[test]
fn a_crash_loop_after_a_restart_ends_failed_too() {
    let lab = Lab::new();
    let run = sh("[ -e broken ] && exit 7; exec sleep 1000000");
    let node = lab.node(&service("web", &run, "")).up();
    lab.done(&["restart", "web"]);
    let pid = lab.pid("web-0");
    eventually("the shell has looked", || program(pid) == "sleep");
    File::create(lab.data("web", "broken")).unwrap();
    kill(pid);
    node.console.line("web-0 failed: 5 restarts within 5m; last: exit code 7 after ");
    assert_eq!(lab.phase("web-0"), "failed");
}

#[test]
fn what_is_never_to_be_restarted_fails_once() {
    let lab = Lab::new();
    let run = sh("echo x >> starts; exit 3");
    let node = lab.node(&service("once", &run, "restart_policy = \"never\"")).up();
    node.console.line("once-0 failed: exit code 3 after ");
    assert!(lab.reason("once-0").ends_with("its restart policy is never"));
    assert_eq!(lab.verb(&["status", "once"]).code, Some(3));
    assert_eq!(lines_of(&lab.data("once", "starts")), 1);
}

fn program(pid: processes::Pid) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

/// Takes its listener as fd 3, says READY=1, and answers each line with its pid.
const ANSWERING: &str = r#"
import os, socket
listener = socket.socket(fileno=3)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as voice:
    voice.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    with listener.accept()[0] as connection:
        connection.makefile().readline()
        connection.sendall(b"%d\n" % os.getpid())
"#;

/// A call that is under way.
struct Call(UnixStream);

impl Call {
    fn begin(lab: &Lab, instance: &str) -> Self {
        let mut stream = UnixStream::connect(lab.socket(instance)).expect("no caller is refused");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"who\n").unwrap();
        Self(stream)
    }

    fn answer(self) -> i32 {
        let mut line = String::new();
        BufReader::new(self.0).read_line(&mut line).unwrap();
        line.trim().parse().expect("every caller is answered")
    }
}

#[test]
fn a_ready_service_may_be_killed_any_number_of_times_and_refuses_no_caller() {
    let lab = Lab::new();
    let answering = lab.python("answering.py", ANSWERING);
    let node = lab.node(&service("web", &answering, "readiness = \"notify\"")).up();
    let socket = fs::metadata(lab.socket("web-0")).unwrap().ino();
    let mut pid = Call::begin(&lab, "web-0").answer();
    for nth in 2..=26 {
        // The node sleeps while the service dies: the caller comes when nobody is there.
        node.signal(Signal::STOP);
        kill(pid);
        assert!(processes::ends(pid, PATIENCE));
        let call = Call::begin(&lab, "web-0");
        node.signal(Signal::CONT);
        let next = call.answer();
        assert_ne!(next, pid);
        pid = next;
        // A run that never was ready counts as a failed start.
        node.console.nth_line(nth, "web-0 ready in");
    }
    let web = lab.instance("web-0");
    assert_eq!((&web["restarts"], &web["pid"]), (&25.into(), &pid.into()));
    assert_eq!(fs::metadata(lab.socket("web-0")).unwrap().ino(), socket);
}

/// Reliability 37: nothing is gathered over restarts.
#[test]
fn restarts_leak_no_descriptors_threads_groups_or_zombies() {
    let lab = Lab::new();
    let ready = lab.ready_puppet();
    let node = lab.node(&service("web", &ready, "readiness = \"notify\"")).up();
    let held = |pid| (processes::descriptors(pid).len(), processes::threads(pid));
    let groups =
        || lab.base_group().map(|base| fs::read_dir(base.join("services")).unwrap().count());
    let restart = |nth| {
        kill(lab.pid("web-0"));
        node.console.nth_line(nth, "web-0 ready in");
    };
    restart(2);
    // A connection of `status` may still be closing.
    let settled = || eventually("nothing is under way", || lab.processes().len() == 1);
    settled();
    let (before, groups_before) = (held(node.pid()), groups());
    (3..=42).for_each(restart);
    settled();
    eventually("as many descriptors and threads as before", || held(node.pid()) == before);
    assert_eq!(groups(), groups_before);
    eventually("no zombies", || zombies(node.pid()).is_empty());
}

/// Those that end a process by default (`signal(7)`), and whether with a core file.
const FATAL: [(i32, &str, bool); 23] = [
    (1, "SIGHUP", false),
    (2, "SIGINT", false),
    (3, "SIGQUIT", true),
    (4, "SIGILL", true),
    (5, "SIGTRAP", true),
    (6, "SIGABRT", true),
    (7, "SIGBUS", true),
    (8, "SIGFPE", true),
    (9, "SIGKILL", false),
    (10, "SIGUSR1", false),
    (11, "SIGSEGV", true),
    (12, "SIGUSR2", false),
    (13, "SIGPIPE", false),
    (14, "SIGALRM", false),
    (15, "SIGTERM", false),
    (16, "SIGSTKFLT", false),
    (24, "SIGXCPU", true),
    (25, "SIGXFSZ", true),
    (26, "SIGVTALRM", false),
    (27, "SIGPROF", false),
    (29, "SIGIO", false),
    (30, "SIGPWR", false),
    (31, "SIGSYS", true),
];

/// Reliability 5.
#[test]
fn every_signal_that_ends_a_service_is_recorded_as_that_signal() {
    let lab = Lab::new();
    let written = processes::cores_are_written(&lab.path("."));
    println!("core files are written here: {written}");
    let dying = |(number, _, _): (i32, _, _)| {
        let more = "restart_policy = \"never\"\nresources = { max_core = ";
        let kill = sh(&format!("kill -{number} $$"));
        service(&format!("by{number}x"), &kill, &format!("{more}0 }}"))
            + &service(&format!("core{number}x"), &kill, &format!("{more}\"16MiB\" }}"))
    };
    let node = lab.node(&FATAL.map(dying).concat()).up();
    for (number, name, cores) in FATAL {
        // Those by which a daemon is told to go are a clean end, the rest a failure.
        let phase = if [1, 2, 13, 15].contains(&number) { "stopped" } else { "failed" };
        for (service, core) in [("by", false), ("core", cores && written)] {
            let instance = format!("{service}{number}x-0");
            let words = if core { format!("{name} (core dumped)") } else { name.to_owned() };
            node.console.line(&format!("{instance} ended: {words} after "));
            let status = lab.instance(&instance);
            assert_eq!(status["phase"], phase, "{status}");
            assert!(status["reason"].as_str().unwrap().starts_with(&words), "{status}");
        }
    }
}

/// Reliability 5: SIGCHLD, SIGCONT, SIGURG and SIGWINCH end nothing.
#[test]
fn signals_that_end_no_process_are_no_news() {
    let lab = Lab::new();
    let node = lab.node(&service("web", &lab.ready_puppet(), "readiness = \"notify\"")).up();
    let pid = lab.pid("web-0");
    for signal in [Signal::CHILD, Signal::CONT, Signal::URG, Signal::WINCH] {
        processes::signal(pid, signal);
    }
    lab.tell("web-0", "sync()");
    assert_eq!((lab.pid("web-0"), node.console.count("web-0 ended")), (pid, 0));
}

/// Reliability 6.
#[test]
fn what_cannot_be_executed_says_why_in_the_status() {
    let lab = Lab::new();
    let plain = lab.file("plain", "echo", 0o644);
    let garbage = lab.file("garbage", "\x7fno program", 0o755);
    let busy = lab.file("busy", fs::read("/bin/true").unwrap(), 0o755);
    let writer = File::options().append(true).open(&busy).unwrap();
    let long = "x".repeat(100_000);
    let once = "restart_policy = \"never\"";
    let small_stack = format!("{once}\nresources = {{ max_stack = \"512KiB\" }}");
    let elsewhere = format!("{once}\nworking_directory = \"/nonexistent/folder\"");
    let path = |path: &std::path::Path| command([path.to_str().unwrap()]);
    let cases = [
        ("enoent", command(["/nonexistent/x"]), once, "execute \"/nonexistent/x\": No such file"),
        ("nowhere", command(["no-such-program"]), once, "\"no-such-program\" is not in /usr/local"),
        ("eacces", path(&plain), once, "Permission denied"),
        ("enoexec", path(&garbage), once, "Exec format error"),
        ("etxtbsy", path(&busy), once, "Text file busy"),
        ("e2big", command(["/bin/true", &long, &long]), &small_stack, "Argument list too long"),
        ("chdir", idle(), &elsewhere, "chdir to \"/nonexistent/folder\": No such file"),
    ];
    let sections = cases.iter().map(|(name, command, more, _)| service(name, command, more));
    let node = lab.node(&sections.collect::<String>()).up();
    for (name, _, _, words) in &cases {
        let failed = node.console.line(&format!("{name}-0 failed: "));
        assert!(failed.contains(words), "{name}: {failed}");
        let status = lab.instance(&format!("{name}-0"));
        assert_eq!(status["phase"], "failed");
        assert!(status["reason"].as_str().unwrap().contains(words), "{status}");
    }
    drop(writer);
    let told = lab.done(&["start", "etxtbsy"]);
    assert!(told.starts_with("etxtbsy-0 stopped") || told.contains("ready"), "{told}");
    let open = || processes::descriptors(node.pid()).len();
    let before = open();
    for _ in 0..10 {
        assert_eq!(lab.verb(&["start", "enoent", "eacces", "nowhere", "chdir"]).code, Some(1));
    }
    eventually("no descriptor is left", || open() <= before);
    eventually("no process is left", || processes::children(node.pid()).is_empty());
}

/// Reliability 7.
#[test]
fn an_end_before_readiness_is_a_failed_start_and_dependants_never_start() {
    let lab = Lab::new();
    let first = "readiness = \"notify\"\nmax_restarts = 1\nrestart_policy = \"on_failure\"";
    let second = sh("echo x >> starts; exec sleep 1000000");
    let services = service("first", &sh("exit 1"), first)
        + &service("second", &second, "depends_on = [\"first\"]");
    let node = lab.node(&services).up();
    node.console.line("first-0 ended: exit code 1 after ");
    assert!(lab.reason("first-0").ends_with("before it was ready"));
    let waiting = lab.instance("second-0");
    assert_eq!(waiting["phase"], "waiting");
    assert_eq!(waiting["reason"], "waits for first-0 (failed)");
    node.console.line("degraded: 0 of 2 instances ready");
    assert!(!lab.data("second", "starts").exists());
    let answer = lab.verb(&["start", "second"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(!lab.data("second", "starts").exists());
}

/// Reliability 8.
#[test]
fn what_does_not_become_ready_is_ended_with_all_its_processes() {
    let lab = Lab::new();
    let run = sh("trap '' TERM; sleep 1000000 & while :; do sleep 1000000; done");
    let more = "readiness = \"notify\"\nrestart_policy = \"never\"\n\
                start_timeout = \"300ms\"\nstop_timeout = \"100ms\"";
    let node = lab.node(&service("mute", &run, more)).up();
    node.console.line("mute-0 stopping: not ready within its start timeout");
    node.console.line("mute-0 did not end within its stop timeout and is killed");
    node.console.line("mute-0 failed: SIGKILL (not ready within its start timeout)");
    assert!(lab.processes().is_empty());
    assert_eq!(lab.phase("mute-0"), "failed");
}

/// Reliability 10. A start of a hundred debug builds takes its time, but none may be forgotten.
#[test]
fn a_hundred_services_killed_at_once_all_come_back() {
    let lab = Lab::new();
    let many = |name| service(name, &idle(), "instances = 50");
    let node = lab.node(&(many("left") + &many("right"))).up();
    let status = lab.status();
    let pids = |status: &serde_json::Value| -> Vec<i64> {
        let all = status["instances"].as_array().unwrap().iter();
        all.map(|one| one["pid"].as_i64().expect("it runs")).collect()
    };
    let before = pids(&status);
    assert_eq!(before.len(), 100);
    before.iter().for_each(|pid| kill(i32::try_from(*pid).unwrap()));
    node.console.nth_line(200, " ready in ");
    let status = lab.status();
    let after = pids(&status);
    assert!(after.iter().all(|pid| !before.contains(pid)));
    let restarts = status["instances"].as_array().unwrap().iter().map(|one| &one["restarts"]);
    assert!(restarts.into_iter().all(|restarts| *restarts == 1));
    assert_eq!(node.console.count("ended: SIGKILL"), 100);
    eventually("no zombies", || zombies(node.pid()).is_empty());
}

/// Reliability 38.
#[test]
fn without_free_descriptors_nothing_dies_and_starts_say_why() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let lab = Lab::new();
    let flaky = sh("[ -e broken ] && exit 1; exec sleep 1000000");
    let services = service("flaky", &flaky, "max_restarts = 1000") + &service("firm", &idle(), "");
    let node = lab.node(&services).up();
    let firm = lab.pid("firm-0");
    let flaky = lab.pid("flaky-0");
    let limit = |current| {
        let limit = Rlimit { current: Some(current), maximum: Some(20_000) };
        prlimit(Pid::from_raw(node.pid()), Resource::Nofile, limit).unwrap();
    };
    // Three are enough to learn of an end, and not for a start.
    let open: Vec<i32> = processes::descriptors(node.pid()).into_iter().map(|fd| fd.0).collect();
    let third_free = (0..).filter(|number| !open.contains(number)).nth(2).unwrap();
    limit(u64::try_from(third_free).unwrap() + 1);
    kill(flaky);
    node.console.wait("a start that failed", |line| {
        (line.contains("flaky-0 ended: ") && line.contains("Too many open files")).then_some(())
    });
    // With none at all, whoever calls is answered later.
    limit(3);
    let mut status = lab.binary();
    status.args(["status", "firm"]);
    let mut caller = Background::start(status);
    node.console.line("cannot accept a connection");
    limit(20_000);
    assert_eq!(caller.end(), Some(0), "{}", caller.output.text());
    node.console.nth_line(2, "flaky-0 ready in");
    assert!(lab.done(&["why", "flaky"]).contains("Too many open files"));
    assert_eq!(lab.pid("firm-0"), firm);
    assert_eq!(lab.instance("firm-0")["restarts"], 0);
}

/// Reliability 51.
#[test]
fn a_group_that_cannot_be_made_means_no_start() {
    let lab = Lab::new();
    let Some(base) = lab.base_group() else {
        println!("skipped: no cgroup2 here");
        return;
    };
    let late = "depends_on = [\"first\"]\nrestart_policy = \"never\"";
    let services =
        service("first", &lab.puppet(), "readiness = \"notify\"") + &service("late", &idle(), late);
    let node = lab.node(&services).start();
    node.console.line("first-0 starting");
    eventually("the first has its group", || base.join("services/first-0").exists());
    fs::write(base.join("cgroup.max.descendants"), "2").unwrap();
    lab.tell("first-0", "notify('READY=1')");
    let failed = node.console.line("late-0 failed: cannot use its group: make group ");
    assert!(failed.contains("services/late-0"), "{failed}");
    fs::write(base.join("cgroup.max.descendants"), "max").unwrap();
    lab.done(&["start", "late"]);
}

/// Reliability 51: without the controllers the limit is told to be none, and not passed over.
#[test]
fn a_limit_that_this_host_cannot_enforce_is_named() {
    let lab = Lab::new();
    let given = lab
        .base_group()
        .and_then(|base| fs::read_to_string(base.parent()?.join("cgroup.controllers")).ok());
    if given.is_some_and(|given| given.contains("memory")) {
        println!("skipped: this host has the memory controller");
        return;
    }
    let limited = service("web", &idle(), "resources = { memory = \"64MiB\" }");
    let node = lab.node(&limited).up();
    node.console.line("without ");
    let degradations = lab.status()["node"]["degradations"].to_string();
    assert!(degradations.contains("rlimits"), "{degradations}");
    assert_eq!(lab.phase("web-0"), "ready");
}

/// Reliability 64: who asks for limits gets them, or no node.
#[test]
fn a_node_that_has_to_limit_does_not_start_where_it_cannot() {
    let lab = Lab::new();
    let given = lab
        .base_group()
        .and_then(|base| fs::read_to_string(base.parent()?.join("cgroup.controllers")).ok());
    if given.is_some_and(|given| given.contains("memory")) {
        println!("skipped: this host has the memory controller");
        return;
    }
    let mut node =
        lab.node(&service("web", &idle(), "")).set("node.resource_limits=required").start();
    assert_eq!(node.end().code(), Some(78));
    let said = node.console.line("cannot enforce what services may use: ");
    assert!(said.contains("best_effort"), "{said}");
    assert!(lab.processes().is_empty());
}

/// A foreign program that knows nothing of the node.
#[test]
fn a_service_is_ready_when_its_port_answers() {
    let lab = Lab::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = lab.python(
        "server.py",
        &format!(
            "import socket, signal\n\
             s = socket.create_server(('127.0.0.1', {port}))\n\
             while True: signal.pause()\n"
        ),
    );
    let more = format!("readiness = \"port\"\nready_port = {port}");
    let node = lab.node(&service("site", &server, &more)).up();
    node.console.line("site-0 ready in");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
}
