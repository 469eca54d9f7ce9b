//! What `/proc` says of processes and of the machine. A process that is gone is `None`, never an
//! error: it may go at any time. Source: the `proc_*(5)` manual pages.

mod ports;
mod rights;
mod stat;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::Add;
use std::time::Duration;

pub use ports::{Transport, port_holder};
pub use rights::{Rights, SystemCalls, rights};
pub use stat::{ProcessState, Stat, stat};

use super::error::{Error, failed};
use crate::units::{ByteSize, Pid};

/// Memory, processor time and threads of a process, or of several together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory; what processes share is counted for each.
    pub resident: ByteSize,
    /// Since the process started, of all its threads.
    pub cpu: Duration,
    pub threads: u64,
}

/// Time on a processor and in the run queue, summed over the living threads (`schedstat`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scheduled {
    pub ran: Duration,
    pub waited: Duration,
}

impl Usage {
    pub const ZERO: Self = Self { resident: ByteSize(0), cpu: Duration::ZERO, threads: 0 };
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            resident: ByteSize(self.resident.0.saturating_add(other.resident.0)),
            cpu: self.cpu.saturating_add(other.cpu),
            threads: self.threads.saturating_add(other.threads),
        }
    }
}

/// All processes that we may see.
pub fn processes() -> Result<Vec<Pid>, Error> {
    numbered_entries("/proc").map(Option::unwrap_or_default)
}

/// The children of this process, whichever thread made them; zombies and adopted orphans too.
pub fn own_children() -> Result<Vec<Pid>, Error> {
    let mut found = Vec::new();
    for task in numbered_entries("/proc/self/task")?.unwrap_or_default() {
        let file = format!("/proc/self/task/{task}/children");
        let Some(text) = read_optional(&file)? else { continue };
        for word in String::from_utf8_lossy(&text).split_whitespace() {
            let pid = word.parse().map_err(|_| strange(&file, "pids", word))?;
            found.push(Pid(pid));
        }
    }
    Ok(found)
}

/// How early the OOM killer chooses this process: -1000 (never) to 1000.
pub fn own_oom_score_adj() -> Result<i32, Error> {
    let file = "/proc/self/oom_score_adj";
    let text = fs::read_to_string(file).map_err(failed("read", file))?;
    text.trim().parse().map_err(|_| strange(file, "a score", &text))
}

/// Resident memory, processor time and threads of one process.
pub fn usage(pid: Pid) -> Result<Option<Usage>, Error> {
    let file = format!("/proc/{pid}/statm");
    let (Some(stat), Some(statm)) = (stat(pid)?, read_optional(&file)?) else { return Ok(None) };
    let statm = String::from_utf8_lossy(&statm).into_owned();
    let pages = statm.split(' ').nth(1).and_then(|word| word.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| strange(&file, "a number of resident pages", &statm))?;
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let resident = ByteSize(pages.saturating_mul(page));
    Ok(Some(Usage { resident, cpu: stat.cpu, threads: stat.threads }))
}

/// The sum over a set of processes; those that are gone count nothing.
pub fn total_usage(pids: impl IntoIterator<Item = Pid>) -> Result<Usage, Error> {
    let mut total = Usage::ZERO;
    for pid in pids {
        total = total + usage(pid)?.unwrap_or(Usage::ZERO);
    }
    Ok(total)
}

/// `None` also where the kernel was built without these numbers.
pub fn scheduled(pid: Pid) -> Result<Option<Scheduled>, Error> {
    let Some(tasks) = numbered_entries(&format!("/proc/{pid}/task"))? else { return Ok(None) };
    let mut total = None;
    for task in tasks {
        let file = format!("/proc/{pid}/task/{task}/schedstat");
        let Some(text) = read_optional(&file)? else { continue };
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut numbers = text.split_whitespace().map(str::parse);
        let (Some(Ok(ran)), Some(Ok(waited))) = (numbers.next(), numbers.next()) else {
            return Err(strange(&file, "nanoseconds run and waited", &text));
        };
        let sum: &mut Scheduled = total.get_or_insert_default();
        sum.ran = sum.ran.saturating_add(Duration::from_nanos(ran));
        sum.waited = sum.waited.saturating_add(Duration::from_nanos(waited));
    }
    Ok(total)
}

/// Whether a process was started with this variable, given as `NAME=value`. False when it is gone.
pub fn environ_contains(pid: Pid, entry: &[u8]) -> Result<bool, Error> {
    let environ = read_optional(&format!("/proc/{pid}/environ"))?.unwrap_or_default();
    Ok(environ.split(|byte| *byte == 0).any(|found| found == entry))
}

/// `None` where the folder does not exist. Sorted.
fn numbered_entries(folder: &str) -> Result<Option<Vec<Pid>>, Error> {
    let unlisted = |reason| failed("list", folder)(reason);
    let number = |name: &str| name.parse::<i32>().ok();
    let mut found = BTreeSet::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(reason) if is_gone(&reason) => return Ok(None),
        Err(reason) => return Err(unlisted(reason)),
    };
    for entry in entries {
        match entry {
            Ok(entry) => found.extend(entry.file_name().to_str().and_then(number)),
            Err(reason) if is_gone(&reason) => return Ok(None),
            Err(reason) => return Err(unlisted(reason)),
        }
    }
    Ok(Some(found.into_iter().map(Pid).collect()))
}

/// `None` where the file does not exist or its process is gone.
fn read_optional(file: &str) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(reason) if is_gone(&reason) => Ok(None),
        Err(reason) => Err(failed("read", file)(reason)),
    }
}

fn is_gone(reason: &io::Error) -> bool {
    matches!(reason.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

fn strange(file: &str, expected: &'static str, found: &str) -> Error {
    Error::Content { file: file.to_owned(), expected, found: found.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::process::own_pid;

    #[test]
    fn this_process_is_seen_and_measured() {
        let own = own_pid();
        assert!(processes().unwrap().contains(&own));
        let usage = usage(own).unwrap().unwrap();
        assert!(usage.resident >= ByteSize::mib(1) && usage.threads >= 1, "{usage:?}");
        let twice = total_usage([own, own]).unwrap();
        assert!(twice.resident.0 > usage.resident.0 && twice.threads > usage.threads);
        if let Some(scheduled) = scheduled(own).unwrap() {
            assert!(scheduled.ran > Duration::ZERO);
        }
    }

    #[test]
    fn a_process_that_does_not_exist_is_none() {
        let nobody = Pid(i32::MAX);
        assert_eq!(stat(nobody).unwrap(), None);
        assert_eq!(usage(nobody).unwrap(), None);
        assert_eq!(scheduled(nobody).unwrap(), None);
        assert!(!environ_contains(nobody, b"A=b").unwrap());
        assert_eq!(total_usage([nobody]).unwrap(), Usage::ZERO);
    }

    #[test]
    fn a_variable_is_matched_as_a_whole() {
        let path = std::env::var("PATH").unwrap();
        let own = own_pid();
        assert!(environ_contains(own, format!("PATH={path}").as_bytes()).unwrap());
        assert!(!environ_contains(own, format!("PATH={path}:").as_bytes()).unwrap());
        assert!(!environ_contains(own, b"PATH").unwrap());
    }
}
