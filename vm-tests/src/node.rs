//! The node on a machine: built by cargo, installed as a user would, and asked what it does.
#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use crate::evidence::target;
use crate::{Error, Machine};

/// Where the binary is put before it is installed.
pub const UPLOADED: &str = "/root/blackhole-node";

/// The instances of a configuration that says nothing of them.
pub const BUILT_IN: [&str; 4] = ["identity-0", "storage-0", "ledger-0", "gateway-0"];

/// A service that does nothing.
pub const SLEEPER: &str = "[services.sleeper]\ncommand = [\"sleep\", \"1000000\"]\n";

/// What the orchestrator's own group and those of its services are below.
pub const GROUP: &str = "/sys/fs/cgroup/system.slice/blackhole.service";

const STATUS: &str = "blackhole-node status --json";

/// An installed node.
#[derive(Debug)]
pub struct Node<'a> {
    machine: &'a Machine,
}

impl<'a> Node<'a> {
    /// As the machine has it, with this configuration in its file; nothing else is done.
    pub fn at_rest(machine: &'a Machine, configuration: &str) -> Self {
        let node = Self { machine };
        node.configure(configuration);
        node
    }

    pub fn configure(&self, configuration: &str) {
        self.machine.put("/etc/blackhole/config.toml", configuration);
    }

    /// The one that runs, which is given this configuration: returns when that is in force, with
    /// every service ready.
    pub fn with(machine: &'a Machine, configuration: &str) -> Self {
        let node = Self::at_rest(machine, configuration);
        machine.done("systemctl reload blackhole");
        node
    }

    pub fn status(&self) -> Value {
        json(&self.machine.done(STATUS))
    }

    /// What `status` says of one instance.
    pub fn instance(&self, name: &str) -> Value {
        of_instance(&self.status(), name).clone()
    }

    /// The process of one instance, which must have one.
    pub fn pid(&self, name: &str) -> u64 {
        let instance = self.instance(name);
        instance["pid"].as_u64().unwrap_or_else(|| panic!("no process: {instance}"))
    }

    /// The orchestrator's process, as systemd knows it.
    pub fn main_pid(&self) -> u64 {
        number(&self.property("MainPID"))
    }

    /// A property of the unit.
    pub fn property(&self, name: &str) -> String {
        self.machine.done(&show(name))
    }

    /// Waits until this holds of what `status --json` says of an instance, a Python expression
    /// about `one`.
    pub fn until(&self, instance: &str, holds: &str) -> Value {
        self.until_all(&format!("(lambda one: {holds})(named['{instance}'])"))[instance].take()
    }

    /// Waits until this holds of all instances, a Python expression about `named`, where they are
    /// by their names, and `checked`, which gives the second of one's last check.
    fn until_all(&self, holds: &str) -> Value {
        let text = self.machine.judge_until(&format!(
            "import datetime, json\n\
             COMMAND = ['blackhole-node', 'status', '--watch', '--json']\n\
             def second(text): return datetime.datetime.fromisoformat(text[:19]).timestamp()\n\
             def checked(one): return second(one['last_health_check'] or '1900-01-01T00:00:00')\n\
             def holds(line):\n    \
                 named = {{one['instance']: one for one in json.loads(line)['instances']}}\n    \
                 return {holds}\n"
        ));
        let status = json(&text);
        let name = |one: &Value| one["instance"].as_str().unwrap_or_default().to_owned();
        instances(&status).map(|one| (name(one), one.clone())).collect::<Map<_, _>>().into()
    }

    /// Waits until an instance is ready, in a process other than this one.
    pub fn ready_again(&self, instance: &str, former: u64) -> u64 {
        let holds = format!("one['phase'] == 'ready' and one['pid'] != {former}");
        let told = self.until(instance, &holds);
        told["pid"].as_u64().unwrap_or_else(|| panic!("no process: {told}"))
    }

    /// Waits until each was asked once more whether it is well.
    pub fn next_check(&self, instances: &[&str]) {
        let status = self.status();
        let checks = instances.iter().map(|name| {
            let last = of_instance(&status, name)["last_health_check"].as_str();
            // How long ago a check was is told by two clocks: of one check not always the same.
            let before = format!("{{'last_health_check': {:?}}}", last.unwrap_or_default());
            format!("abs(checked(named['{name}']) - checked({before})) > 1")
        });
        self.until_all(&checks.collect::<Vec<_>>().join(" and "));
    }

    /// Waits until the orchestrator that follows another has come up.
    pub fn follows(&self) {
        self.machine.wait_until("systemctl is-active blackhole && blackhole-node status");
    }

    /// Those who have nothing to do with what is done to somebody else.
    pub fn bystanders(&self, names: &[&str]) -> Bystanders<'_> {
        let (main_pid, status) = self.main_pid_and_status("true");
        let pids = names.iter().map(|name| ((*name).to_owned(), standing(&status, name))).collect();
        Bystanders { node: self, pids, main_pid }
    }

    /// In one script, for a shell takes an emulated machine as long as each of these; `first`
    /// comes before them and must succeed.
    fn main_pid_and_status(&self, first: &str) -> (u64, Value) {
        let told = self.machine.done(&format!("{first} && {} && {STATUS}", show("MainPID")));
        let (pid, status) = told.split_once('\n').unwrap_or_default();
        (number(pid), json(status))
    }
}

/// Services, and the orchestrator, whose processes may not change.
#[derive(Debug)]
pub struct Bystanders<'a> {
    node: &'a Node<'a>,
    pids: BTreeMap<String, (u64, u64)>,
    main_pid: u64,
}

impl Bystanders<'_> {
    /// Fails unless each is ready and well in the process that it was in before, and lives.
    pub fn undisturbed(&self) {
        let (main_pid, status) = self.node.main_pid_and_status(&self.all_live());
        assert_eq!(main_pid, self.main_pid, "the orchestrator is another process");
        self.stand_as_before(&status);
    }

    /// The same where the orchestrator itself is the victim.
    pub fn services_undisturbed(&self) {
        let status = self.node.machine.done(&format!("{} && {STATUS}", self.all_live()));
        self.stand_as_before(&json(&status));
    }

    fn stand_as_before(&self, status: &Value) {
        for (name, before) in &self.pids {
            assert_eq!(standing(status, name), *before, "{name}: (pid, restarts) changed");
        }
    }

    /// Succeeds when all their processes are there.
    fn all_live(&self) -> String {
        let pids: Vec<String> = self.pids.values().map(|(pid, _)| pid.to_string()).collect();
        format!("for pid in {}; do kill -0 $pid || exit; done", pids.join(" "))
    }
}

/// The process and the restarts of an instance, which must be ready and well.
fn standing(status: &Value, name: &str) -> (u64, u64) {
    let instance = of_instance(status, name);
    assert_eq!(instance["phase"], "ready", "{instance}");
    assert_ne!(instance["health"], "unhealthy", "{instance}");
    let number = |key: &str| instance[key].as_u64();
    number("pid").zip(number("restarts")).unwrap_or_else(|| panic!("no process: {instance}"))
}

fn of_instance<'s>(status: &'s Value, name: &str) -> &'s Value {
    let found = instances(status).find(|one| one["instance"] == name);
    found.unwrap_or_else(|| panic!("there is no {name}: {status}"))
}

fn instances(status: &Value) -> impl Iterator<Item = &Value> {
    status["instances"].as_array().into_iter().flatten()
}

/// What `status --security` says of every instance of the node that these options name.
pub fn security(machine: &Machine, options: &str) -> Vec<Value> {
    let text = machine.done(&format!("blackhole-node {options} status --security --json"));
    instances(&json(&text)).cloned().collect()
}

/// The script that tells a property of the unit.
fn show(name: &str) -> String {
    format!("systemctl show --property {name} --value blackhole")
}

fn number(pid: &str) -> u64 {
    pid.parse().unwrap_or_else(|_| panic!("MainPID={pid}"))
}

/// What a program said in JSON.
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The packages of the plain tests, and an example for the features that tests give to crates: so
/// no crate is built again. The node itself is optimized, for it is emulated (decision 21).
const BUILD: &str = "build --quiet --package blackhole-node --package xtask \
                     --bin blackhole-node --example race \
                     --config profile.dev.package.blackhole-node.opt-level=1 \
                     --config profile.dev.package.blackhole-node.debug=false";

static BINARY: OnceLock<Result<Vec<u8>, Error>> = OnceLock::new();
static PREVIOUS: OnceLock<Result<Vec<u8>, Error>> = OnceLock::new();

/// What cargo builds of the sources as they are.
pub fn built() -> Result<&'static [u8], Error> {
    made(&BINARY, build)
}

/// The version before that one, for machines in which one takes over from the other: `machine.put`
/// it beside the installed one.
pub fn previous() -> Result<&'static [u8], Error> {
    made(&PREVIOUS, find_previous)
}

fn made(
    binary: &'static OnceLock<Result<Vec<u8>, Error>>,
    make: fn() -> Result<Vec<u8>, Error>,
) -> Result<&'static [u8], Error> {
    match binary.get_or_init(make) {
        Ok(binary) => Ok(binary),
        Err(error) => Err(Error::Boot(format!("no binary: {error}"))),
    }
}

fn build() -> Result<Vec<u8>, Error> {
    let (crates, binaries) = (target(), target().join("machine"));
    let words: Vec<&str> = BUILD.split_whitespace().collect();
    let mut build = in_workspace(&words);
    build.env("CARGO_TARGET_DIR", &binaries).env("CARGO_BUILD_BUILD_DIR", crates);
    output(build)?;
    stripped(&binaries.join("debug/blackhole-node"))
}

fn find_previous() -> Result<Vec<u8>, Error> {
    let told = output(in_workspace(&["xtask", "previous"]))?;
    let built = Path::new(told.lines().last().unwrap_or_default());
    stripped(built)
}

/// Without what only a debugger reads, which is most of it and would be sent into every machine.
fn stripped(binary: &Path) -> Result<Vec<u8>, Error> {
    let folder = tempfile::tempdir().map_err(Error::io("make", &std::env::temp_dir()))?;
    let small = folder.path().join("blackhole-node");
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&small).arg(binary);
    output(strip)?;
    fs::read(&small).map_err(Error::io("read", &small))
}

/// Cargo at the root of the workspace.
fn in_workspace(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command
}

/// What it writes on stdout.
fn output(mut command: Command) -> Result<String, Error> {
    let program = command.get_program().display().to_string();
    let output = command.output().map_err(Error::io("run", Path::new(&program)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Program { program, said })
}
