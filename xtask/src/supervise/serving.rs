//! From the SIGKILL of a built-in service until its gRPC serves again on the same socket, against
//! a start of the same program without a supervisor.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::arena::{Arena, Logs, PATIENCE, millis};
use super::chance::Chance;
use super::contenders::{Contender, Duty};
use super::measures::Extent;
use super::results::{Better, Measure, Results};

const SERVING: Measure = Measure {
    key: "serving",
    title: "SIGKILL of storage until its gRPC serves (floor: a bare start)",
    unit: "ms",
    better: Better::Less,
};
/// A run of storage lives this long before it is killed.
const AGE: Duration = Duration::from_millis(1300);

/// `race probe`, asked over its standard input.
struct Probe {
    child: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
}

pub fn measure(arena: &mut Arena, extent: &Extent, results: &mut Results) -> Result<(), String> {
    let running = arena.start(Contender::Ours, 0, Duty::Storage, Logs::InMemory)?;
    let socket = running.folder().join("run/control.sock");
    let end = std::time::Instant::now() + PATIENCE;
    while !socket.exists() && std::time::Instant::now() < end {
        arena.rest(Duration::from_millis(10))?;
    }
    arena.rest(AGE)?;
    let mut probe = Probe::start(arena, running.folder())?;
    let mut chance = Chance::seeded(6);
    // The first start of each makes folders, and is not counted.
    for round in 0..=extent.kills {
        for index in chance.order(2) {
            let (contender, what) =
                if index == 0 { (Contender::Ours, "kill") } else { (Contender::Floor, "bare") };
            arena.rest(AGE / 2 + Duration::from_millis(chance.below(200)))?;
            let took = probe.ask(what)?;
            if round > 0 {
                results.add(SERVING, contender, millis(took));
            }
        }
        arena.rest(AGE / 2)?;
    }
    probe.end()?;
    arena.stop(running);
    Ok(())
}

impl Probe {
    fn start(arena: &Arena, node_folder: &Path) -> Result<Self, String> {
        let scratch = node_folder.join("probe");
        fs::create_dir_all(&scratch).map_err(|error| error.to_string())?;
        let mut command = Command::new(&arena.programs.race);
        command.arg("probe").arg(&arena.programs.node).arg(node_folder.join("run")).arg(scratch);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| format!("cannot start the probe: {error}"))?;
        let (asked, answers) = (child.stdin.take(), child.stdout.take());
        let asked = asked.ok_or("the probe has no standard input")?;
        let answers = BufReader::new(answers.ok_or("the probe has no standard output")?);
        Ok(Self { child, asked, answers })
    }

    fn ask(&mut self, what: &str) -> Result<u64, String> {
        let failed = |error| format!("the probe does not answer: {error}");
        writeln!(self.asked, "{what}").map_err(failed)?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(failed)?;
        line.trim().parse().map_err(|_| format!("the probe failed at {what:?}: {line:?}"))
    }

    fn end(mut self) -> Result<(), String> {
        drop(self.asked);
        self.child.wait().map_err(|error| format!("the probe does not end: {error}"))?;
        Ok(())
    }
}
