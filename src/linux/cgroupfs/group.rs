//! One control group and what can be asked of it and done to it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::io::Interest;

use super::hierarchy::{Hierarchy, own_group_name};
use crate::linux::error::{Error, failed};
use crate::linux::fd_readiness;
use crate::linux::pidfd::Pidfd;
use crate::units::{ByteSize, Pid, Signal};

/// How often killing looks for new processes, where the kernel cannot kill a group by itself: a
/// fork bomb may be faster.
const KILL_ROUNDS: usize = 1000;

/// A group that is held open. It stays this group even where another of its name is made later.
/// When it was removed it has no processes, and its files fail with ENOENT or ENODEV.
#[derive(Debug)]
pub struct Group {
    folder: OwnedFd,
    path: PathBuf,
    /// As `/proc/PID/cgroup` names it.
    name: String,
}

impl Group {
    /// Our own group. It was delegated to us (systemd's `Delegate=`), so we may make groups in it.
    /// Killing it kills this process.
    pub fn own(hierarchy: &Hierarchy) -> Result<Self, Error> {
        let (path, name) = (hierarchy.own_path.clone(), hierarchy.own_name.clone());
        let folder = open_folder(rustix::fs::CWD, &path);
        Ok(Self { folder: folder.map_err(failed("open group", path.display()))?, path, name })
    }

    /// The group that our own is in; `None` where our own is the topmost that we see.
    pub fn above_own(hierarchy: &Hierarchy) -> Result<Option<Self>, Error> {
        let Some((name, _)) = hierarchy.own_name.trim_end_matches('/').rsplit_once('/') else {
            return Ok(None);
        };
        let Some(path) = hierarchy.own_path.parent() else { return Ok(None) };
        let folder = open_folder(rustix::fs::CWD, path);
        let folder = folder.map_err(failed("open group", path.display()))?;
        let name = if name.is_empty() { "/" } else { name };
        Ok(Some(Self { folder, path: path.to_owned(), name: name.to_owned() }))
    }

    /// The group of this name below this one; made where it does not exist.
    pub fn create(&self, name: &str) -> Result<Self, Error> {
        check_name(name)?;
        match rustix::fs::mkdirat(&self.folder, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => self.child(name),
            Err(reason) => Err(failed("make group", self.path.join(name).display())(reason)),
        }
    }

    /// An existing group below this one.
    pub fn child(&self, name: &str) -> Result<Self, Error> {
        check_name(name)?;
        let path = self.path.join(name);
        let folder = open_folder(&self.folder, Path::new(name));
        let folder = folder.map_err(failed("open group", path.display()))?;
        let name = format!("{}/{name}", self.name.trim_end_matches('/'));
        Ok(Self { folder, path, name })
    }

    /// Where the group is in the file system.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the service manager gave the group to who runs in it (systemd's `Delegate=`, which
    /// sets these attributes to 1; `trusted.` is for root to read).
    pub fn is_delegated(&self) -> Result<bool, Error> {
        for attribute in ["user.delegate", "trusted.delegate"] {
            let mut value = [0; 8];
            match rustix::fs::fgetxattr(&self.folder, attribute, &mut value) {
                Ok(length) if value.get(..length) == Some(b"1") => return Ok(true),
                // Longer than 8 bytes is not 1 either.
                Ok(_) | Err(Errno::RANGE | Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
                Err(reason) => {
                    let object = format!("{attribute} of {}", self.path.display());
                    return Err(failed("read", object)(reason));
                }
            }
        }
        Ok(false)
    }

    /// The controllers that can be enabled for the groups below (`cgroup.controllers`).
    pub fn controllers(&self) -> Result<BTreeSet<String>, Error> {
        Ok(words(&self.read("cgroup.controllers")?))
    }

    /// The controllers that the groups directly below have (`cgroup.subtree_control`).
    pub fn enabled_controllers(&self) -> Result<BTreeSet<String>, Error> {
        Ok(words(&self.read("cgroup.subtree_control")?))
    }

    /// Enables a controller for the groups directly below. EBUSY: there are processes in this group
    /// itself, which then only the root of the host's hierarchy may have.
    pub fn enable_controller(&self, controller: &str) -> Result<(), Error> {
        self.write("cgroup.subtree_control", &format!("+{controller}"))
    }

    /// Disables a controller for the groups directly below, which drops the limits written there.
    /// EBUSY: one of them has it enabled for groups of its own.
    pub fn disable_controller(&self, controller: &str) -> Result<(), Error> {
        self.write("cgroup.subtree_control", &format!("-{controller}"))
    }

    /// The names of the groups directly below, sorted.
    pub fn children(&self) -> Result<Vec<String>, Error> {
        let unlisted = |reason| failed("list the groups below", self.path.display())(reason);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.folder).map_err(unlisted)? {
            let entry = entry.map_err(unlisted)?;
            let name = entry.file_name().to_string_lossy();
            if entry.file_type() == FileType::Directory && name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The whole text of an interface file, such as `memory.max`.
    pub fn read(&self, file: &str) -> Result<String, Error> {
        let mut text = String::new();
        let opened = self.open_file(file, OFlags::RDONLY)?;
        let read = File::from(opened).read_to_string(&mut text);
        read.map_err(failed("read", self.path.join(file).display()))?;
        Ok(text)
    }

    /// `None` where the file does not exist: the controller is not enabled, or the kernel is old.
    pub fn read_optional(&self, file: &str) -> Result<Option<String>, Error> {
        match self.read(file) {
            Err(refused) if refused.errno() == Some(libc::ENOENT) => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    /// As `read_optional`, and `None` too where the group was removed.
    pub(super) fn read_if_there(&self, file: &str) -> Result<Option<String>, Error> {
        match self.read(file) {
            Err(refused) if is_gone(&refused) => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    /// Writes to an interface file. The kernel takes the value as a whole or refuses it.
    pub fn write(&self, file: &str, value: &str) -> Result<(), Error> {
        let opened = self.open_file(file, OFlags::WRONLY)?;
        let written = File::from(opened).write_all(value.as_bytes());
        written
            .map_err(failed("write to", format!("{}: {value:?}", self.path.join(file).display())))
    }

    pub(super) fn open_file(&self, file: &str, flags: OFlags) -> Result<OwnedFd, Error> {
        check_name(file)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.folder, file, flags, Mode::empty())
            .map_err(failed("open", self.path.join(file).display()))
    }

    /// For a child that joins by itself.
    pub(in crate::linux) fn open_procs(&self) -> Result<OwnedFd, Error> {
        self.open_file("cgroup.procs", OFlags::WRONLY)
    }

    /// Moves a process, with all its threads, into this group. Its children stay where they are.
    pub fn add(&self, pid: Pid) -> Result<(), Error> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Whether there are processes in this group itself, not only below it.
    pub fn holds_processes(&self) -> Result<bool, Error> {
        Ok(!or_default_if_gone(self.read("cgroup.procs"))?.is_empty())
    }

    /// Whether it is the root of the host's hierarchy, which has no type (cgroups(7)).
    pub fn is_root(&self) -> Result<bool, Error> {
        Ok(self.read_optional("cgroup.type")?.is_none())
    }

    /// The processes of this group and of all below it. Zombies are not among them.
    pub fn procs(&self) -> Result<Vec<Pid>, Error> {
        let file = "cgroup.procs";
        let mut found = Vec::new();
        for line in or_default_if_gone(self.read(file))?.lines() {
            let pid = line.parse().map_err(|_| self.strange(file, "a pid", line))?;
            found.push(Pid(pid));
        }
        for name in or_default_if_gone(self.children())? {
            let below = self.child(&name).and_then(|child| child.procs());
            found.extend(or_default_if_gone(below)?);
        }
        // 0 stands for a process that our pid namespace does not show.
        found.retain(|pid| pid.0 > 0);
        Ok(found)
    }

    /// Whether a process is in this group or below it. True for its zombies too; false when there
    /// is no such process.
    pub fn contains(&self, pid: Pid) -> Result<bool, Error> {
        let file = format!("/proc/{pid}/cgroup");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(reason) if is_no_process(&reason) => return Ok(false),
            Err(reason) => return Err(failed("read", file)(reason)),
        };
        let name = own_group_name(&text).unwrap_or_default();
        let below = name.strip_prefix(self.name.trim_end_matches('/'));
        let is_below = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        // A group outside our cgroup namespace is named with `..`.
        Ok(is_below && !name.starts_with("/.."))
    }

    /// Kills every process of this group and of all below it, those too that are being forked, are
    /// stopped or frozen. `emptied` says when they are gone.
    ///
    /// A killed group is to be removed and created again before the next process is cloned into it:
    /// the kernel counts the kills of a group, compares that with the count of the parent's own
    /// group, and kills the child where they differ (seen on 6.18, `CLONE_INTO_CGROUP`).
    pub fn kill(&self) -> Result<(), Error> {
        match self.write("cgroup.kill", "1") {
            // Linux before 5.14 has no such file.
            Err(refused) if refused.errno() == Some(libc::ENOENT) => {
                self.kill_one_by_one().map(|_killed| ())
            }
            outcome => outcome,
        }
    }

    /// SIGKILL to each process, until none is found that was not killed before; returns which
    /// those were. Unlike `kill` it leaves a group that the next process can be cloned into.
    pub fn kill_one_by_one(&self) -> Result<Vec<Pid>, Error> {
        let mut killed = BTreeSet::new();
        for _ in 0..KILL_ROUNDS {
            let found = self.procs()?;
            let fresh: Vec<Pid> = found.into_iter().filter(|pid| killed.insert(*pid)).collect();
            if fresh.is_empty() {
                break;
            }
            for pid in fresh {
                // Asked again after it is held: the number may be another process's by now.
                if let Some(held) = Pidfd::open(pid)?
                    && self.contains(pid)?
                {
                    held.send(Signal::KILL)?;
                }
            }
        }
        Ok(killed.into_iter().collect())
    }

    /// Whether there is a living process in this group or below it.
    pub fn populated(&self) -> Result<bool, Error> {
        match self.read("cgroup.events") {
            Err(refused) if is_gone(&refused) => Ok(false),
            events => self.event_flag(&events?, "populated"),
        }
    }

    /// Whether all processes of the group are frozen (`cgroup.freeze`). Killing still works.
    pub fn frozen(&self) -> Result<bool, Error> {
        self.event_flag(&self.read("cgroup.events")?, "frozen")
    }

    fn event_flag(&self, events: &str, key: &'static str) -> Result<bool, Error> {
        match flat_value(events, key) {
            Some(value) => Ok(value != 0),
            None => Err(self.strange("cgroup.events", key, events)),
        }
    }

    /// Waits until no living process is left in this group and below it. The kernel wakes us.
    /// A group that was removed is empty.
    pub async fn emptied(&self) -> Result<(), Error> {
        let file = "cgroup.events";
        let unreadable = |reason| failed("read", self.path.join(file).display())(reason);
        let events = match self.open_file(file, OFlags::RDONLY) {
            Err(refused) if is_gone(&refused) => return Ok(()),
            opened => opened?,
        };
        loop {
            let mut bytes = [0; 256];
            let read = match rustix::io::pread(&events, &mut bytes, 0) {
                Ok(read) => read,
                Err(Errno::NODEV) => return Ok(()),
                Err(reason) => return Err(unreadable(reason.into())),
            };
            let text = String::from_utf8_lossy(bytes.get(..read).unwrap_or_default());
            if !self.event_flag(&text, "populated")? {
                return Ok(());
            }
            fd_readiness::ready(events.as_fd(), Interest::PRIORITY).await.map_err(unreadable)?;
        }
    }

    /// Processes and threads of the group and below it: the count of the pids controller, or
    /// without it how many the group lists. Neither looks into `/proc`.
    pub fn tasks(&self) -> Result<u64, Error> {
        let file = "pids.current";
        match self.read_if_there(file)? {
            Some(text) => text.trim().parse().map_err(|_| self.strange(file, "a number", &text)),
            None => self.listed_tasks(),
        }
    }

    fn listed_tasks(&self) -> Result<u64, Error> {
        let mut count = or_default_if_gone(self.read("cgroup.threads"))?.lines().count() as u64;
        for name in or_default_if_gone(self.children())? {
            let below = self.child(&name).and_then(|child| child.listed_tasks());
            count += or_default_if_gone(below)?;
        }
        Ok(count)
    }

    /// `None` without the memory controller.
    pub fn memory_current(&self) -> Result<Option<ByteSize>, Error> {
        let file = "memory.current";
        let Some(text) = self.read_optional(file)? else { return Ok(None) };
        let bytes = text.trim().parse().map_err(|_| self.strange(file, "a number", &text))?;
        Ok(Some(ByteSize(bytes)))
    }

    /// The processor time that the group has used since it was made, of processes that ended too.
    /// It needs no controller.
    pub fn cpu_usage(&self) -> Result<Option<Duration>, Error> {
        Ok(self.flat_field("cpu.stat", "usage_usec")?.map(Duration::from_micros))
    }

    /// How long some process of the group was runnable and waited for a processor, a wait that goes
    /// on included (PSI, `cpu.pressure`). It needs no controller. `None` where the kernel does not
    /// count it.
    pub fn cpu_waited(&self) -> Result<Option<Duration>, Error> {
        let file = "cpu.pressure";
        let text = match self.read_optional(file) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            // Switched off, for this group or for all.
            Err(refused) if refused.errno() == Some(libc::EOPNOTSUPP) => return Ok(None),
            Err(refused) => return Err(refused),
        };
        let some = text.lines().find_map(|line| line.strip_prefix("some "));
        let total = some.and_then(|some| some.split("total=").nth(1)?.trim().parse().ok());
        let total = total.ok_or_else(|| self.strange(file, "a total of some", &text))?;
        Ok(Some(Duration::from_micros(total)))
    }

    /// How many processes of the group and below it the OOM killer has ended.
    /// `None` without the memory controller.
    pub fn oom_kills(&self) -> Result<Option<u64>, Error> {
        self.flat_field("memory.events", "oom_kill")
    }

    fn flat_field(&self, file: &str, key: &'static str) -> Result<Option<u64>, Error> {
        let Some(text) = self.read_optional(file)? else { return Ok(None) };
        let value = flat_value(&text, key).ok_or_else(|| self.strange(file, key, &text))?;
        Ok(Some(value))
    }

    /// Removes the group and all below it, lowest first. EBUSY: there are living processes left.
    /// Zombies do not keep it. A group that is gone already is fine.
    pub fn remove(&self) -> Result<(), Error> {
        for name in or_default_if_gone(self.children())? {
            or_default_if_gone(self.child(&name).and_then(|child| child.remove()))?;
        }
        match rustix::fs::rmdir(&self.path) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(reason) => Err(failed("remove group", self.path.display())(reason)),
        }
    }

    fn strange(&self, file: &str, expected: &'static str, found: &str) -> Error {
        let file = self.path.join(file).display().to_string();
        Error::Content { file, expected, found: found.to_owned() }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

fn open_folder(at: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

/// One path component: nothing may lead out of the group.
fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
        return Err(Error::GroupName { name: name.to_owned() });
    }
    Ok(())
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A "flat keyed" file: `KEY VALUE` lines.
pub(super) fn flat_value(text: &str, key: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}

fn is_gone(refused: &Error) -> bool {
    matches!(refused.errno(), Some(libc::ENOENT | libc::ENODEV))
}

/// A group may be removed at any time, by others too; then there is nothing in it.
fn or_default_if_gone<T: Default>(outcome: Result<T, Error>) -> Result<T, Error> {
    match outcome {
        Err(refused) if is_gone(&refused) => Ok(T::default()),
        outcome => outcome,
    }
}

fn is_no_process(reason: &std::io::Error) -> bool {
    matches!(reason.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}
