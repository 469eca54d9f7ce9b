//! Where the race takes place: a folder in memory and one on disk, the services' voice, and the
//! supervisors that run. Whatever was started in it ends with it, and its folders go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use super::Interrupt;
use super::contenders::{self, Contender, Duty, Field, Programs};
use super::ears::{Ears, Id};
use super::processes::{self, Effort, Process};

/// How long a supervisor may take to start everything, or to end it.
pub const PATIENCE: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Arena {
    pub programs: Programs,
    memory: PathBuf,
    disk: PathBuf,
    socket: PathBuf,
    pub ears: Ears,
    pub interrupt: Interrupt,
    next: Id,
}

/// A supervisor with its services.
#[derive(Debug)]
pub struct Running {
    pub contender: Contender,
    root: Child,
    pub pid: i32,
    pub ids: std::ops::Range<Id>,
    /// When it was executed, on the monotonic clock.
    pub began: u64,
    pub logs: Vec<PathBuf>,
    folders: [PathBuf; 2],
}

impl Running {
    pub fn folder(&self) -> &Path {
        let [folder, _logs] = &self.folders;
        folder
    }
}

/// Where a supervisor writes its logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    InMemory,
    OnDisk,
}

impl Arena {
    pub fn open(target: &Path, programs: Programs, interrupt: Interrupt) -> Result<Self, String> {
        let name = format!("supervise-{}", std::process::id());
        let memory = Path::new("/dev/shm").join(&name);
        let disk = target.join("bench").join(name);
        contenders::make(&memory)?;
        contenders::make(&disk)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| format!("cannot become the subreaper: {error}"))?;
        let socket = memory.join("ears");
        let ears = Ears::open(&socket, interrupt.clone())?;
        Ok(Self { programs, memory, disk, socket, ears, interrupt, next: 0 })
    }

    pub fn memory(&self) -> &Path {
        &self.memory
    }

    /// Starts a supervisor of so many services, which then come up.
    pub fn start(
        &mut self,
        contender: Contender,
        count: u32,
        duty: Duty,
        logs: Logs,
    ) -> Result<Running, String> {
        let first = self.next;
        self.next += count;
        let folder = self.memory.join(format!("{first}"));
        let log_folder = match logs {
            Logs::InMemory => self.memory.join(format!("{first}-logs")),
            Logs::OnDisk => self.disk.join(format!("{first}-logs")),
        };
        contenders::make(&folder)?;
        contenders::make(&log_folder)?;
        let field = Field {
            programs: &self.programs,
            ears: &self.socket,
            first,
            count,
            duty,
            folder: &folder,
            logs: &log_folder,
        };
        let mut ready = contenders::prepare(contender, &field)?;
        let errors = fs::File::create(folder.join("stderr")).map_err(|error| error.to_string())?;
        ready.command.stdin(Stdio::null()).stderr(errors);
        let began = now();
        let root = ready.command.spawn();
        let root = root.map_err(|error| cannot_start(&ready.command, &error))?;
        let pid = i32::try_from(root.id()).map_err(|error| error.to_string())?;
        let ids = first..first + count;
        let folders = [folder, log_folder];
        Ok(Running { contender, root, pid, ids, began, logs: ready.logs, folders })
    }

    /// Waits until all its services run; nanoseconds since it was executed.
    pub fn await_all(&mut self, running: &Running) -> Result<u64, String> {
        let up = self.ears.all_run(running.ids.clone(), 0, PATIENCE);
        let up = up.map_err(|missing| {
            let said = fs::read_to_string(running.folder().join("stderr")).unwrap_or_default();
            format!("{}: {missing}\n{said}", running.contender.name())
        })?;
        Ok(up - running.began)
    }

    /// The pids of supervision: all below it, and itself, but no service.
    pub fn supervision(&mut self, running: &Running) -> Vec<i32> {
        let services = self.services(running);
        let all = processes::tree(running.pid).into_iter().map(|process| process.pid);
        all.filter(|pid| !services.contains(pid)).collect()
    }

    pub fn services(&mut self, running: &Running) -> Vec<i32> {
        running.ids.clone().filter_map(|id| self.ears.run(id)).map(|run| run.pid).collect()
    }

    pub fn effort(&mut self, running: &Running) -> Effort {
        processes::effort(&self.supervision(running))
    }

    /// Ends it and its services; its files go.
    pub fn stop(&mut self, mut running: Running) {
        let all = processes::tree(running.pid);
        let signal = match running.contender {
            Contender::Ours | Contender::Floor | Contender::S6 | Contender::S6Execline => {
                Signal::TERM
            }
            // runsvdir leaves its services alone at SIGTERM.
            Contender::Runit => Signal::HUP,
        };
        processes::signal(running.pid, signal);
        let _or_killed = processes::ends_within(&mut running.root, STOP);
        processes::end(&all);
        for folder in &running.folders {
            let _left_to_the_end = fs::remove_dir_all(folder);
        }
    }

    /// Sleeps, unless the bench is interrupted.
    pub fn rest(&self, time: Duration) -> Result<(), String> {
        let end = std::time::Instant::now() + time;
        loop {
            self.interrupt.check()?;
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let below = || -> Vec<Process> {
            processes::tree(own).into_iter().filter(|process| process.pid != own).collect()
        };
        processes::ask_to_end(&below());
        loop {
            let left = below();
            if left.is_empty() {
                break;
            }
            processes::end(&left);
        }
        for folder in [&self.memory, &self.disk] {
            if let Err(error) = fs::remove_dir_all(folder) {
                eprintln!("xtask: cannot remove {}: {error}", folder.display());
            }
        }
    }
}

/// Nanoseconds of the monotonic clock.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

pub fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

fn cannot_start(command: &std::process::Command, error: &io::Error) -> String {
    format!("cannot start {}: {error}", command.get_program().display())
}
