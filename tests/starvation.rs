//! A machine with too much to do: who is given no processor is not taken for hung. A program of its
//! own, so that it starves no other test.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "it starts programs that only burn time")]

mod common;

use std::fs;
use std::process::Command;

use common::{Background, Lab, Pid, eventually};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const BURNERS: usize = 8;
/// Hundredths of a second of processor time that the burners are given before the verdict.
const BURNT: u64 = 600;

fn raw(pid: Pid) -> Option<rustix::process::Pid> {
    rustix::process::Pid::from_raw(pid)
}

/// The first processor that we may use.
fn one_processor() -> CpuSet {
    let ours = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|cpu| ours.is_set(*cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(first);
    one
}

fn threads(pid: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// Gives a process and its session the least of one processor.
fn starve(pid: Pid, processor: &CpuSet) {
    for thread in threads(pid) {
        sched_setaffinity(raw(thread), processor).unwrap();
        rustix::process::setpriority_process(raw(thread), 19).unwrap();
    }
    // Where the kernel groups sessions (sched(7)), nice values count within a session only.
    let _no_such_groups = fs::write(format!("/proc/{pid}/autogroup"), "19");
}

/// Time in user mode and in the kernel, in hundredths of a second (`proc_pid_stat(5)`).
fn ticks(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Reliability 54.
#[test]
fn a_service_that_is_given_no_processor_is_not_taken_for_hung() {
    let lab = Lab::new();
    let node = lab
        .node("")
        .set("services.identity.enabled=true")
        .set("process_management.health_checks.interval=\"100ms\"")
        .set("process_management.health_checks.timeout=\"50ms\"")
        .under("setsid", [])
        .up();
    let pid = lab.pid("identity-0");
    let processor = one_processor();
    let burners: Vec<Background> = (0..BURNERS)
        .map(|_| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "while :; do :; done"]);
            Background::without_output(command)
        })
        .collect();
    burners.iter().for_each(|one| sched_setaffinity(raw(one.pid()), &processor).unwrap());
    starve(pid, &processor);
    starve(node.pid(), &processor);
    eventually("the burners have burnt enough", || {
        burners.iter().map(|one| ticks(one.pid())).sum::<u64>() >= BURNT
    });
    drop(burners);
    let identity = lab.instance("identity-0");
    assert_eq!((&identity["phase"], &identity["restarts"]), (&"ready".into(), &0.into()));
    assert_eq!(lab.pid("identity-0"), pid);
    let (starved, strikes) =
        (node.console.count("was given no processor"), node.console.count("health check"));
    println!("{starved} checks did not count, {strikes} did");
    assert!(strikes * 10 <= starved, "{}", node.console.text());
}
