//! The test bench: a folder of its own for every test, the real binary in it, real children below
//! it, and the certainty at the end that nothing of them is left.
#![allow(dead_code, reason = "every test file uses a part of the bench")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and bound their waits")]

pub mod http;
pub mod managed;
pub mod output;
pub mod previous;
pub mod processes;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

pub use output::Output;
#[allow(unused_imports, reason = "as above")]
pub use processes::{Pid, eventually};

/// How long anything may take before a test fails. No test passes because of it.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const BINARY: &str = env!("CARGO_BIN_EXE_blackhole-node");

const PUPPET: &str = include_str!("puppet.py");

/// Only foreign services, and restarts that do not keep a test waiting.
const BASICS: &str = r#"
[node]
name = "bench"
[process_management.supervisor]
backoff_initial = "20ms"
backoff_max = "50ms"
[services]
identity = { enabled = false }
storage = { enabled = false }
ledger = { enabled = false }
gateway = { enabled = false }
"#;

/// One test's world: a folder with a short path that is taken away at the end.
#[derive(Debug)]
pub struct Lab {
    folder: TempDir,
}

impl Lab {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("bh").tempdir_in("/tmp").unwrap();
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn runtime_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// A file in the data folder of a service.
    pub fn data(&self, service: &str, file: &str) -> PathBuf {
        self.path("data/services").join(service).join(file)
    }

    pub fn socket(&self, instance: &str) -> PathBuf {
        self.runtime_dir().join(format!("sockets/{instance}.sock"))
    }

    /// The cgroup below which the node makes those of its services, where the host has cgroup2.
    pub fn base_group(&self) -> Option<PathBuf> {
        let runtime_dir = self.runtime_dir();
        let name = runtime_dir.to_string_lossy().replace(['/', '.'], "-");
        processes::own_group().map(|own| own.join(format!("blackhole{name}")))
    }

    /// Every living process of this lab's services.
    pub fn processes(&self) -> Vec<Pid> {
        processes::marked(&self.runtime_dir())
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// The command of a Python program, as the configuration has it.
    pub fn python(&self, name: &str, text: &str) -> String {
        let path = self.file(name, text, 0o644);
        command(["python3", "-IS", &path.to_string_lossy()])
    }

    /// The command of a service that does what `tell` says, and is ready only when told so.
    pub fn puppet(&self) -> String {
        self.python("puppet.py", PUPPET)
    }

    pub fn puppet_path(&self) -> PathBuf {
        self.file("puppet.py", PUPPET, 0o644)
    }

    /// The same, ready as soon as it runs.
    pub fn ready_puppet(&self) -> String {
        let path = self.puppet_path();
        command(["python3", "-IS", &path.to_string_lossy(), "ready"])
    }

    /// Has a puppet run Python code and gives its value.
    pub fn tell(&self, instance: &str, code: &str) -> Value {
        let mut stream = self.begin_to_tell(instance, code);
        let mut line = String::new();
        BufReader::new(&mut stream).read_line(&mut line).unwrap();
        let mut reply: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("{instance} went away over {code:?}"));
        assert_eq!(reply.get("error"), None, "{instance}: {code}");
        reply["ok"].take()
    }

    /// The same for code that ends the puppet. Returns when the connection is closed.
    pub fn tell_last(&self, instance: &str, code: &str) {
        let mut stream = self.begin_to_tell(instance, code);
        let mut line = String::new();
        let _reset_or_end = BufReader::new(&mut stream).read_line(&mut line);
        assert_eq!(line, "", "{instance} answered to {code:?}");
    }

    fn begin_to_tell(&self, instance: &str, code: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.socket(instance)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "{}", Value::from(code)).unwrap();
        stream
    }

    /// A node with these sections in its configuration.
    pub fn node(&self, services: &str) -> Setup<'_> {
        self.file("node.toml", format!("{BASICS}{services}"), 0o644);
        Setup { lab: self, command: self.binary(), services: services.to_owned() }
    }

    /// A node with a configuration file of its own.
    pub fn run(&self, file: &Path) -> Setup<'_> {
        let services = fs::read_to_string(file).unwrap();
        let command = self.binary_with(file, &self.runtime_dir());
        Setup { lab: self, command, services }
    }

    /// The binary with this lab's folders, without a verb.
    pub fn binary(&self) -> Command {
        self.binary_in(&self.runtime_dir())
    }

    fn binary_in(&self, runtime_dir: &Path) -> Command {
        self.binary_with(&self.path("node.toml"), runtime_dir)
    }

    fn binary_with(&self, config: &Path, runtime_dir: &Path) -> Command {
        let mut command = Command::new(BINARY);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.folder.path());
        command.stdin(Stdio::null());
        command.arg("--config").arg(config);
        command.arg("--runtime-dir").arg(runtime_dir);
        command.arg("--data-dir").arg(self.path("data"));
        command
    }

    /// Runs a verb to its end.
    pub fn verb(&self, arguments: &[&str]) -> Responder {
        let mut command = self.binary();
        command.args(arguments);
        Responder::of(command)
    }

    /// The same with another runtime folder.
    pub fn verb_in(&self, runtime_dir: &str, arguments: &[&str]) -> Responder {
        let mut command = self.binary_in(Path::new(runtime_dir));
        command.args(arguments);
        Responder::of(command)
    }

    /// Runs a verb that must succeed, and gives its standard output.
    pub fn done(&self, arguments: &[&str]) -> String {
        let answer = self.verb(arguments);
        assert_eq!(answer.code, Some(0), "{arguments:?}: {answer:?}");
        answer.out
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.done(&["status", "--json"])).unwrap()
    }

    /// Where the API answers.
    pub fn api(&self) -> String {
        self.status()["node"]["api"].as_str().unwrap().to_owned()
    }

    /// What `status` says of one instance.
    pub fn instance(&self, instance: &str) -> Value {
        let mut status = self.status();
        let all = status["instances"].as_array_mut().unwrap();
        let found = all.iter_mut().find(|one| one["instance"] == instance);
        found.unwrap_or_else(|| panic!("there is no {instance}")).take()
    }

    pub fn phase(&self, instance: &str) -> String {
        self.instance(instance)["phase"].as_str().unwrap().to_owned()
    }

    pub fn reason(&self, instance: &str) -> String {
        self.instance(instance)["reason"].as_str().unwrap().to_owned()
    }

    pub fn pid(&self, instance: &str) -> Pid {
        let status = self.instance(instance);
        let pid = status["pid"].as_i64().unwrap_or_else(|| panic!("no process: {status}"));
        Pid::try_from(pid).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let left = self.processes();
        for pid in &left {
            processes::kill(*pid);
            processes::ends(*pid, PATIENCE);
        }
        if thread::panicking() {
            self.base_group().iter().for_each(|base| processes::remove_groups(base));
        } else {
            assert!(left.is_empty(), "the node left processes behind: {left:?}");
            let group = self.base_group().filter(|group| group.exists());
            assert_eq!(group, None, "the node left its group behind");
        }
    }
}

/// A node before its start.
#[derive(Debug)]
pub struct Setup<'a> {
    lab: &'a Lab,
    command: Command,
    services: String,
}

impl<'a> Setup<'a> {
    pub fn set(mut self, assignment: &str) -> Self {
        self.command.args(["--set", assignment]);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Has another program start it, which then replaces itself by it.
    pub fn under<'w>(
        mut self,
        wrapper: &str,
        arguments: impl IntoIterator<Item = &'w str>,
    ) -> Self {
        let mut command = Command::new(wrapper);
        command.args(arguments).arg(self.command.get_program()).args(self.command.get_args());
        command.env_clear().stdin(Stdio::null());
        let variables = self.command.get_envs();
        command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        self.command = command;
        self
    }

    /// The same with another file of the binary.
    pub fn from(mut self, program: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(self.command.get_args()).env_clear().stdin(Stdio::null());
        let variables = self.command.get_envs();
        command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        self.command = command;
        self
    }

    /// Starts it and waits for nothing.
    pub fn start(mut self) -> Node<'a> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        let console = Output::default();
        console.read("", child.stdout.take().unwrap());
        console.read("stderr: ", child.stderr.take().unwrap());
        Node { lab: self.lab, child, console, services: self.services, end: End::ToCome }
    }

    /// Starts it and waits until it announces that it came up.
    pub fn up(self) -> Node<'a> {
        let node = self.start();
        node.console.line("after the start");
        node
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    ToCome,
    Seen,
}

/// A running orchestrator. Dropped, it is asked to end, and must do so with exit code 0.
#[derive(Debug)]
pub struct Node<'a> {
    lab: &'a Lab,
    child: Child,
    pub console: Output,
    services: String,
    end: End,
}

impl Node<'_> {
    pub fn pid(&self) -> Pid {
        Pid::try_from(self.child.id()).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }

    /// Waits until the process has ended and all of its output is read.
    pub fn end(&mut self) -> ExitStatus {
        assert!(processes::ends(self.pid(), PATIENCE), "it does not end\n{}", self.console.text());
        let status = self.child.wait().unwrap();
        self.end = End::Seen;
        self.console.end();
        status
    }

    /// SIGTERM, and the end with exit code 0.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.end();
        assert_eq!(status.code(), Some(0), "{status}\n{}", self.console.text());
    }

    /// The death of the orchestrator alone.
    pub fn kill(&mut self) {
        processes::kill(self.pid());
        assert!(processes::ends(self.pid(), PATIENCE), "SIGKILL is not obeyed");
        self.child.wait().unwrap();
        self.end = End::Seen;
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}\n{}", self.services, self.console.text());
            // The lab ends what it leaves.
            let _gone_already = self.child.kill();
            let _collected = self.child.wait();
        } else if self.end == End::ToCome {
            self.stop();
        }
    }
}

/// What became of a verb.
#[derive(Debug)]
pub struct Responder {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Responder {
    pub fn of(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, err) = (Output::default(), Output::default());
        out.read("", child.stdout.take().unwrap());
        err.read("", child.stderr.take().unwrap());
        if !processes::ends(Pid::try_from(child.id()).unwrap(), PATIENCE) {
            let _gone_already = child.kill();
            panic!("{command:?} does not end\n{}{}", out.text(), err.text());
        }
        let code = child.wait().unwrap().code();
        out.end();
        err.end();
        Self { code, out: out.lines().join("\n"), err: err.lines().join("\n") }
    }
}

/// A program that goes on in the background; it is ended when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    pub output: Output,
}

impl Background {
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = Output::default();
        output.read("", child.stdout.take().unwrap());
        output.read("stderr: ", child.stderr.take().unwrap());
        Self { child, output }
    }

    /// For a program whose output goes elsewhere.
    pub fn without_output(mut command: Command) -> Self {
        Self { child: command.spawn().unwrap(), output: Output::default() }
    }

    /// A process that is no business of any node.
    pub fn stranger() -> Self {
        let mut command = Command::new("sleep");
        command.arg("1000000");
        Self::without_output(command)
    }

    pub fn pid(&self) -> Pid {
        Pid::try_from(self.child.id()).unwrap()
    }

    /// Waits for the end and gives the exit code; none: a signal ended it.
    pub fn end(&mut self) -> Option<i32> {
        assert!(processes::ends(self.pid(), PATIENCE), "it does not end\n{}", self.output.text());
        let code = self.child.wait().unwrap().code();
        self.output.end();
        code
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _collected = self.child.wait();
    }
}

/// A command as the configuration has it: TOML takes JSON's strings.
pub fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    Value::from(words.into_iter().collect::<Vec<_>>()).to_string()
}

pub fn sh(script: &str) -> String {
    command(["/bin/sh", "-c", script])
}

/// Does nothing, for ever.
pub fn idle() -> String {
    command(["sleep", "1000000"])
}

/// The section of a foreign service.
pub fn service(name: &str, command: &str, more: &str) -> String {
    format!("[services.{name}]\ncommand = {command}\n{more}\n")
}

/// How many lines a file has; none where there is no file.
pub fn lines_of(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}
