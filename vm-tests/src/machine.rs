//! A machine of its own for each test: restored from the snapshot in seconds, told what to do,
//! paused, cut off and booted again. It says what goes wrong by failing the test.
#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{Agent, Answer, TRIES_FOR};
use crate::image::{self, BOOTED, Content, Image};
use crate::qemu::{Console, Qemu, Start};
use crate::turn::Turn;
use crate::{Error, Release, evidence};

/// Shows messages and nothing else of them, as far as journald has taken them.
pub const JOURNAL: &str = "journalctl --no-pager --output cat";

#[derive(Debug)]
pub struct Machine {
    release: Release,
    name: String,
    image: Image,
    running: RefCell<Option<Running>>,
    folder: TempDir,
    turn: RefCell<Option<Turn>>,
}

#[derive(Debug)]
struct Running {
    qemu: Qemu,
    agent: Agent,
}

impl Machine {
    /// A pristine machine, booted, with the right time, and with a node that runs the built-in
    /// services. Waits until there is room for one more.
    pub fn running(release: Release, name: &str) -> Self {
        Self::with(Content::Running, release, name)
    }

    /// One where the node is installed and was never started.
    pub fn start(release: Release, name: &str) -> Self {
        Self::with(Content::Installed, release, name)
    }

    /// One that has never seen the node.
    pub fn bare(release: Release, name: &str) -> Self {
        Self::with(Content::Debian, release, name)
    }

    fn with(content: Content, release: Release, name: &str) -> Self {
        let turn = Turn::take();
        let machine = Self::restore(content, release, name, turn);
        machine.unwrap_or_else(|error| panic!("no {release} machine for {name}: {error}"))
    }

    fn restore(content: Content, release: Release, name: &str, turn: Turn) -> Result<Self, Error> {
        let image = Image::of(release)?;
        let folder = image::run_folder()?;
        let disk = folder.path().join("disk");
        image.copy(content, &disk)?;
        let start = || -> Result<Running, Error> {
            let mut running = Running::start(&image, Start::Restore, &folder)?;
            running.ready(|agent| agent.run(&set_clock()))?;
            Ok(running)
        };
        let running = match start() {
            Err(Error::Panic(words)) => {
                eprintln!("{release} for {name} once more, after\n{words}");
                image.copy(content, &disk)?;
                start()?
            }
            other => other?,
        };
        let (running, turn) = (RefCell::new(Some(running)), RefCell::new(Some(turn)));
        Ok(Self { release, name: name.to_owned(), image, running, folder, turn })
    }

    pub fn release(&self) -> Release {
        self.release
    }

    /// Runs a Bash script to its end, as root in /root.
    pub fn run(&self, script: &str) -> Answer {
        self.ask(script, |agent| agent.run(script))
    }

    /// Runs a script that must succeed, and gives its output without the last line's end.
    pub fn done(&self, script: &str) -> String {
        let answer = self.run(script);
        assert_eq!(answer.code, 0, "{self}: {script}\n{}{}", answer.out, answer.err);
        answer.out.trim_end().to_owned()
    }

    /// Runs it until it succeeds, and gives its output.
    pub fn wait_until(&self, script: &str) -> String {
        let answer = self.ask(script, |agent| agent.wait(script));
        self.in_time(script, &answer)
    }

    /// Reads lines of what a Python program's `COMMAND` writes until the program's `holds` is true
    /// of one, and gives that.
    pub fn judge_until(&self, program: &str) -> String {
        let answer = self.ask(program, |agent| agent.judge(program));
        self.in_time(program, &answer)
    }

    fn in_time(&self, what: &str, answer: &Answer) -> String {
        let (seconds, said) = (TRIES_FOR.as_secs(), format!("{}{}", answer.out, answer.err));
        assert_eq!(answer.code, 0, "{self}: not in {seconds} s: {what}\n{said}");
        answer.out.trim_end().to_owned()
    }

    /// What journalctl shows of this, with all that was logged so far. It is asked again if it
    /// complains: of a file that grows as it is opened, 257 says that it is truncated, and shows
    /// nothing of it.
    pub fn journal(&self, of: &str) -> String {
        self.wait_until(&format!(
            "journalctl --sync; exec 3>&1; \
             complaint=$({JOURNAL} {of} 2>&1 >&3); \
             echo -n \"$complaint\" >&2; test -z \"$complaint\""
        ))
    }

    /// Writes a file; its path has no spaces.
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let answer = self.ask(path, |agent| agent.put(path, content.as_ref()));
        assert_eq!(answer.code, 0, "{self}: cannot write {path}: {}", answer.err);
    }

    /// Seconds since its boot, which stand still while it is paused.
    pub fn uptime(&self) -> f64 {
        let uptime = self.done("cut -d ' ' -f 1 /proc/uptime");
        uptime.parse().unwrap_or_else(|_| panic!("{self}: /proc/uptime has {uptime:?}"))
    }

    /// Lets seconds of its own time pass, as a part of what is tried.
    pub fn pass(&self, seconds: u32) {
        self.done(&format!("sleep {seconds}"));
    }

    /// Holds it for this long, as a host does that is short of processors or moves it. Then its
    /// clock is set right, as such a host's agent does. Others run meanwhile.
    pub fn hold(&self, long: Duration) {
        self.monitor("stop", &json!({}));
        drop(self.turn.take());
        thread::sleep(long);
        self.turn.replace(Some(Turn::take()));
        self.monitor("cont", &json!({}));
        self.done(&set_clock());
    }

    /// A command of QEMU's machine protocol.
    pub fn monitor(&self, command: &str, arguments: &Value) -> Value {
        let mut running = self.running.borrow_mut();
        let Some(running) = running.as_mut() else { panic!("{self} is off") };
        let done = running.qemu.execute(command, arguments);
        done.unwrap_or_else(|error| panic!("{self}: {command}: {error}"))
    }

    /// What a power cut does: what is on the disk is there at the next boot, and nothing else.
    pub fn cut_power(&self) {
        drop(self.running.take());
    }

    /// Boots a machine that is off, to the end of its boot.
    pub fn boot(&self) {
        assert!(self.running.borrow().is_none(), "{self} is on");
        let mut booted = self.power_on();
        if let Err(Error::Panic(words)) = booted {
            eprintln!("{self} once more, after\n{words}");
            self.cut_power();
            booted = self.power_on();
        }
        booted.unwrap_or_else(|error| panic!("{self} does not boot: {error}"));
    }

    /// A machine that does not come up is left on: it may say why.
    fn power_on(&self) -> Result<(), Error> {
        let running = Running::start(&self.image, Start::Boot, &self.folder)?;
        // systemd gives up on the developer's shell, which ends at once where nobody has it.
        let booted = format!("systemctl reset-failed shell; {BOOTED}");
        self.running.borrow_mut().insert(running).ready(|agent| agent.wait(&booted))
    }

    fn ask(&self, what: &str, ask: impl FnOnce(&mut Agent) -> Result<Answer, Error>) -> Answer {
        let mut running = self.running.borrow_mut();
        let Some(running) = running.as_mut() else { panic!("{self} is off, asked for {what}") };
        let answer = ask(&mut running.agent);
        answer.unwrap_or_else(|error| {
            let error = running.qemu.last_words().map_or(error, Error::Panic);
            panic!("{self}: {what}: {error}")
        })
    }
}

impl Running {
    fn start(image: &Image, start: Start<'_>, folder: &TempDir) -> Result<Self, Error> {
        let disk = folder.path().join("disk");
        let hardware = image.hardware(&disk, "qcow2");
        let (qemu, agent) = Qemu::start(&hardware, start, Console::Nobody, folder.path())?;
        Ok(Self { qemu, agent })
    }

    /// Has the guest do what makes it what a test expects.
    fn ready(
        &mut self,
        ask: impl FnOnce(&mut Agent) -> Result<Answer, Error>,
    ) -> Result<(), Error> {
        let answer = ask(&mut self.agent);
        self.qemu.succeeded(answer)
    }
}

/// How often a test is to repeat what it does, by the environment variable of that name; none: as
/// often as it usually does.
pub fn times(variable: &str) -> Option<u32> {
    let said = std::env::var(variable).ok()?;
    Some(said.parse().unwrap_or_else(|_| panic!("{variable}={said} is no number of times")))
}

/// A restored machine believes that it is the moment of its snapshot.
pub fn set_clock() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("date --set=@{}.{:09} >/dev/null", now.as_secs(), now.subsec_nanos())
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.name, self.release)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            let name = format!("{}-{}", self.name.replace([' ', '/', ':'], "-"), self.release);
            let mut running = self.running.borrow_mut();
            let agent = running.as_mut().map(|running| &mut running.agent);
            let folder = evidence::keep(&name, self.folder.path(), agent);
            eprintln!("{self} failed; its journal, logs and status are in {}", folder.display());
        }
    }
}
