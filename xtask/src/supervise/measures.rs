//! The measures: what is done to the contenders, and which figures come of it. Rounds of the
//! contenders are interleaved, so that a change of the machine's mood meets all of them.

use std::time::Duration;

use rustix::process::Signal;

use super::arena::{Arena, Logs, PATIENCE, Running, millis, now};
use super::chance::Chance;
use super::contenders::{Contender, Duty};
use super::processes;
use super::results::{Better, Measure, Results};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    pub kills: u32,
    pub rounds: u32,
    pub idle: Duration,
    /// Of one service, and of each of ten.
    pub lines: [u64; 2],
}

/// Before it is killed a service has to be older than this: runit restarts younger ones late, and
/// ours takes their end for a crash.
const AGE: Duration = Duration::from_millis(1300);
/// Between two kills: so much, and up to so much more by chance.
const GAP: [u64; 2] = [250, 250];
/// From the last service's start until supervision has nothing to do any more.
const SETTLE: Duration = Duration::from_secs(2);
const KILLED: [Contender; 4] = [Contender::Ours, Contender::Floor, Contender::Runit, Contender::S6];

const fn less(key: &'static str, title: &'static str, unit: &'static str) -> Measure {
    Measure { key, title, unit, better: Better::Less }
}

/// SIGKILL to the replacement's `main`, one service at a time.
pub fn restart(arena: &mut Arena, extent: &Extent, results: &mut Results) -> Result<(), String> {
    let measures = [
        (10, less("restart-10", "SIGKILL to replacement running, 10 services", "ms")),
        (100, less("restart-100", "SIGKILL to replacement running, 100 services", "ms")),
    ];
    for (count, measure) in measures {
        let field = start_all(arena, &KILLED, count)?;
        let mut chance = Chance::seeded(u64::from(count));
        for _ in 0..extent.kills {
            for index in chance.order(field.len()) {
                let Some(running) = field.get(index) else { continue };
                arena.rest(Duration::from_millis(GAP[0] + chance.below(GAP[1])))?;
                let took = kill_one(arena, running, &mut chance)?;
                results.add(measure, running.contender, millis(took));
            }
        }
        field.into_iter().for_each(|running| arena.stop(running));
    }
    Ok(())
}

fn kill_one(arena: &mut Arena, running: &Running, chance: &mut Chance) -> Result<u64, String> {
    let count = u64::from(running.ids.end - running.ids.start);
    let (id, run) = loop {
        let place = u32::try_from(chance.below(count)).map_err(|error| error.to_string())?;
        let id = running.ids.start + place;
        let run = arena.ears.run(id).ok_or_else(|| format!("service {id} never ran"))?;
        if now() - run.at > nanos(AGE) {
            break (id, run);
        }
        arena.interrupt.check()?;
    };
    let killed = now();
    processes::signal(run.pid, Signal::KILL);
    Ok(arena.ears.all_run([id].into_iter(), killed, PATIENCE)? - killed)
}

/// All killed at once, until the last replacement's `main`.
pub fn storm(arena: &mut Arena, extent: &Extent, results: &mut Results) -> Result<(), String> {
    let measure = less("storm-100", "100 killed at once, all running again", "ms");
    let field = start_all(arena, &KILLED, 100)?;
    let mut chance = Chance::seeded(3);
    for _ in 0..extent.rounds {
        for index in chance.order(field.len()) {
            let Some(running) = field.get(index) else { continue };
            arena.rest(AGE)?;
            let services = arena.services(running);
            let killed = now();
            for pid in services {
                processes::signal(pid, Signal::KILL);
            }
            let up = arena.ears.all_run(running.ids.clone(), killed, PATIENCE)?;
            results.add(measure, running.contender, millis(up - killed));
        }
    }
    field.into_iter().for_each(|running| arena.stop(running));
    Ok(())
}

fn start_all(
    arena: &mut Arena,
    contenders: &[Contender],
    count: u32,
) -> Result<Vec<Running>, String> {
    let mut field = Vec::new();
    for contender in contenders {
        let running = arena.start(*contender, count, Duty::Wait, Logs::InMemory)?;
        arena.await_all(&running)?;
        field.push(running);
    }
    arena.rest(SETTLE)?;
    Ok(field)
}

/// From the supervisor's start to the last service's `main`; then what supervision takes of
/// memory, alone on the machine.
pub fn start(arena: &mut Arena, extent: &Extent, results: &mut Results) -> Result<(), String> {
    let starts = [
        (100, less("start-100", "100 services up, with logs", "ms")),
        (500, less("start-500", "500 services up, with logs", "ms")),
    ];
    let memory = [
        less("pss-100", "PSS of supervision, 100 services", "KiB"),
        less("pss-500", "PSS of supervision, 500 services", "KiB"),
    ];
    let mut chance = Chance::seeded(4);
    for ((count, start), pss) in starts.into_iter().zip(memory) {
        for _ in 0..extent.rounds {
            for index in chance.order(super::contenders::ALL.len()) {
                let Some(contender) = super::contenders::ALL.get(index) else { continue };
                let running = arena.start(*contender, count, Duty::Wait, Logs::InMemory)?;
                results.add(start, *contender, millis(arena.await_all(&running)?));
                arena.rest(SETTLE)?;
                results.add(pss, *contender, memory_of(arena, &running)?);
                arena.stop(running);
            }
        }
    }
    let further = less("pss-further", "PSS for each further service", "KiB");
    for contender in super::contenders::ALL {
        let median = |key| results.median(key, contender);
        if let (Some(of_100), Some(of_500)) = (median("pss-100"), median("pss-500")) {
            results.add(further, contender, (of_500 - of_100) / 400.0);
        }
    }
    Ok(())
}

fn memory_of(arena: &mut Arena, running: &Running) -> Result<f64, String> {
    let mut sum = 0;
    for pid in arena.supervision(running) {
        sum += processes::pss(pid)?;
    }
    Ok(sum as f64)
}

/// What supervision of 100 services does while nothing happens.
pub fn idle(arena: &mut Arena, extent: &Extent, results: &mut Results) -> Result<(), String> {
    let wakeups = less("idle-wakeups", "idle, 100 services: wake-ups", "/s");
    let cpu = less("idle-cpu", "idle, 100 services: processor", "ms/s");
    let field = start_all(arena, &KILLED, 100)?;
    let before: Vec<_> = field.iter().map(|running| arena.effort(running)).collect();
    let began = now();
    arena.rest(extent.idle)?;
    for (running, before) in field.iter().zip(before) {
        let used = arena.effort(running).since(before);
        let seconds = (now() - began) as f64 / 1e9;
        results.add(wakeups, running.contender, used.wakeups as f64 / seconds);
        results.add(cpu, running.contender, used.cpu as f64 / 1e6 / seconds);
    }
    field.into_iter().for_each(|running| arena.stop(running));
    checks(arena, extent, results)
}

/// The same with a gRPC health check of each service every 10 s, which only ours can do.
fn checks(arena: &mut Arena, extent: &Extent, results: &mut Results) -> Result<(), String> {
    let both = less("idle-checks", "gRPC checks of 100 every 10 s: both ends", "ms/s");
    let own = less("idle-checks-own", "gRPC checks of 100 every 10 s: supervisor", "ms/s");
    let theirs = less("idle-checks-services", "gRPC checks of 100 every 10 s: services", "ms/s");
    let running = arena.start(Contender::Ours, 100, Duty::Serve, Logs::InMemory)?;
    arena.await_all(&running)?;
    arena.rest(SETTLE * 6)?;
    let services = arena.services(&running);
    let before = (arena.effort(&running), processes::effort(&services));
    let began = now();
    // Whole intervals, whenever in one of them it begins.
    arena.rest(extent.idle)?;
    let supervisor = arena.effort(&running).since(before.0);
    let served = processes::effort(&services).since(before.1);
    let seconds = (now() - began) as f64 / 1e9;
    let per_second = |cpu: u64| cpu as f64 / 1e6 / seconds;
    results.add(both, Contender::Ours, per_second(supervisor.cpu + served.cpu));
    results.add(own, Contender::Ours, per_second(supervisor.cpu));
    results.add(theirs, Contender::Ours, per_second(served.cpu));
    arena.stop(running);
    Ok(())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
