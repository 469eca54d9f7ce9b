//! `cargo xtask test`: everything that has to hold, and how much of it does.

use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};

use crate::mutants::{self, Which};
use crate::{cargo, previous, setup, succeeds, vm};

/// What is built as one decides the features of crates, so the lints, the tests and the version
/// before are built of the same selections: no crate is compiled twice.
const PLAIN: [&str; 3] = ["--workspace", "--exclude", "vm-tests"];
const MACHINES: [&str; 2] = ["--package", "vm-tests"];

/// More than machines run at a time: while one is held or idle, another test's runs.
const THREADS: [&str; 2] = ["--", "--test-threads=8"];

/// What held and what did not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    fn of(held: bool) -> Self {
        Self { passed: u64::from(held), failed: u64::from(!held) }
    }
}

/// Runs all checks; the last line on stdout is the sum.
pub fn run(filter: Option<&str>) -> ExitCode {
    let needed = [&setup::OF_TESTS[..], &setup::OF_MACHINES].concat();
    let tally = match setup::install(&needed) {
        Ok(()) => checks(filter),
        Err(reason) => {
            eprintln!("xtask: {reason}");
            Tally::of(false)
        }
    };
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn checks(filter: Option<&str>) -> Tally {
    let mut tally = Tally::of(succeeds(cargo(&["fmt", "--all", "--check"])));
    for packages in [&PLAIN[..], &MACHINES] {
        let clippy = [&["clippy"], packages, &["--all-targets", "--", "-D", "warnings"]].concat();
        tally.add(Tally::of(succeeds(cargo(&clippy))));
    }
    let test = |packages: &[&str], options: &[&str]| {
        let test = [&["test", "--no-fail-fast"], packages, filter.as_slice(), options].concat();
        counted(&test).unwrap_or_else(|error| {
            eprintln!("xtask: cargo test: {error}");
            Tally::of(false)
        })
    };
    // Built before the tests, for it takes longer than a test waits.
    tally.add(Tally::of(previous::binary().inspect_err(|why| eprintln!("xtask: {why}")).is_ok()));
    tally.add(test(&PLAIN, &[]));
    if filter.is_none() {
        let some = mutants::try_all(Which::Some).inspect_err(|why| eprintln!("xtask: {why}"));
        tally.add(Tally::of(some == Ok(true)));
        // A test that is filtered may need no machine: then those that it needs are made by it.
        tally.add(Tally::of(vm::build()));
    }
    tally.add(test(&MACHINES, &THREADS));
    tally
}

/// Runs `cargo test`, passes its output on and sums it up. A failure that no result line tells of,
/// such as of the build or of a test program that was killed, counts as one.
fn counted(arguments: &[&str]) -> std::io::Result<Tally> {
    let mut child = cargo(arguments).stdout(Stdio::piped()).spawn()?;
    let mut tally = Tally::default();
    let mut stdout = std::io::stdout().lock();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line?;
            stdout.write_all(&line)?;
            stdout.write_all(b"\n")?;
            tally.add(result(&String::from_utf8_lossy(&line)).unwrap_or_default());
        }
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}

/// Reads `test result: ok. 12 passed; 0 failed; 0 ignored; ...`.
fn result(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?;
    let words: Vec<&str> = counts.split([' ', ';']).collect();
    let before = |word: &str| {
        let at = words.iter().position(|found| *found == word)?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    Some(Tally { passed: before("passed")?, failed: before("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_result_line_is_read_and_nothing_else() {
        let ok = "test result: ok. 39 passed; 0 failed; 1 ignored; 0 measured; 11 filtered out";
        assert_eq!(result(ok), Some(Tally { passed: 39, failed: 0 }));
        let failed = "test result: FAILED. 36 passed; 3 failed; 0 ignored; finished in 5.87s";
        assert_eq!(result(failed), Some(Tally { passed: 36, failed: 3 }));
        let coloured = "test result: \u{1b}[32mok\u{1b}[m. 2 passed; 0 failed; 0 ignored";
        assert_eq!(result(coloured), Some(Tally { passed: 2, failed: 0 }));
        assert_eq!(result("test config::tests::x ... ok"), None);
        assert_eq!(result("test result: unknown"), None);
    }
}
