//! `cargo xtask mutants`: whether the tests of the core notice when it is wrong. Every mutant of
//! `src/decide` is built into one program, which a variable makes that mutant; one that no test
//! fails for is a hole in the tests, unless `xtask/mutants.accepted` has a reason for it.

mod accepted;
mod program;
mod rewrite;
mod sites;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

use accepted::Accepted;
use program::{Outcome, Program};
use sites::Mutant;

use crate::{root, target};

const ACCEPTED: &str = "xtask/mutants.accepted";
/// Those that were not caught the last time.
const SURVIVORS: &str = "mutants/survivors";
/// How many of them are tried among all other tests.
const SAMPLE: usize = 150;
/// What is no decision: checks that mutants are caught by, and what only tests use.
const LEFT_ALONE: [&str; 4] = ["invariants.rs", "samples.rs", "mod.rs", "_tests.rs"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    All,
    /// Those of which the names contain this.
    Of(&'a str),
    /// Some, others each time.
    Some,
    /// Those that survived the last time.
    Again,
}

pub fn run(which: Which<'_>) -> ExitCode {
    match try_all(which) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("xtask: mutants: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every mutant that was tried is caught or accepted.
pub fn try_all(which: Which<'_>) -> Result<bool, String> {
    let began = Instant::now();
    let path = root().join(ACCEPTED);
    let text = fs::read_to_string(&path).map_err(|error| format!("{ACCEPTED}: {error}"))?;
    let accepted = accepted::read(&text)?;
    let (mut sources, mut names) = (decide_sources()?, Vec::new());
    for (file, source) in &mut sources {
        let mutants = sites::find(source).map_err(|error| format!("{file}: {error}"))?;
        let rewritten = rewrite::with_mutants(source, &mutants, names.len() + 1);
        name_all(file, source, &mutants, &mut names);
        *source = rewritten;
    }
    let program = Program::build(&sources)?;
    println!("{} mutants, built in {:.0?}", names.len(), began.elapsed());
    program.runs_without_a_mutant()?;
    let chosen = choose(&names, which);
    let outcomes = run_chosen(&program, &chosen, &names)?;
    let survived = outcomes.iter().filter(|(_, outcome)| **outcome == Outcome::Survived);
    let survived: String = survived.map(|(n, _)| format!("{}\n", names[n - 1])).collect();
    fs::write(target().join(SURVIVORS), survived).map_err(|error| error.to_string())?;
    let holds = judge(&names, &outcomes, &accepted, which);
    println!("{} mutants tried in {:.0?}", outcomes.len(), began.elapsed());
    Ok(holds)
}

/// Files of the core and their text.
fn decide_sources() -> Result<BTreeMap<String, String>, String> {
    let mut sources = BTreeMap::new();
    let folder = root().join("src/decide");
    for entry in fs::read_dir(&folder).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if LEFT_ALONE.iter().all(|alone| !name.ends_with(alone)) {
            let text = fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
            sources.insert(name, text);
        }
    }
    Ok(sources)
}

/// By what stands there and in which function, not by a line, which moves with every change.
fn name_all(file: &str, source: &str, mutants: &[Mutant], names: &mut Vec<String>) {
    let mut seen = BTreeMap::new();
    for mutant in mutants {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let before = words(source.get(mutant.range.clone()).unwrap_or_default());
        let after = if mutant.text.is_empty() { "nothing".to_owned() } else { words(&mutant.text) };
        let mut name = format!("{file} {}: {before} -> {after}", mutant.function);
        let nth = seen.entry(name.clone()).or_insert(0_u32);
        *nth += 1;
        if *nth > 1 {
            name.push_str(&format!(" ({nth})"));
        }
        names.push(name);
    }
}

/// Their numbers.
fn choose(names: &[String], which: Which<'_>) -> Vec<usize> {
    let all = 1..=names.len();
    match which {
        Which::All => all.collect(),
        Which::Of(part) => all.filter(|number| names[number - 1].contains(part)).collect(),
        Which::Again => {
            let last = fs::read_to_string(target().join(SURVIVORS)).unwrap_or_default();
            let last: BTreeSet<&str> = last.lines().collect();
            all.filter(|number| last.contains(names[number - 1].as_str())).collect()
        }
        Which::Some => {
            let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
            let stride = names.len() / SAMPLE.min(names.len()).max(1);
            let first = usize::try_from(nanos).unwrap_or(0) / 1000 % stride.max(1);
            all.skip(first).step_by(stride.max(1)).take(SAMPLE).collect()
        }
    }
}

/// As many at a time as there are processors.
fn run_chosen(
    program: &Program,
    chosen: &[usize],
    names: &[String],
) -> Result<BTreeMap<usize, Outcome>, String> {
    let next = Mutex::new(chosen.iter().copied());
    let outcomes = Mutex::new(BTreeMap::new());
    let failed = Mutex::new(None);
    let work = || {
        loop {
            let Some(number) = next.lock().ok().and_then(|mut next| next.next()) else { return };
            match program.run(number) {
                Ok(outcome) => {
                    eprintln!("{outcome:?}: {}", names[number - 1]);
                    outcomes.lock().ok().map(|mut outcomes| outcomes.insert(number, outcome));
                }
                Err(reason) => {
                    failed.lock().ok().map(|mut failed| failed.replace(reason));
                    return;
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    match failed.into_inner().ok().flatten() {
        Some(reason) => Err(reason),
        None => outcomes.into_inner().map_err(|_| "a thread panicked".to_owned()),
    }
}

fn judge(
    names: &[String],
    outcomes: &BTreeMap<usize, Outcome>,
    accepted: &Accepted,
    which: Which<'_>,
) -> bool {
    let mut counts: BTreeMap<Outcome, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (number, outcome) in outcomes {
        *counts.entry(*outcome).or_default() += 1;
        let name = &names[number - 1];
        match (*outcome == Outcome::Survived, accepted.contains_key(name)) {
            (true, false) => wrong.push(format!("survives: {name}")),
            (false, true) => wrong.push(format!("is accepted, and {outcome:?}: {name}")),
            (true, true) | (false, false) => {}
        }
    }
    let there: BTreeSet<&String> = names.iter().collect();
    let gone = accepted.keys().filter(|name| !there.contains(name));
    wrong.extend(gone.map(|name| format!("is accepted, and not there: {name}")));
    wrong.iter().for_each(|line| println!("{line}"));
    println!("{counts:?}, {} accepted, {which:?}", accepted.len());
    wrong.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_was_there_and_is_not_given_twice() {
        let source = "fn f() { g(1); g(1); }";
        let mut names = Vec::new();
        name_all("step.rs", source, &sites::find(source).unwrap(), &mut names);
        assert_eq!(names[0], "step.rs f: g(1); -> nothing");
        assert_eq!(names[2], "step.rs f: g(1); -> nothing (2)");
        let all: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(all.len(), names.len());
    }
}
