//! Services that outlive their orchestrator under a real service manager, which keeps its
//! descriptors.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use test_case::test_case;
use vm_tests::Release::{self, Bookworm, Trixie};
use vm_tests::node::{BUILT_IN, GROUP, UPLOADED, json};
use vm_tests::{Machine, Node, times};

pub const GRPC: &str = include_str!("guest/grpc.py");
pub const CALLER: &str = include_str!("guest/caller.py");
const KILLER: &str = include_str!("guest/killer.py");

/// How often the orchestrator is killed, when `DEATHS` says nothing else.
const DEATHS: u32 = 5;

/// Counts, 50 times a second.
pub const COUNTS: &str = r#"
[services.counts]
command = ["python3", "-u", "-c", """
import time
number = 0
while True:
    number += 1
    print('count', number)
    time.sleep(0.02)
"""]
[services.counts.resources]
memory = "64MiB"
max_tasks = 16
cpu_cores = 1
"#;

/// The numbers that `counts` has in the journal, in their order.
pub fn counted(machine: &Machine) -> Vec<u64> {
    let lines = machine.journal("BLACKHOLE_SERVICE=counts");
    let numbers: Vec<u64> = lines
        .lines()
        .filter_map(|line| line.strip_prefix("count "))
        .map(|number| number.parse().unwrap())
        .collect();
    assert!(!numbers.is_empty(), "{lines}");
    numbers
}

/// Reliability 25, 67: killed again and again while clients call a service.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn killed_again_and_again_it_loses_no_process_no_call_and_no_line(release: Release) {
    let machine = Machine::running(release, "immortal");
    let node = Node::with(&machine, COUNTS);
    let others = node.bystanders(&[&BUILT_IN[..], &["counts-0"]].concat());
    let files = "memory.max pids.max cpu.max";
    let limits = format!("cd {GROUP}/services/counts-0 && head {files}");
    let limited = machine.done(&limits);
    machine.put("/root/grpc.py", GRPC);
    machine.put("/root/caller.py", CALLER);
    machine.put("/root/killer.py", KILLER);
    machine.done(
        "setsid python3 caller.py /run/blackhole/sockets/storage.sock end told.json \
         >caller.log 2>&1 </dev/null &",
    );
    let asked_for = times("DEATHS");
    let deaths = asked_for.unwrap_or(DEATHS);
    let die = |death| {
        let seconds = machine.done("python3 -I killer.py");
        println!("{release}: death {death} of {deaths}: {seconds} s");
        seconds.parse().unwrap()
    };
    let mut took: Vec<f64> = (1..=deaths).map(die).collect();
    took.sort_by(f64::total_cmp);
    machine.done("touch end");
    let calls = json(&machine.wait_until("cat told.json"));
    let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{release}: {deaths} adoptions in {median:.1} s, {most:.1} s at most; {calls}");
    // The number holds for a host that has nothing else to do, as one has for a campaign.
    assert!(asked_for.is_none() || most <= 10.0, "{most} s of guest time");
    assert_eq!(calls["failures"].as_array().unwrap().len(), 0, "{calls}");
    assert!(calls["calls"].as_u64().unwrap() > u64::from(deaths), "{calls}");
    others.services_undisturbed();
    assert_eq!(machine.done(&limits), limited, "its limits are others");
    assert_eq!(node.status()["node"]["generation"], deaths + 1);
    let mut numbers = counted(&machine);
    let lines = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    println!("{release}: {} lines, {} twice", numbers.len(), lines - numbers.len());
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "lines are lost");
    machine.done("systemctl stop blackhole");
    machine.done(&format!("test ! -e {GROUP}"));
}

/// Reliability 28: it hangs for longer than its watchdog has patience, and is followed by another.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn hung_it_is_ended_by_the_watchdog_and_its_services_go_on(release: Release) {
    let machine = Machine::running(release, "watchdog");
    let node = Node::with(&machine, COUNTS);
    let others = node.bystanders(&[&BUILT_IN[..], &["counts-0"]].concat());
    let former = node.main_pid();
    machine.done(&format!("kill -STOP {former}"));
    machine.wait_until("systemctl show --property NRestarts --value blackhole | grep -qx 1");
    node.follows();
    let journal = machine.journal("--unit blackhole");
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    assert_ne!(node.main_pid(), former);
    node.next_check(&BUILT_IN);
    others.services_undisturbed();
}

/// Reliability 69: a package is upgraded under it, and systemd is told to reload it.
#[test_case(Bookworm; "bookworm")]
#[test_case(Trixie; "trixie")]
fn a_reload_after_an_upgrade_of_the_package_becomes_it_in_place(release: Release) {
    let machine = Machine::running(release, "upgrade");
    let node = Node::with(&machine, COUNTS);
    let others = node.bystanders(&[&BUILT_IN[..], &["counts-0"]].concat());
    // A file of its own with the same content.
    machine.done(&format!("{UPLOADED} install && systemctl reload blackhole"));
    assert_eq!(node.status()["node"]["generation"], 1, "what is the same is not put there anew");
    machine.done("cp /usr/bin/blackhole-node new && mv new /usr/bin/blackhole-node");
    for generation in 2..=4 {
        machine.done("systemctl reload blackhole");
        assert_eq!(node.status()["node"]["generation"], generation);
        assert_eq!(node.property("ActiveState"), "active");
        machine.done("cp /usr/bin/blackhole-node new && mv new /usr/bin/blackhole-node");
    }
    // The same process with the same watchdog, children and limits; killed, it is followed as ever.
    others.undisturbed();
    machine.done("kill -9 $(systemctl show --property MainPID --value blackhole)");
    node.follows();
    others.services_undisturbed();
    let mut numbers = counted(&machine);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "lines are lost");
    machine.done("systemctl restart blackhole");
    assert_eq!(node.status()["node"]["generation"], 1, "a restart is a wanted stop and a start");
}
