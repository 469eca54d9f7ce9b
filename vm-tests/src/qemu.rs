//! One running QEMU: its command line, its monitor, its end. Emulated by default: where /dev/kvm is
//! there it may still hang a guest, so it is used when `BLACKHOLE_VM_KVM` is set, and never looked
//! for.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::Error;
use crate::agent::{Agent, Answer, PATIENCE};

/// The name of the snapshot in the disk of a booted machine.
pub const SNAPSHOT: &str = "booted";

/// What every machine is. One processor: a second one costs a fifth more, for the emulated ones
/// wait for each other. Linux 6.12 dies now and then of the cmpxchg16b that QEMU 7.2 emulates.
pub const SHAPE: [&str; 6] = ["-cpu", "qemu64,-cx16", "-smp", "1", "-m", "1024"];

/// Without randomized addresses QEMU translates the code of a program once for all processes of it,
/// which then cost a third. Where the kernel did not trust the processor's counter, it would ask a
/// device for the time.
pub const KERNEL: &str = "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0 \
                          panic=-1 oops=panic psi=1 mitigations=off norandmaps tsc=reliable";

/// How often a wait for QEMU's first word looks whether it still runs.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    /// From the kernel on, writing to the disk itself.
    Boot,
    /// From the kernel on, writing to a new file on top of the disk.
    BootOnto(&'a Path),
    /// Where the snapshot in the disk was taken.
    Restore,
}

/// Who has the guest's virtual console, on which a shell waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Console {
    Nobody,
    /// Our own standard input and output; Ctrl-A X ends the machine.
    Terminal,
}

/// What QEMU is started with.
#[derive(Debug, Clone, Copy)]
pub struct Hardware<'a> {
    pub kernel: &'a Path,
    pub initrd: &'a Path,
    pub disk: &'a Path,
    pub disk_format: &'a str,
}

impl Hardware<'_> {
    /// The same for every start: a snapshot is restored on the machine that it was taken of.
    fn command(&self, start: Start<'_>) -> Command {
        let accelerator = match std::env::var_os("BLACKHOLE_VM_KVM") {
            Some(_) => "kvm",
            None => "tcg,thread=multi",
        };
        // setpriv: a machine ends with the test that started it, whatever ends that.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        command.args(["-accel", accelerator]).args(SHAPE);
        command.args(["-nodefaults", "-display", "none", "-no-reboot", "-rtc", "clock=host"]);
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(self.initrd);
        command.args(["-append", KERNEL]);
        let (disk, format) = (self.disk.display(), self.disk_format);
        command.arg("-drive").arg(format!("file={disk},format={format},if=virtio,id=root"));
        command.args(["-device", "virtio-serial", "-device", "virtconsole,chardev=shell"]);
        command.args(["-device", "virtserialport,chardev=agent,name=agent"]);
        match start {
            Start::Boot => {}
            Start::BootOnto(_) => {
                command.arg("-S");
            }
            Start::Restore => {
                command.args(["-loadvm", SNAPSHOT]);
            }
        }
        command
    }
}

/// A QEMU that runs until it is dropped.
#[derive(Debug)]
pub struct Qemu {
    process: Process,
    monitor: BufReader<UnixStream>,
}

impl Qemu {
    /// Starts it; its sockets, its output and its serial log are in `folder`.
    pub fn start(
        hardware: &Hardware<'_>,
        start: Start<'_>,
        console: Console,
        folder: &Path,
    ) -> Result<(Self, Agent), Error> {
        let mut command = hardware.command(start);
        let (monitor, agent) = (listener(folder, "monitor")?, listener(folder, "agent")?);
        for name in ["monitor", "agent"] {
            let path = folder.join(name);
            command.arg("-chardev").arg(format!("socket,id={name},path={}", path.display()));
        }
        command.args(["-mon", "chardev=monitor,mode=control"]);
        let serial = folder.join("serial.log");
        command.arg("-chardev").arg(format!("file,id=serial,append=on,path={}", serial.display()));
        command.args(["-serial", "chardev:serial"]);
        let output = folder.join("qemu.log");
        let output = File::create(&output).map_err(Error::io("write", &output))?;
        match console {
            Console::Nobody => command.args(["-chardev", "null,id=shell"]).stdin(Stdio::null()),
            Console::Terminal => command.args([
                "-chardev",
                "stdio,id=shell,mux=on,signal=off",
                "-mon",
                "chardev=shell",
            ]),
        };
        command.stderr(output);
        let child = command.spawn().map_err(Error::io("run", Path::new("qemu-system-x86_64")))?;
        let mut process = Process { child, folder: folder.to_owned() };
        let monitor = BufReader::new(process.accept(&monitor, "its monitor was waited for")?);
        let agent = Agent::new(process.accept(&agent, "its port was waited for")?);
        let mut qemu = Self { process, monitor };
        qemu.reply("greeting")?;
        qemu.execute("qmp_capabilities", &json!({}))?;
        if let Start::BootOnto(top) = start {
            let overlay = json!({
                "device": "root", "snapshot-file": top, "format": "qcow2", "mode": "absolute-paths",
            });
            qemu.execute("blockdev-snapshot-sync", &overlay)?;
            qemu.execute("cont", &json!({}))?;
        }
        Ok((qemu, agent))
    }

    /// A command of QEMU's machine protocol.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, Error> {
        let request = json!({ "execute": command, "arguments": arguments });
        let asked = writeln!(self.monitor.get_ref(), "{request}");
        asked.map_err(|error| self.lost(command, error))?;
        loop {
            let mut reply = self.reply(command)?;
            if let Some(value) = reply.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = reply.get("error") {
                let doing = format!("QEMU's {command}");
                return Err(Error::Protocol { doing, said: error.to_string() });
            }
        }
    }

    /// A command of QEMU's monitor for people, which says nothing when it succeeds.
    pub fn human(&mut self, command: &str) -> Result<(), Error> {
        let said = self.execute("human-monitor-command", &json!({ "command-line": command }))?;
        match said.as_str() {
            Some("") => Ok(()),
            _ => Err(Error::Protocol { doing: command.to_owned(), said: said.to_string() }),
        }
    }

    /// Ends it in order, with everything written to its disk.
    pub fn quit(mut self) -> Result<(), Error> {
        self.execute("quit", &json!({}))?;
        self.wait()
    }

    /// Waits until it ends.
    pub fn wait(mut self) -> Result<(), Error> {
        self.process.child.wait().map_err(Error::io("wait for", Path::new("QEMU")))?;
        Ok(())
    }

    /// What the kernel said when it died; none: it lives, as far as it says.
    pub fn last_words(&self) -> Option<String> {
        let log = fs::read(self.process.folder.join("serial.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let at =
            ["Kernel panic", "Oops: ", "BUG: "].iter().filter_map(|mark| log.find(mark)).min()?;
        let begin = log[..at].rfind('\n').map_or(0, |end| end + 1);
        Some(log[begin..].lines().take(60).collect::<Vec<_>>().join("\n"))
    }

    /// Whether a guest that comes up did what it was asked, and its kernel lives.
    pub fn succeeded(&self, answer: Result<Answer, Error>) -> Result<(), Error> {
        if let Some(words) = self.last_words() {
            return Err(Error::Panic(words));
        }
        match answer? {
            Answer { code: 0, .. } => Ok(()),
            answer => Err(Error::Boot(format!("{answer:?}"))),
        }
    }

    fn reply(&mut self, doing: &str) -> Result<Value, Error> {
        let mut line = String::new();
        let read = self.monitor.get_ref().set_read_timeout(Some(PATIENCE));
        let read = read.and_then(|()| self.monitor.read_line(&mut line));
        match read {
            Ok(0) => Err(self.lost(doing, std::io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => serde_json::from_str(&line)
                .map_err(|_| Error::Protocol { doing: doing.to_owned(), said: line }),
            Err(error) => Err(self.lost(doing, error)),
        }
    }

    fn lost(&self, doing: &str, source: std::io::Error) -> Error {
        let object = format!("QEMU for {doing}{}", said(&self.process.folder));
        Error::Io { operation: "ask", object, source }
    }
}

/// Ends when it is dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    folder: PathBuf,
}

impl Process {
    /// QEMU connects to what listens for it; if it does not, it says why and ends.
    fn accept(&mut self, listener: &UnixListener, doing: &str) -> Result<UnixStream, Error> {
        let begun = Instant::now();
        loop {
            let mut waiting = [PollFd::new(listener, PollFlags::IN)];
            if poll(&mut waiting, Some(&LOOK)).is_ok_and(|ready| ready > 0) {
                let accepted = listener.accept().map(|(stream, _)| stream);
                return accepted.map_err(Error::io("accept", &self.folder));
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                let (status, doing) = (status.to_string(), doing.to_owned());
                return Err(Error::Ended { status, doing, said: said(&self.folder) });
            }
            if begun.elapsed() > PATIENCE {
                return Err(Error::Silent { doing: doing.to_owned(), after: PATIENCE });
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _collected = self.child.wait();
    }
}

fn listener(folder: &Path, name: &str) -> Result<UnixListener, Error> {
    let path = folder.join(name);
    if path.exists() {
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    UnixListener::bind(&path).map_err(Error::io("bind", &path))
}

/// What QEMU wrote to its standard error.
fn said(folder: &Path) -> String {
    fs::read_to_string(folder.join("qemu.log")).unwrap_or_default().trim().to_owned()
}

/// A version as QEMU tells it: snapshots of one are not for another.
pub fn version() -> Result<String, Error> {
    let asked = Command::new("qemu-system-x86_64").arg("--version").output();
    let output = asked.map_err(Error::io("run", Path::new("qemu-system-x86_64")))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
