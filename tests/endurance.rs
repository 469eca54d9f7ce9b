//! Many restarts: ten thousand one after the other, and a hundred at the same moment. Nothing is
//! gathered, lost or told twice. The real binary with real children.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use common::processes::{self, zombies};
use common::{Lab, Node, Pid, command, eventually, idle, service};
use rustix::process::Signal;

/// Cycles before the first look: by then every ring of log lines is full.
const WARM_UP: usize = 2_500;
const CYCLES: usize = 10_000;

/// What the orchestrator holds.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: usize,
    groups: usize,
    zombies: usize,
    resident_kib: usize,
}

fn held(lab: &Lab, pid: Pid) -> Held {
    let services = lab.base_group().map(|base| base.join("services"));
    let resident = processes::status_field(pid, "VmRSS");
    Held {
        descriptors: processes::descriptors(pid).len(),
        threads: processes::threads(pid),
        groups: services.map_or(0, |folder| fs::read_dir(folder).unwrap().count()),
        zombies: zombies(pid).len(),
        resident_kib: resident.trim_end_matches(" kB").parse().unwrap(),
    }
}

/// Waits for the `nth` end of a run of `service`, then stops it.
fn stop_after(lab: &Lab, node: &Node<'_>, service: &str, nth: usize) {
    let instance = format!(" {service}-");
    let mut ends = 0;
    node.console.wait(&format!("{nth} ends"), |line| {
        ends += usize::from(line.contains(" ended: ") && line.contains(&instance));
        (ends == nth).then_some(())
    });
    lab.done(&["stop", service]);
}

/// How often each run is named in a line with these words: `... run=17`.
fn runs_named(lines: &[String], words: &str) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    for line in lines.iter().filter(|line| line.contains(words)) {
        let run = line.rsplit_once(" run=").and_then(|(_, run)| run.parse().ok());
        *found.entry(run.unwrap_or_else(|| panic!("no run in {line}"))).or_insert(0) += 1;
    }
    found
}

/// Reliability 11, 37: programs that are gone before anything else is heard of them.
#[test]
fn ten_thousand_restart_cycles_lose_no_exit_and_leak_nothing() {
    let lab = Lab::new();
    let services = service("spin", &command(["/bin/true"]), "instances = 10\nmax_restarts = 1000")
        + &service("other", &idle(), "");
    let mut setup = lab.node(&services);
    for key in ["restart_window", "backoff_initial", "backoff_max"] {
        setup = setup.set(&format!("process_management.supervisor.{key}=\"1ms\""));
    }
    let mut node = setup.up();
    let other = lab.pid("other-0");
    stop_after(&lab, &node, "spin", WARM_UP);
    let before = held(&lab, node.pid());
    lab.done(&["start", "--no-block", "spin"]);
    stop_after(&lab, &node, "spin", WARM_UP + CYCLES);

    eventually("no more descriptors than before", || {
        held(&lab, node.pid()).descriptors <= before.descriptors + 5
    });
    eventually("no zombies", || zombies(node.pid()).is_empty());
    let after = held(&lab, node.pid());
    println!("before {before:?}\nafter  {after:?}");
    assert_eq!((after.threads, after.groups), (before.threads, before.groups));
    assert!(after.resident_kib * 100 <= before.resident_kib * 105, "{before:?} {after:?}");
    let bystander = lab.instance("other-0");
    assert_eq!((&bystander["pid"], &bystander["restarts"]), (&other.into(), &0.into()));

    node.stop();
    let lines = node.console.lines();
    assert_eq!(node.console.count("lines not shown"), 0);
    let (started, ended) = (runs_named(&lines, " starting "), runs_named(&lines, " ended: "));
    assert!(ended.len() > CYCLES && ended.values().all(|times| *times == 1));
    assert_eq!(started, ended);
}

/// Reliability 10: the first restart of each is immediate; those who fall together again rise one
/// by one. The spread is a quarter of the delay: 3 s for these.
#[test]
fn a_hundred_that_crash_together_twice_are_started_again_spread_over_time() {
    let lab = Lab::new();
    let many = |name| service(name, &idle(), "instances = 50");
    let node = lab
        .node(&(many("left") + &many("right")))
        .set("process_management.supervisor.backoff_initial=\"12s\"")
        .set("process_management.supervisor.backoff_max=\"12s\"")
        .up();
    for starts in [200, 300] {
        let status = lab.status();
        let all = status["instances"].as_array().unwrap();
        let pids: Vec<i64> = all.iter().map(|one| one["pid"].as_i64().unwrap()).collect();
        assert_eq!(pids.len(), 100);
        // A signal that no operator sends to end a service: a crash, which counts.
        let crash = |pid: &i64| processes::signal(Pid::try_from(*pid).unwrap(), Signal::USR1);
        pids.iter().for_each(crash);
        node.console.nth_line(starts, " ready in ");
    }
    assert_eq!(node.console.count("ended: SIGUSR1"), 200);
    assert_eq!(node.console.count("restarts at once (attempt 1)"), 100);
    assert_eq!(node.console.count(" (attempt 2)"), 100);
    let lines = node.console.lines();
    let starts = lines.iter().filter(|line| line.contains("-") && line.contains(" starting "));
    // The time of a line, such as 20:01:10.135, without its last digit.
    let slots: BTreeSet<&str> = starts.skip(200).map(|line| &line[..11]).collect();
    println!("the last hundred started in {} slots of 10 ms", slots.len());
    assert!(slots.len() >= 50, "{slots:?}");
    eventually("no zombies", || zombies(node.pid()).is_empty());
}
