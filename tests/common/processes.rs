//! What the kernel says of processes, read without the product's help.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open};

use super::PATIENCE;

pub type Pid = i32;

/// For facts that nobody tells of: asks until it holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "this did not come true: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn raw(pid: Pid) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(pid).unwrap_or_else(|| panic!("{pid} is no process"))
}

/// Sends a signal to a process that exists.
pub fn signal(pid: Pid, signal: Signal) {
    rustix::process::kill_process(raw(pid), signal)
        .unwrap_or_else(|error| panic!("cannot send {signal:?} to {pid}: {error}"));
}

/// SIGKILL, to a process that may be gone.
pub fn kill(pid: Pid) {
    let _gone_already = rustix::process::kill_process(raw(pid), Signal::KILL);
}

/// SIGKILL, and the certainty that it is dead: until then it may still accept a caller.
pub fn kill_dead(pid: Pid) {
    kill(pid);
    assert!(ends(pid, PATIENCE), "process {pid} does not die");
}

/// Waits until a process has ended; true when it did so within the bound.
pub fn ends(pid: Pid, within: Duration) -> bool {
    let Ok(pidfd) = pidfd_open(raw(pid), PidfdFlags::empty()) else { return true };
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a minute fits");
        let mut watched = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut watched, Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("cannot wait for {pid}: {error}"),
        }
    }
}

/// Whether the kernel writes core files into this folder, by what it tells us of a child of ours.
pub fn cores_are_written(folder: &Path) -> bool {
    let mut dying = Command::new("/bin/sh");
    dying.args(["-c", "ulimit -c unlimited; kill -ABRT $$"]).current_dir(folder);
    dying.status().expect("there is a shell").core_dumped()
}

/// The letter of `proc_pid_stat(5)`; none when there is no such process.
pub fn state(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Whether it runs: it exists and is no zombie.
pub fn runs(pid: Pid) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

pub fn children(pid: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let lists =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let words = |list: String| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    lists.flat_map(words).map(|word| word.parse().unwrap()).collect()
}

pub fn zombies(parent: Pid) -> Vec<Pid> {
    children(parent).into_iter().filter(|child| state(*child) == Some('Z')).collect()
}

/// The variables a process was started with.
pub fn environment(pid: Pid) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let entries = bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    entries.map(|entry| String::from_utf8_lossy(entry).into_owned()).collect()
}

/// Every living process that carries the mark of the node with this runtime folder.
pub fn marked(runtime_dir: &Path) -> Vec<Pid> {
    let mark = format!("BLACKHOLE_SUPERVISED={}", runtime_dir.display());
    let all = fs::read_dir("/proc").expect("/proc is there");
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| environment(*pid).contains(&mark)).collect()
}

/// The open descriptors of a process: number and what it is.
pub fn descriptors(pid: Pid) -> Vec<(i32, String)> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut found: Vec<(i32, String)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let target = fs::read_link(&path).ok()?;
            let number = path.file_name()?.to_str()?.parse().ok()?;
            Some((number, target.display().to_string()))
        })
        .collect();
    found.sort();
    found
}

pub fn threads(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// The value of a line of `/proc/PID/status`.
pub fn status_field(pid: Pid, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {key} of {pid}")).trim().to_owned()
}

/// The group of a process in the cgroup2 hierarchy.
pub fn group_of(pid: Pid) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned()
}

/// Our own group in the cgroup2 hierarchy; none where there is no such hierarchy for us.
pub fn own_group() -> Option<PathBuf> {
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let mount = mounts.iter().find(|mount| {
        Path::new(mount).join("cgroup.procs").exists() && {
            Path::new(mount).join("cgroup.controllers").exists()
        }
    })?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let name = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let folder = Path::new(mount).join(name);
    folder.is_dir().then_some(folder)
}

/// Removes an empty group and those below it, as far as that is possible.
pub fn remove_groups(group: &Path) {
    let below = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).for_each(|path| remove_groups(&path));
    let _gone_or_in_use = fs::remove_dir(group);
}
