//! The program that is every mutant: a copy of the core and of what it needs, with its tests, built
//! once below `target/`. Tries one mutant by running its tests, the quick ones first.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::{cargo, root, target};

/// Which mutant it is to be.
const CHOSEN: &str = "MUTANT";
/// Simulated histories for each: a fault that they do not lead to is one for another test.
const HISTORIES: &str = "100";
/// Seconds of processor time, some ten times of what they take: some mutants do not end.
const QUICK: u64 = 2;
const LONG: u64 = 40;
const MEMORY: u64 = 2 << 30;

/// The rooms that the core needs, and the core.
const ROOMS: [&str; 5] = ["catalog.rs", "config", "decide", "plan", "units"];

const LIB: &str = "\
#![allow(warnings)]
pub mod catalog;
pub mod config;
pub mod decide;
pub mod plan;
pub mod units;

/// Whether this process is that mutant.
pub fn is_mutant(number: u32) -> bool {
    static CHOSEN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let chosen = || std::env::var(\"MUTANT\").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    *CHOSEN.get_or_init(chosen) == number
}
";

/// The core's saved state has no form here: the room that writes it is not copied.
const SAVED_FORM: &str = "\
pub fn as_read(node: &blackhole_node::decide::SavedNode) -> blackhole_node::decide::SavedNode {
    node.clone()
}
";

const TARGETS: &str = "
[lib]
name = \"blackhole_node\"

[[test]]
name = \"sim\"
path = \"tests/sim.rs\"

[[test]]
name = \"lifecycle_table\"
path = \"tests/lifecycle_table.rs\"
";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    CaughtByUnitTests,
    CaughtByTheTable,
    CaughtByScenarios,
    CaughtByTheSimulator,
    TimedOut,
    Survived,
}

/// The test programs, and where they run.
#[derive(Debug)]
pub struct Program {
    folder: PathBuf,
    unit_tests: PathBuf,
    table: PathBuf,
    simulator: PathBuf,
}

impl Program {
    pub fn build(sources: &BTreeMap<String, String>) -> Result<Self, String> {
        let folder = target().join("mutants");
        let failed = |error: io::Error| format!("{}: {error}", folder.display());
        write_crate(&folder, sources).map_err(failed)?;
        let mut build = cargo(&["test", "--no-run", "--offline", "--message-format=json"]);
        build.arg("--target-dir").arg(target());
        build.current_dir(&folder).stderr(Stdio::inherit());
        let built = build.output().map_err(failed)?;
        if !built.status.success() {
            let text = String::from_utf8_lossy(&built.stdout);
            let messages = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            let rendered = messages.filter_map(|message: serde_json::Value| {
                Some(message["message"]["rendered"].as_str()?.to_owned())
            });
            return Err(rendered.collect::<String>());
        }
        let built = String::from_utf8_lossy(&built.stdout);
        let found =
            |name: &str| executable(&built, name).ok_or_else(|| format!("{name} was not built"));
        let (unit_tests, table) = (found("blackhole_node")?, found("lifecycle_table")?);
        let simulator = found("sim")?;
        Ok(Self { folder, unit_tests, table, simulator })
    }

    /// Else nothing that they find says anything.
    pub fn runs_without_a_mutant(&self) -> Result<(), String> {
        let outcome = self.run(0)?;
        if outcome == Outcome::Survived {
            return Ok(());
        }
        Err(format!("the tests fail without a mutant: {outcome:?}"))
    }

    pub fn run(&self, number: usize) -> Result<Outcome, String> {
        let steps = [
            (&self.unit_tests, "decide::", QUICK, Outcome::CaughtByUnitTests),
            (&self.table, "the_written_table", QUICK, Outcome::CaughtByTheTable),
            (&self.simulator, "scenarios::", QUICK, Outcome::CaughtByScenarios),
            (&self.simulator, "every_history", LONG, Outcome::CaughtByTheSimulator),
        ];
        for (program, tests, seconds, caught) in steps {
            let status = self.status(program, tests, seconds, number);
            let status = status.map_err(|error| format!("{}: {error}", program.display()))?;
            if status.code().is_none() {
                return Ok(Outcome::TimedOut);
            }
            if !status.success() {
                return Ok(caught);
            }
        }
        Ok(Outcome::Survived)
    }

    fn status(
        &self,
        program: &Path,
        tests: &str,
        seconds: u64,
        number: usize,
    ) -> io::Result<ExitStatus> {
        let mut command = Command::new(program);
        command.arg(tests).env(CHOSEN, number.to_string()).env("SIM_SEEDS", HISTORIES);
        command.env("RUST_BACKTRACE", "0").current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        for (resource, most) in [(Resource::Cpu, seconds), (Resource::As, MEMORY)] {
            prlimit(pid, resource, Rlimit { current: Some(most), maximum: Some(most) })?;
        }
        child.wait()
    }
}

fn write_crate(folder: &Path, sources: &BTreeMap<String, String>) -> io::Result<()> {
    let from = root();
    for room in ROOMS {
        copy(&from.join("src").join(room), &folder.join("src").join(room))?;
    }
    for part in ["tests/sim.rs", "tests/sim", "tests/lifecycle_table.rs", "config", "docs"] {
        copy(&from.join(part), &folder.join(part))?;
    }
    for (name, source) in sources {
        write(&folder.join("src/decide").join(name), source)?;
    }
    write(&folder.join("src/lib.rs"), LIB)?;
    write(&folder.join("build.rs"), "fn main() {}\n")?;
    write(&folder.join("tests/sim/saved_form.rs"), SAVED_FORM)?;
    write(&folder.join("Cargo.toml"), &manifest(&fs::read_to_string(from.join("Cargo.toml"))?))?;
    write(&folder.join("Cargo.lock"), &fs::read_to_string(from.join("Cargo.lock"))?)
}

/// Of the manifest. What is run hundreds of times is optimized, whatever the project's tests are.
const LEFT_OUT: [&str; 6] = [
    "[lib]",
    "[[bin]]",
    "[[bench]]",
    "[[example]]",
    "[lints]",
    "[profile.dev.package.blackhole-node]",
];

/// The project's, with the same crates and profiles, so that none is built again.
fn manifest(text: &str) -> String {
    let mut kept = String::new();
    let mut keeps = true;
    for line in text.lines() {
        if line.starts_with('[') {
            keeps = !LEFT_OUT.contains(&line);
        }
        let is_kept = keeps && !line.starts_with("members") && !line.starts_with("default-run");
        if is_kept {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept + TARGETS
}

/// A file or a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_file() {
        return write(to, &fs::read_to_string(from)?);
    }
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// What is the same already is not built again.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|former| former == text) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

/// The test program of a target, from what cargo says of it.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut of_target = artifacts.filter(|message: &serde_json::Value| {
        message["target"]["name"] == target && message["profile"]["test"] == true
    });
    of_target.find_map(|message| Some(message["executable"].as_str()?.into()))
}
