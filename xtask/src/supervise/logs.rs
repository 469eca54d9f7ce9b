//! How fast lines get from a service into a file on disk, what that costs supervision, and that
//! none is lost.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::arena::{Arena, Logs, PATIENCE, Running, now};
use super::chance::Chance;
use super::contenders::{Contender, Duty};
use super::measures::Extent;
use super::processes;
use super::results::{Better, Measure, Results};

const LOGGING: [Contender; 3] = [Contender::Ours, Contender::S6, Contender::Runit];
/// What every line of a service begins with.
const MARK: &[u8] = b"race-line ";
/// How often the files are looked at, and how long they must not grow to count as complete.
const LOOK: Duration = Duration::from_millis(1);
const STILL: Duration = Duration::from_millis(400);
const SETTLE: Duration = Duration::from_secs(1);

struct Figures {
    rate: Measure,
    cpu: Measure,
}

const ONE: Figures = Figures {
    rate: more("log-1-rate", "1,000,000 lines of one service: rate"),
    cpu: less("log-1-cpu", "1,000,000 lines of one service: processor", "us/line"),
};
const TEN: Figures = Figures {
    rate: more("log-10-rate", "100,000 lines of each of 10 services: rate"),
    cpu: less("log-10-cpu", "100,000 lines of each of 10 services: processor", "us/line"),
};

const fn less(key: &'static str, title: &'static str, unit: &'static str) -> Measure {
    Measure { key, title, unit, better: Better::Less }
}

const fn more(key: &'static str, title: &'static str) -> Measure {
    Measure { key, title, unit: "lines/s", better: Better::More }
}

pub fn measure(arena: &mut Arena, extent: &Extent, results: &mut Results) -> Result<(), String> {
    let mut chance = Chance::seeded(5);
    for (services, figures, lines) in [(1, ONE, extent.lines[0]), (10, TEN, extent.lines[1])] {
        for _ in 0..extent.rounds {
            for index in chance.order(LOGGING.len()) {
                let Some(contender) = LOGGING.get(index) else { continue };
                let running =
                    arena.start(*contender, services, Duty::Write(lines), Logs::OnDisk)?;
                arena.await_all(&running)?;
                arena.rest(SETTLE)?;
                write_all(arena, &running, lines, &figures, results)?;
                arena.stop(running);
            }
        }
    }
    Ok(())
}

fn write_all(
    arena: &mut Arena,
    running: &Running,
    lines: u64,
    figures: &Figures,
    results: &mut Results,
) -> Result<(), String> {
    let lost = less("log-lost", "lines that are not in the files", "lines");
    let before = arena.effort(running);
    for pid in arena.services(running) {
        processes::signal(pid, Signal::USR1);
    }
    let wrote = arena.ears.all_wrote(running.ids.clone(), PATIENCE)?;
    let complete = await_complete(arena, &running.logs)?;
    let used = arena.effort(running).since(before);
    let began = wrote.iter().map(|wrote| wrote.began).min().unwrap_or(complete);
    let ended = wrote.iter().map(|wrote| wrote.ended).max().unwrap_or(complete).max(complete);
    let total = lines * u64::from(running.ids.end - running.ids.start);
    let seconds = (ended - began) as f64 / 1e9;
    results.add(figures.rate, running.contender, total as f64 / seconds);
    results.add(figures.cpu, running.contender, used.cpu as f64 / 1e3 / total as f64);
    let found = count(&running.logs)?;
    results.add(lost, running.contender, total as f64 - found as f64);
    Ok(())
}

/// When the files last grew, once they have not grown for a while. They are not read meanwhile:
/// that would cost the writer.
fn await_complete(arena: &Arena, files: &[PathBuf]) -> Result<u64, String> {
    let mut size = 0;
    let mut grew = (now(), Instant::now());
    loop {
        arena.interrupt.check()?;
        let found: u64 = files.iter().flat_map(|file| file.metadata()).map(|m| m.len()).sum();
        if found != size {
            (size, grew) = (found, (now(), Instant::now()));
        } else if grew.1.elapsed() > STILL {
            return Ok(grew.0);
        }
        std::thread::sleep(LOOK);
    }
}

fn count(files: &[PathBuf]) -> Result<u64, String> {
    let mut found = 0;
    for path in files {
        let failed = |error| format!("cannot read {}: {error}", path.display());
        for line in BufReader::new(File::open(path).map_err(failed)?).split(b'\n') {
            let line = line.map_err(failed)?;
            found += u64::from(line.windows(MARK.len()).any(|window| window == MARK));
        }
    }
    Ok(found)
}
