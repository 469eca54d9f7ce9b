//! `sd_notify(3)` in both directions: what services say to the node, and what the node says to the
//! service manager that started it. The real binary with real children.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test waits until a deadline is over")]

mod common;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::processes::{self, environment, kill};
use common::{Lab, Node, PATIENCE, eventually, idle, service};
use rustix::process::Signal;

const NOTIFY: &str = "readiness = \"notify\"";

/// A puppet `web-0` that was started and has said nothing yet.
fn silent<'a>(lab: &'a Lab, more: &str) -> Node<'a> {
    let node = lab.node(&service("web", &lab.puppet(), &format!("{NOTIFY}\n{more}"))).start();
    node.console.line("web-0 starting");
    assert_eq!(lab.tell("web-0", "os.environ['BLACKHOLE_INSTANCE']"), "web-0");
    node
}

/// A puppet `web-0` that is ready after each of its starts.
fn ready<'a>(lab: &'a Lab, more: &str) -> Node<'a> {
    lab.node(&service("web", &lab.ready_puppet(), &format!("{NOTIFY}\n{more}"))).up()
}

/// After the barrier everything that was said before it has been dealt with.
#[test]
fn ready_and_status_hold_when_the_barrier_is_released() {
    let lab = Lab::new();
    let _node = silent(&lab, "");
    assert_eq!(lab.phase("web-0"), "starting");
    for round in 0..20 {
        lab.tell("web-0", &format!("notify('READY=1', 'STATUS=round {round}') or sync()"));
        let web = lab.instance("web-0");
        assert_eq!(web["phase"], "ready");
        assert_eq!(web["status_text"], format!("round {round}"));
    }
}

/// Reliability 9.
#[test]
fn a_child_of_the_service_may_speak_for_it_where_all_may() {
    let lab = Lab::new();
    let _node = silent(&lab, "notify_access = \"all\"");
    lab.tell("web-0", "in_child(lambda: (notify('READY=1'), sync()))");
    assert_eq!(lab.phase("web-0"), "ready");
}

/// Reliability 9.
#[test]
fn a_child_of_the_service_is_refused_where_only_the_first_process_may_speak() {
    let lab = Lab::new();
    let node = silent(&lab, "notify_access = \"main\"");
    let child = lab.tell("web-0", "in_child(lambda: notify('READY=1'))");
    node.console.line(&format!("web-0 a notify message of process {child} was refused"));
    assert_eq!(lab.phase("web-0"), "starting");
    lab.tell("web-0", "notify('READY=1') or sync()");
    assert_eq!(lab.phase("web-0"), "ready");
}

#[test]
fn a_stranger_is_refused_even_with_the_same_user() {
    let lab = Lab::new();
    let node = silent(&lab, "");
    let path = lab.tell("web-0", "os.environ['NOTIFY_SOCKET']");
    let voice = UnixDatagram::unbound().unwrap();
    voice.send_to(b"READY=1", path.as_str().unwrap()).unwrap();
    let us = std::process::id();
    node.console.line(&format!("web-0 a notify message of process {us} was refused"));
    assert_eq!(lab.phase("web-0"), "starting");
}

/// Reliability 9.
#[test]
fn malformed_and_oversized_messages_change_nothing_and_kill_nothing() {
    let lab = Lab::new();
    let node = silent(&lab, "");
    let pid = lab.pid("web-0");
    for odd in [
        r"b'\xff\xfe\x00='",
        "b'READY'",
        "b'READY=2'",
        "b''",
        "b'EXTEND_TIMEOUT_USEC=soon'",
        r"b'READY=1\n' + b'x' * 65536",
    ] {
        lab.tell("web-0", &format!("send({odd})"));
    }
    lab.tell("web-0", "sync()");
    assert_eq!(lab.phase("web-0"), "starting");
    node.console.line("web-0 its notify message is too long and was not read");
    node.console.line("web-0 its notify message is not understood: READY=2");
    lab.tell("web-0", "notify('READY=1', 'READY=1', 'nonsense') or sync()");
    lab.tell("web-0", "notify('READY=1') or sync()");
    let web = lab.instance("web-0");
    assert_eq!((&web["phase"], &web["pid"]), (&"ready".into(), &pid.into()));
    node.console.line("web-0 ready in");
    assert_eq!(node.console.count("web-0 ready in"), 1);
}

/// A service that talks nonsense without end does not fill the log with it.
#[test]
fn nonsense_without_end_is_remarked_upon_ten_times() {
    let lab = Lab::new();
    let node = silent(&lab, "");
    lab.tell("web-0", "[notify('nonsense') for _ in range(200)] and sync()");
    lab.tell("web-0", "notify('READY=1')");
    node.console.line("web-0 ready in");
    assert_eq!(node.console.count("its notify message is not understood"), 10);
}

#[test]
fn a_service_that_says_stopping_is_given_its_stop_timeout_and_started_again() {
    let lab = Lab::new();
    let node = ready(&lab, "");
    let pid = lab.pid("web-0");
    lab.tell("web-0", "notify('STOPPING=1') or sync()");
    let web = lab.instance("web-0");
    assert_eq!((&web["phase"], &web["pid"]), (&"stopping".into(), &pid.into()));
    assert_eq!(web["reason"], "of its own accord");
    lab.tell_last("web-0", "os._exit(0)");
    node.console.nth_line(2, "web-0 ready in");
    node.console.line("web-0 ended: exit code 0 (of its own accord)");
}

#[test]
fn watchdog_messages_keep_a_service_alive_and_their_absence_ends_it_with_sigabrt() {
    let lab = Lab::new();
    let node = ready(&lab, "watchdog = \"1s\"");
    let pid = lab.pid("web-0");
    // Half as long again as it would live without.
    lab.tell("web-0", "[(notify('WATCHDOG=1'), time.sleep(0.02)) for _ in range(75)] and None");
    assert_eq!((lab.pid("web-0"), node.console.count("web-0 ended")), (pid, 0));
    node.console.line("web-0 stopping: its watchdog message did not come");
    node.console.line("web-0 ended: SIGABRT (its watchdog message did not come)");
    node.console.nth_line(2, "web-0 ready in");
    assert_ne!(lab.pid("web-0"), pid);
}

/// Reliability 17: SIGABRT does not reach a stopped process, SIGKILL does.
#[test]
fn a_stopped_service_misses_its_watchdog_and_is_killed() {
    let lab = Lab::new();
    let node = ready(&lab, "watchdog = \"200ms\"\nstop_timeout = \"200ms\"");
    processes::signal(lab.pid("web-0"), Signal::STOP);
    node.console.line("web-0 did not end within its stop timeout and is killed");
    node.console.line("web-0 ended: SIGKILL (its watchdog message did not come)");
}

/// The node is given no processor while the deadline passes.
#[test]
fn a_message_that_came_before_a_deadline_counts_although_both_are_heard_late() {
    let lab = Lab::new();
    let node = ready(&lab, "watchdog = \"1h\"");
    let pid = lab.pid("web-0");
    lab.tell("web-0", "notify('WATCHDOG_USEC=3000000') or sync()");
    let begun = Instant::now();
    node.signal(Signal::STOP);
    lab.tell("web-0", "notify('WATCHDOG=1', 'WATCHDOG_USEC=3600000000')");
    eventually("the deadline is over", || begun.elapsed() > Duration::from_secs(4));
    node.signal(Signal::CONT);
    lab.tell("web-0", "sync()");
    assert_eq!((lab.phase("web-0").as_str(), lab.pid("web-0")), ("ready", pid));
    assert_eq!(node.console.count("watchdog"), 0, "{}", node.console.text());
}

#[test]
fn a_service_can_trigger_its_own_watchdog() {
    let lab = Lab::new();
    let node = ready(&lab, "watchdog = \"1h\"");
    lab.tell_last("web-0", "notify('WATCHDOG=trigger') or signal.pause()");
    node.console.line("web-0 ended: SIGABRT (its watchdog message did not come)");
}

/// Both begin in the same step, so that the deadline of the one tells of that of the other.
#[test]
fn a_start_is_given_the_time_it_asks_for() {
    let lab = Lab::new();
    let once = "restart_policy = \"never\"\nstart_timeout = \"2s\"";
    let services = service("long", &lab.puppet(), &format!("{NOTIFY}\n{once}"))
        + &service("short", &idle(), &format!("{NOTIFY}\n{once}"));
    let node = lab.node(&services).start();
    node.console.line("long-0 starting");
    lab.tell("long-0", "notify('EXTEND_TIMEOUT_USEC=3600000000') or sync()");
    node.console.line("short-0 stopping: not ready within its start timeout");
    assert_eq!(lab.phase("long-0"), "starting");
    lab.tell("long-0", "notify('READY=1') or sync()");
    assert_eq!(lab.phase("long-0"), "ready");
}

const STORE_A_PIPE: &str = "ours, theirs = os.pipe(); os.write(theirs, b'cargo'); \
                            notify('FDSTORE=1', 'FDNAME=cargo', fds=[ours])";

#[test]
fn stored_descriptors_reach_the_next_run_under_their_names() {
    let lab = Lab::new();
    let node = ready(&lab, "");
    lab.tell("web-0", STORE_A_PIPE);
    lab.tell("web-0", "web = socket.create_server(('127.0.0.1', 0))");
    lab.tell("web-0", "notify('FDSTORE=1', 'FDNAME=web', fds=[web.fileno()]) or sync()");
    let port = lab.tell("web-0", "web.getsockname()[1]").as_u64().unwrap();
    kill(lab.pid("web-0"));
    node.console.nth_line(2, "web-0 ready in");
    assert_eq!(lab.tell("web-0", "os.environ['LISTEN_FDNAMES']"), "socket:cargo:web");
    assert_eq!(lab.tell("web-0", "os.environ['LISTEN_FDS']"), "3");
    assert_eq!(lab.tell("web-0", "os.read(4, 10).decode()"), "cargo");
    // The listener was open all the time.
    let caller = std::net::TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap()));
    assert!(caller.is_ok());
    assert!(lab.tell("web-0", "socket.socket(fileno=5).accept()[1]").is_array());
}

/// What was said before the end counts, also when the node hears of both at once.
#[test]
fn a_descriptor_stored_with_the_last_breath_is_kept() {
    let lab = Lab::new();
    let node = ready(&lab, "");
    for run in 2..12 {
        let name = format!("run{run}");
        let store = format!("notify('FDSTORE=1', 'FDNAME={name}', fds=[0])");
        node.signal(Signal::STOP);
        lab.tell_last("web-0", &format!("{store} or os.kill(os.getpid(), 9)"));
        node.signal(Signal::CONT);
        node.console.nth_line(run, "web-0 ready in");
        let names = lab.tell("web-0", "os.environ['LISTEN_FDNAMES']");
        assert!(names.as_str().unwrap().ends_with(&name), "run {run}: {names}");
    }
}

#[test]
fn a_removed_descriptor_does_not_come_back() {
    let lab = Lab::new();
    let node = ready(&lab, "");
    lab.tell("web-0", STORE_A_PIPE);
    lab.tell("web-0", "notify('FDSTOREREMOVE=1', 'FDNAME=cargo') or sync()");
    kill(lab.pid("web-0"));
    node.console.nth_line(2, "web-0 ready in");
    assert_eq!(lab.tell("web-0", "os.environ['LISTEN_FDNAMES']"), "socket");
    assert_eq!(lab.tell("web-0", "os.environ['LISTEN_FDS']"), "1");
}

#[test]
fn descriptors_beyond_the_store_are_closed_and_told_of() {
    let lab = Lab::new();
    let node = ready(&lab, "fd_store_max = 2");
    lab.tell("web-0", "pipes = [os.pipe() for _ in range(3)]");
    lab.tell("web-0", "notify('FDSTORE=1', fds=[theirs for _, theirs in pipes]) or sync()");
    node.console.line("web-0 fd_store_max is reached; descriptors closed: 1");
    lab.tell("web-0", "[os.close(theirs) for _, theirs in pipes] and None");
    // The surplus has nobody left who could write; the others have the node.
    assert_eq!(lab.tell("web-0", "os.read(pipes[2][0], 1).decode()"), "");
    kill(lab.pid("web-0"));
    node.console.nth_line(2, "web-0 ready in");
    assert_eq!(lab.tell("web-0", "os.environ['LISTEN_FDNAMES']"), "socket:stored:stored");
}

/// The service manager of a test: a socket, and what came through it.
struct Above {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
}

impl Above {
    fn bind(lab: &Lab) -> Self {
        let path = lab.path("above.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path, heard: Vec::new() }
    }

    /// Reads on until a message with this line has come.
    fn until(&mut self, line: &str) -> String {
        loop {
            let mut bytes = [0; 4096];
            let length = self.socket.recv(&mut bytes).unwrap_or_else(|error| {
                panic!("no {line} came: {error}; but {:?}", self.heard);
            });
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            self.heard.push(text.clone());
            if text.lines().any(|found| found == line) {
                return text;
            }
        }
    }

    /// Reads on until a message with this in it has come.
    fn until_said(&mut self, part: &str) -> String {
        while !self.heard.last().is_some_and(|text| text.contains(part)) {
            let mut bytes = [0; 4096];
            let length = self.socket.recv(&mut bytes).unwrap_or_else(|error| {
                panic!("no {part} came: {error}; but {:?}", self.heard);
            });
            self.heard.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
        self.heard.last().cloned().unwrap()
    }

    fn heard(&self, line: &str) -> bool {
        self.heard.iter().any(|text| text.lines().any(|found| found == line))
    }
}

#[test]
fn the_node_tells_its_service_manager_when_all_are_ready_that_it_lives_and_that_it_stops() {
    let lab = Lab::new();
    let mut above = Above::bind(&lab);
    let services = service("web", &lab.puppet(), NOTIFY) + &service("other", &idle(), "");
    let setup = lab.node(&services).env("NOTIFY_SOCKET", &above.path);
    let setup = setup.set("monitoring.log_target=console");
    let mut node = setup.env("WATCHDOG_USEC", "150000").start();
    node.console.line("other-0 ready in");
    above.until("WATCHDOG=1");
    above.until("WATCHDOG=1");
    assert!(!above.heard("READY=1"), "web is not ready");
    lab.tell("web-0", "notify('READY=1')");
    let said = above.until("READY=1");
    assert!(said.contains("STATUS=ready: 2 of 2 instances ready"), "{said}");
    above.until("WATCHDOG=1");
    let variables = environment(lab.pid("web-0"));
    let own = format!("NOTIFY_SOCKET={}/notify/", lab.runtime_dir().display());
    let of = |name: &str| variables.iter().filter(|v| v.starts_with(name)).collect::<Vec<_>>();
    assert!(of("NOTIFY_SOCKET").iter().all(|found| found.starts_with(&own)), "{variables:?}");
    assert_eq!((of("NOTIFY_SOCKET").len(), of("WATCHDOG").len()), (1, 0));
    node.signal(Signal::TERM);
    above.until("STOPPING=1");
    assert_eq!(node.end().code(), Some(0));
}

/// Reliability 60.
#[test]
fn a_reload_that_was_refused_is_told_above_until_one_is_taken() {
    let lab = Lab::new();
    let mut above = Above::bind(&lab);
    let setup = lab.node(&service("web", &idle(), "")).env("NOTIFY_SOCKET", &above.path);
    let node = setup.set("monitoring.log_target=console").up();
    above.until("READY=1");
    let file = lab.path("node.toml");
    let right = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{right}\nreadines = \"port\"\nport = 0\n")).unwrap();
    assert_eq!(lab.verb(&["reload"]).code, Some(78));
    let said = above.until_said("not reloaded: ");
    let begins = "READY=1\nSTATUS=ready: 1 of 1 instances ready; not reloaded: ";
    assert!(said.starts_with(begins), "{said}");
    assert!(said.contains("node.toml:") && said.contains("services.web.readines"), "{said}");
    assert!(said.ends_with(" (and 1 more)") && said.lines().count() == 2, "{said}");
    fs::write(&file, right).unwrap();
    node.signal(Signal::HUP);
    above.until("STATUS=ready: 1 of 1 instances ready");
    assert!(above.heard.iter().any(|text| text.starts_with("RELOADING=1\nMONOTONIC_USEC=")));
}

#[test]
fn time_is_asked_for_while_a_start_or_a_stop_goes_on_and_at_no_other_time() {
    const MORE: &str = "EXTEND_TIMEOUT_USEC=30000000";
    let lab = Lab::new();
    let mut above = Above::bind(&lab);
    let setup = lab.node(&service("web", &lab.puppet(), NOTIFY)).env("NOTIFY_SOCKET", &above.path);
    let mut node = setup.set("monitoring.log_target=console").start();
    above.until(MORE);
    assert!(!above.heard("READY=1"));
    lab.tell("web-0", "notify('READY=1')");
    above.until("READY=1");
    above.heard.clear();
    lab.tell("web-0", "signal.signal(signal.SIGTERM, lambda *_: notify('STATUS=deaf')) and None");
    node.signal(Signal::TERM);
    above.until("STOPPING=1");
    assert!(!above.heard(MORE), "{:?}", above.heard);
    above.until(MORE);
    processes::signal(lab.pid("web-0"), Signal::KILL);
    above.until("STATUS=stopped");
    assert_eq!(node.end().code(), Some(0));
}

/// Signals, operators, deadlines and the watchdog have their turn all the same.
#[test]
fn a_service_that_never_stops_talking_holds_up_nobody() {
    let lab = Lab::new();
    let mut above = Above::bind(&lab);
    let services = service("web", &lab.ready_puppet(), NOTIFY) + &service("other", &idle(), "");
    let setup = lab.node(&services).env("NOTIFY_SOCKET", &above.path);
    let setup = setup.set("monitoring.log_target=console");
    let _node = setup.env("WATCHDOG_USEC", "150000").up();
    let talk = "def talk():\n while True: notify('WATCHDOG=1')\n\
                for _ in range(4): threading.Thread(target=talk, daemon=True).start()";
    lab.tell("web-0", talk);
    let beats = |above: &Above| above.heard.iter().filter(|text| *text == "WATCHDOG=1").count();
    for round in 1..=5 {
        assert_eq!(lab.phase("web-0"), "ready");
        assert!(lab.done(&["restart", "other"]).starts_with("other-0 ready"));
        while beats(&above) < 2 * round {
            above.until("WATCHDOG=1");
        }
    }
}

/// The sockets on which services speak go with their runs.
#[test]
fn the_notify_socket_of_a_run_is_gone_with_it() {
    let lab = Lab::new();
    let node = ready(&lab, "");
    let folder = || fs::read_dir(lab.path("run/notify")).unwrap().count();
    assert_eq!(folder(), 1);
    kill(lab.pid("web-0"));
    node.console.nth_line(2, "web-0 ready in");
    assert_eq!(folder(), 1);
    lab.done(&["stop", "web"]);
    assert_eq!(folder(), 0);
}
