//! The orchestrator ends at a chosen system call: SIGKILL before every call by which it changes
//! the world, and a panic in its loop. strace does that; the binary knows nothing of it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use blackhole_node::rpc::client::channel_to;
use blackhole_node::rpc::pb::identity::identity_client::IdentityClient;
use blackhole_node::rpc::pb::identity::{CreateRequest, SignRequest};
use common::processes::runs;
use common::{Lab, Node, Pid, Setup, eventually, idle, service, sh};
use rustix::process::Signal;

/// What the orchestrator changes outside of itself, or asks of its children. A name that this
/// machine does not have is passed over.
const CHANGING: &str = "?mkdir,?mkdirat,?unlink,?unlinkat,?rmdir,?bind,?listen,?chmod,?fchmodat,\
                        ?ftruncate,?write,?clone,?clone3,?pidfd_open,?pidfd_send_signal,?waitid,\
                        ?kill,?pipe2,?socketpair,?memfd_create,?prctl,?sendto,?sendmsg";

const INSTANCES: [&str; 4] = ["deaf-0", "forks-0", "identity-0", "once-0"];

/// One that keeps state, one that ignores SIGTERM, one with daemons, and one that crashes once and
/// leaves a process behind.
fn services(life: u64) -> String {
    let forks =
        sh("(setsid sleep 1000000 &) ; (setsid sleep 1000000 </dev/null >/dev/null 2>&1 &)\n\
                    exec sleep 1000000");
    let deaf = sh("trap '' TERM; while :; do sleep 1000000; done");
    // A mark for each life: a shell that outlived the orchestrator before may still make its own.
    let once = sh(&format!(
        "[ -e crashed.{life} ] && exec sleep 1000000\n\
         touch crashed.{life}; sleep 1000000 & exit 1"
    ));
    service("forks", &forks, "depends_on = [\"once\"]")
        + &service("deaf", &deaf, "stop_timeout = \"20ms\"")
        + &service("once", &once, "")
}

/// One more life.
fn node(lab: &Lab) -> Setup<'_> {
    static LIVES: AtomicU64 = AtomicU64::new(0);
    let life = LIVES.fetch_add(1, Ordering::Relaxed);
    lab.node(&services(life)).set("services.identity.enabled=true")
}

/// A start, a crash of a service, a reload that adds one and changes another, an orderly stop, as
/// far as it comes. Gives whether it came to its own end.
fn live(lab: &Lab, setup: Setup<'_>) -> bool {
    let mut node = setup.start();
    let (mut announced, mut crashed) = (false, false);
    let up = node.console.wait_or_end("all are ready and one has crashed", |line| {
        announced |= line.contains("after the start");
        crashed |= line.contains("once-0 restarts at once");
        (announced && crashed).then_some(())
    });
    // It may be dead by the time of a signal; nobody has collected it yet.
    let changed = up.and_then(|()| {
        let file = lab.path("node.toml");
        let text = fs::read_to_string(&file).unwrap();
        let changed = text.replace("stop_timeout = \"20ms\"", "stop_timeout = \"30ms\"");
        fs::write(&file, changed + &service("extra", &idle(), "")).unwrap();
        node.signal(Signal::HUP);
        node.console.wait_or_end("the reload", |line| line.contains("extra-0 ready").then_some(()))
    });
    if changed.is_some() {
        node.signal(Signal::TERM);
    }
    let status = node.end();
    let killed = status.signal() == Some(Signal::KILL.as_raw());
    assert!(killed || status.code() == Some(0), "{status}\n{}", node.console.text());
    !killed
}

/// Every call that changes something in one life: its name, which of that name it is from 1, and
/// how strace writes it.
fn calls_of_a_life(lab: &Lab) -> Vec<(String, usize, String)> {
    let log = lab.path("calls");
    let file = log.display().to_string();
    let trace = format!("trace={CHANGING}");
    let traced = node(lab).under("strace", ["-D", "-q", "-o", &file, "-e", &trace]);
    assert!(live(lab, traced), "nobody killed it");
    // The tracer may be a moment behind.
    let ended = || fs::read_to_string(&log).unwrap().contains("+++ exited with 0 +++");
    eventually("the log of the calls is whole", ended);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let text = fs::read_to_string(&log).unwrap();
    let named = text.lines().filter_map(|line| Some((line.split_once('(')?.0.to_owned(), line)));
    named
        .filter(|(name, _)| {
            name.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c))
        })
        .map(|(name, line)| {
            let count = counts.entry(name.clone()).or_default();
            *count += 1;
            (name, *count, line.chars().take(90).collect())
        })
        .collect()
}

/// Sorted names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.unwrap().file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The next start ends all that was left, and has exactly its own.
fn comes_back<'a>(lab: &'a Lab, point: &str, left: &[Pid]) -> Node<'a> {
    let node = node(lab).start();
    node.console.line("ready: 4 of 4 instances ready");
    let survivors: Vec<&Pid> = left.iter().filter(|pid| runs(**pid)).collect();
    assert!(survivors.is_empty(), "{point}: {survivors:?}\n{}", node.console.text());
    let expected = INSTANCES.map(|name| format!("{name}.sock"));
    let sockets = names(&lab.path("run/sockets"));
    let own: Vec<_> = sockets.iter().filter(|name| name.contains('-')).collect();
    assert_eq!(own, expected.iter().collect::<Vec<_>>(), "{point}");
    for socket in &sockets {
        let path = lab.path("run/sockets").join(socket);
        assert!(UnixStream::connect(path).is_ok(), "{point}: {socket} is not bound");
    }
    if let Some(base) = lab.base_group() {
        let mut groups = names(&base.join("services"));
        groups.retain(|name| name.ends_with("-0"));
        assert_eq!(groups, INSTANCES, "{point}");
    }
    node
}

/// Reliability 26.
#[tokio::test]
async fn killed_before_any_call_that_changes_something_the_next_start_begins_clean() {
    let lab = Lab::new();
    let mut first = node(&lab).up();
    let identity = || IdentityClient::new(channel_to(&lab.socket("identity-0")));
    let made = identity().create(CreateRequest { label: "kept".to_owned() }).await.unwrap();
    let did = made.into_inner().identity.unwrap().did;
    // Each life begins with the left-overs of a node in full work.
    first.kill();
    let calls = calls_of_a_life(&lab);
    node(&lab).up().kill();

    let mut killed = BTreeMap::new();
    for (name, nth, shown) in &calls {
        let point = format!("before {name} {nth}, such as {shown}");
        let inject = format!("inject={name}:signal=SIGKILL:when={nth}");
        let trace = format!("trace={name}");
        let options = ["-D", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        if live(&lab, node(&lab).under("strace", options)) {
            // Some depend on how events happened to come together.
            println!("not reached: {point}");
            node(&lab).up().kill();
            continue;
        }
        *killed.entry(name.as_str()).or_insert(0) += 1;
        let left = lab.processes();
        comes_back(&lab, &point, &left).kill();
    }
    let deaths: usize = killed.values().sum();
    println!("killed at {deaths} of {} points: {killed:?}", calls.len());
    assert!(deaths >= 30, "{killed:?}");

    let left = lab.processes();
    let mut last = comes_back(&lab, "at the end", &left);
    let sign = SignRequest { did, payload: b"still here".to_vec() };
    assert!(identity().sign(sign).await.is_ok());
    last.stop();
    assert_eq!(names(&lab.path("run/sockets")), Vec::<String>::new());
    assert_eq!(names(&lab.path("run/notify")), Vec::<String>::new());
}

/// Reliability 31: a panic is never survived by half of the node. The runtime panics when it can no
/// longer wait for events.
#[test]
fn a_panic_ends_the_whole_process_with_sigabrt_and_the_next_start_begins_clean() {
    let lab = Lab::new();
    let services = service("web", &idle(), "");
    let inject = "inject=?epoll_wait,?epoll_pwait,?epoll_pwait2:error=EBADF:when=100+";
    let trace = "trace=?epoll_wait,?epoll_pwait,?epoll_pwait2";
    let options = ["-D", "-qq", "-o", "/dev/null", "-e", trace, "-e", inject];
    let mut node = lab.node(&services).under("strace", options).up();
    let web = lab.pid("web-0");
    eventually("it has waited often enough", || {
        // Each connection to its control socket wakes it.
        let _refused_at_the_end = UnixStream::connect(lab.path("run/control.sock"));
        !runs(node.pid())
    });
    let status = node.end();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
    node.console.line("panicked at");
    assert!(runs(web), "services outlive the orchestrator");
    let _next = lab.node(&services).up();
    assert!(!runs(web));
}

/// A reload is read on a thread of its own: the third to be made, after the console's and the
/// service. The host may have reached its limit of tasks by then.
#[test]
fn a_reload_without_a_thread_to_read_it_changes_nothing_and_ends_nobody() {
    let lab = Lab::new();
    let inject = "inject=?clone,?clone3:error=EAGAIN:when=3+";
    let options = ["-D", "-qq", "-o", "/dev/null", "-e", "trace=?clone,?clone3", "-e", inject];
    let node = lab.node(&service("web", &idle(), "")).under("strace", options).up();
    let web = lab.pid("web-0");
    node.signal(Signal::HUP);
    let said = node.console.line("not reloaded, nothing is changed");
    assert!(said.ends_with("no thread can be made to read it"), "{said}");
    assert_eq!(lab.pid("web-0"), web);
}
