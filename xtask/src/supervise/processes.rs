//! Processes as `/proc` shows them: who descends from whom, what they use, and their end.

use std::collections::BTreeMap;
use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

const LOOK: Duration = Duration::from_millis(2);
/// How long a process may take to end that is asked to.
const SOON: Duration = Duration::from_secs(3);
/// How long a killed process may take to go.
const LAST: Duration = Duration::from_secs(10);

/// A process; the number alone may be used anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub pid: i32,
    started: u64,
}

/// What processes have used so far, all their threads summed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effort {
    /// Processor time in nanoseconds (`schedstat`).
    pub cpu: u64,
    /// Voluntary context switches: each is a sleep, and so a wake-up.
    pub wakeups: u64,
    /// Involuntary context switches.
    pub preempted: u64,
}

impl Effort {
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            wakeups: self.wakeups.saturating_sub(earlier.wakeups),
            preempted: self.preempted.saturating_sub(earlier.preempted),
        }
    }
}

/// All processes below `root`, and it first.
pub fn tree(root: i32) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    let mut found = Vec::new();
    for pid in numbers("/proc") {
        let Some((parent, process)) = stat(pid) else { continue };
        children.entry(parent).or_default().push(process);
        if pid == root {
            found.push(process);
        }
    }
    let mut next = 0;
    while let Some(process) = found.get(next) {
        next += 1;
        found.extend(children.remove(&process.pid).unwrap_or_default());
    }
    found
}

fn numbers(folder: &str) -> Vec<i32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The parent and the process; none: it is gone.
fn stat(pid: i32) -> Option<(i32, Process)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    let parent = fields.get(1)?.parse().ok()?;
    let started = fields.get(19)?.parse().ok()?;
    Some((parent, Process { pid, started }))
}

/// Memory in KiB: its own, and its share of what it shares.
pub fn pss(pid: i32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next());
    value.and_then(|kib| kib.parse().ok()).ok_or_else(|| format!("{path} has no Pss"))
}

/// What these processes have used so far; those that are gone count nothing.
pub fn effort(processes: &[i32]) -> Effort {
    let mut sum = Effort::default();
    for pid in processes {
        for thread in numbers(&format!("/proc/{pid}/task")) {
            let read = |file| fs::read_to_string(format!("/proc/{pid}/task/{thread}/{file}"));
            let (schedstat, status) = (read("schedstat"), read("status"));
            let cpu = schedstat.ok().and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
            let status = status.unwrap_or_default();
            let field = |name: &str| {
                let value = status.lines().find_map(|line| line.strip_prefix(name));
                value.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0)
            };
            sum.cpu += cpu.unwrap_or(0);
            sum.wakeups += field("voluntary_ctxt_switches:");
            sum.preempted += field("nonvoluntary_ctxt_switches:");
        }
    }
    sum
}

/// Signals a process; one that is gone needs none.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _gone = kill_process(pid, signal);
    }
}

/// Waits for the end of a child; false: it still runs.
pub fn ends_within(child: &mut Child, within: Duration) -> bool {
    let end = Instant::now() + within;
    while Instant::now() < end {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return true;
        }
        std::thread::sleep(LOOK);
    }
    false
}

/// Ends these processes by SIGTERM, as far as they do so soon.
pub fn ask_to_end(processes: &[Process]) {
    signal_and_await(processes, Signal::TERM, SOON);
}

/// Ends these processes by SIGKILL and waits until they are gone.
pub fn end(processes: &[Process]) {
    signal_and_await(processes, Signal::KILL, LAST);
}

/// Orphans are our children, as we are their subreaper, and are collected.
fn signal_and_await(processes: &[Process], with: Signal, within: Duration) {
    let end = Instant::now() + within;
    for process in processes.iter().filter(|process| lives(**process)) {
        signal(process.pid, with);
    }
    while Instant::now() < end {
        for process in processes {
            let _not_ours = Pid::from_raw(process.pid)
                .filter(|_| lives(*process))
                .map(|pid| waitpid(Some(pid), WaitOptions::NOHANG));
        }
        if !processes.iter().any(|process| lives(*process)) {
            return;
        }
        std::thread::sleep(LOOK);
    }
}

fn lives(process: Process) -> bool {
    stat(process.pid).is_some_and(|(_, found)| found == process)
}
