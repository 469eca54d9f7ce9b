//! `cargo xtask bench supervise`: the race of what we ship against runit, s6 and the least
//! that a supervisor can do. `docs/benchmarks.md` says how to read it.
//!
//! `contenders` sets up who races, `ears` hears the raced services, `arena` starts and ends all of
//! it, `measures`, `serving` and `logs` measure, `results` judges, `report` writes it down.

mod arena;
mod chance;
mod contenders;
mod ears;
mod floor;
mod logs;
mod machine;
mod measures;
mod processes;
mod report;
mod results;
mod serving;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::arena::Arena;
use self::contenders::Programs;
use self::measures::Extent;
use self::report::{Report, missed};
use self::results::{Results, bars};
use crate::{USAGE, cargo, setup, succeeds, target};

const HELP: &str = "\
usage: cargo xtask bench supervise [--only NAME,...] [--quick] [--rr] [--report FILE]

  --only NAME,...  measure these only: restart, serving, storm, start, idle, logs
                   (start measures memory too)
  --quick          fewer samples, for a look; no figures to quote
  --rr             run everything under `chrt -r 5`, so that other load counts less (root)
  --report FILE    where the report goes; samples go beside it as .json
                   (default: target/bench/supervise.md)

Exit code 0: every bar is met; 1: not, or it failed; 2: usage.";

const PACKAGES: [&str; 5] = ["runit", "s6", "execline", "gcc", "libc6-dev"];
/// Says to a process that everything runs under `chrt -r 5` already.
const UNDER_RR: &str = "SUPERVISE_UNDER_RR";

type Measuring = fn(&mut Arena, &Extent, &mut Results) -> Result<(), String>;

const MEASURES: [(&str, Measuring); 6] = [
    ("restart", measures::restart),
    ("serving", serving::measure),
    ("storm", measures::storm),
    ("start", measures::start),
    ("idle", measures::idle),
    ("logs", logs::measure),
];

const FULL: Extent =
    Extent { kills: 30, rounds: 5, idle: Duration::from_secs(20), lines: [1_000_000, 100_000] };
const QUICK: Extent =
    Extent { kills: 7, rounds: 2, idle: Duration::from_secs(10), lines: [1_000_000, 100_000] };

#[derive(Debug)]
struct Options {
    measures: Vec<&'static str>,
    extent: Extent,
    is_round_robin: bool,
    report: PathBuf,
}

/// Whether the user wants it to end.
#[derive(Debug, Clone)]
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn listen() -> Result<Self, String> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let registered = signal_hook::flag::register(signal, Arc::clone(&flag));
            registered.map_err(|error| format!("cannot listen for signals: {error}"))?;
        }
        Ok(Self(flag))
    }

    fn check(&self) -> Result<(), String> {
        if self.0.load(Ordering::Relaxed) { Err("interrupted".to_owned()) } else { Ok(()) }
    }
}

/// `words` are what follows `bench supervise`.
pub fn run(words: &[&str]) -> ExitCode {
    if words.iter().any(|word| matches!(*word, "help" | "-h" | "--help")) {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let options = match options(words) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("xtask: {wrong}\n\n{HELP}");
            return ExitCode::from(USAGE);
        }
    };
    // The floor is part of this program, so this program has to be optimized as well.
    if cfg!(debug_assertions) {
        let again = ["run", "--quiet", "--profile", "dist", "--package", "xtask", "--", "bench"];
        let again: Vec<&str> = [&again, ["supervise"].as_slice(), words].concat();
        eprintln!("xtask: cannot run cargo: {}", cargo(&again).exec());
        return ExitCode::FAILURE;
    }
    match race(&options, words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// `race-floor SERVICE EARS FIRST COUNT`, which the race starts.
pub fn floor(words: &[&str]) -> ExitCode {
    let [service, ears, first, count] = words else { return ExitCode::from(USAGE) };
    let (Ok(first), Ok(count)) = (first.parse(), count.parse()) else {
        return ExitCode::from(USAGE);
    };
    match floor::run(service, ears, first, count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(words: &[&str]) -> Result<Options, String> {
    let names: Vec<&'static str> = MEASURES.iter().map(|(name, _)| *name).collect();
    let report = target().join("bench/supervise.md");
    let mut options =
        Options { measures: names.clone(), extent: FULL, is_round_robin: false, report };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--quick" => options.extent = QUICK,
            "--rr" => options.is_round_robin = true,
            "--only" => {
                let list = words.next().ok_or("--only needs names")?;
                let known = |name: &str| {
                    let found = names.iter().find(|known| **known == name).copied();
                    let all = names.join(", ");
                    found.ok_or_else(|| format!("there is no measure {name:?}; there are: {all}"))
                };
                options.measures = list.split(',').map(known).collect::<Result<_, _>>()?;
            }
            "--report" => {
                let path = words.next().ok_or("--report needs a file")?;
                let folder = std::env::current_dir().map_err(|error| error.to_string())?;
                options.report = folder.join(path);
            }
            other => return Err(format!("there is no option {other:?}")),
        }
    }
    Ok(options)
}

/// Whether every bar is met.
fn race(options: &Options, words: &[&str]) -> Result<bool, String> {
    setup::install(&PACKAGES)?;
    if options.is_round_robin && std::env::var_os(UNDER_RR).is_none() {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut chrt = Command::new("chrt");
        chrt.args(["-r", "5"]).arg(own).args(["bench", "supervise"]).args(words);
        return Err(format!("cannot run chrt: {}", chrt.env(UNDER_RR, "1").exec()));
    }
    let interrupt = Interrupt::listen()?;
    let programs = build()?;
    let facts = machine::facts(&programs.node, options.is_round_robin);
    let mut arena = Arena::open(&target(), programs, interrupt)?;
    arena.programs.service = compile_service(arena.memory())?;
    let (mut results, mut moods) = (Results::default(), Vec::new());
    for (name, measure) in MEASURES {
        if !options.measures.contains(&name) {
            continue;
        }
        let mood = machine::mood();
        println!("{name}: {mood}");
        moods.push((name, mood));
        measure(&mut arena, &options.extent, &mut results)?;
    }
    drop(arena);
    let command = ["cargo xtask bench supervise", &words.join(" ")].join(" ");
    let report =
        Report { facts: &facts, moods: &moods, command: command.trim_end(), results: &results };
    report.write(&options.report)?;
    println!("\n{}", report.summary());
    println!("report: {}", options.report.display());
    let missing: Vec<_> = bars(&results).into_iter().filter(|bar| !bar.is_met).collect();
    for bar in &missing {
        println!("{}", missed(bar));
    }
    Ok(missing.is_empty())
}

fn build() -> Result<Programs, String> {
    for what in [["--bin", "blackhole-node"], ["--example", "race"]] {
        if !succeeds(cargo(&[&["build", "--quiet", "--profile", "dist"], what.as_slice()].concat()))
        {
            return Err("the build failed".to_owned());
        }
    }
    let dist = target().join("dist");
    Ok(Programs {
        node: dist.join("blackhole-node"),
        race: dist.join("examples/race"),
        own: std::env::current_exe().map_err(|error| error.to_string())?,
        service: PathBuf::new(),
    })
}

/// The raced service, a static program of one C file.
fn compile_service(folder: &Path) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/supervise/service.c");
    let program = folder.join("service");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-Wall", "-static", "-o"]).arg(&program).arg(source);
    if succeeds(compiler) { Ok(program) } else { Err("the service cannot be compiled".to_owned()) }
}
