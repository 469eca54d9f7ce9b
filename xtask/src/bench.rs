//! `cargo xtask bench`: the list of benchmarks. A new one is one entry here.

use std::process::ExitCode;

use crate::{USAGE, cargo, succeeds};

/// A benchmark and the cargo command that runs it.
struct Bench {
    name: &'static str,
    cargo: &'static [&'static str],
}

const BENCHES: [Bench; 3] = [
    Bench { name: "step", cargo: &["bench", "--bench", "step"] },
    Bench { name: "logs", cargo: &["bench", "--bench", "logs"] },
    Bench { name: "spawn", cargo: &["bench", "--bench", "spawn"] },
];

/// Runs every benchmark, also after one that failed.
pub fn run_all() -> ExitCode {
    let failed: Vec<&str> =
        BENCHES.iter().filter(|bench| !run(bench)).map(|bench| bench.name).collect();
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("xtask: failed: {}", failed.join(", "));
    ExitCode::FAILURE
}

pub fn run_one(name: &str) -> ExitCode {
    match BENCHES.iter().find(|bench| bench.name == name) {
        Some(bench) if run(bench) => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
        None => {
            let names = BENCHES.map(|bench| bench.name).join(", ");
            eprintln!("xtask: there is no benchmark {name:?}; there are: {names}");
            ExitCode::from(USAGE)
        }
    }
}

fn run(bench: &Bench) -> bool {
    println!("{}", bench.name);
    succeeds(cargo(bench.cargo))
}
