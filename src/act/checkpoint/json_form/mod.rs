//! The first form, JSON, as the version before this one reads and writes it. Its words are that
//! version's and stay, whatever our types are called. To be removed with the next version.

mod convert;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value::{Checkpoint, CheckpointError, Former, Known, State};
use crate::config::{LimitSettings, RuntimeOverrides};
use crate::units::{NameError, RunId, ServiceName};

/// The form's number.
const FORM: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    form: u32,
}

#[derive(Serialize, Deserialize)]
struct Whole {
    form: u32,
    sequence: u64,
    boot: String,
    state: WholeState,
    runs: BTreeMap<u64, Run>,
}

#[derive(Serialize, Deserialize)]
struct WholeState {
    generation: u32,
    began_at: Duration,
    config: String,
    beside: Beside,
    node: Node,
}

#[derive(Serialize, Deserialize)]
struct Beside {
    scaled: BTreeMap<String, u16>,
    limited: BTreeMap<String, Vec<String>>,
}

#[derive(Serialize, Deserialize)]
struct Run {
    pid: i32,
    cpu_before: Duration,
    oom_kills_before: u64,
}

#[derive(Serialize, Deserialize)]
struct Node {
    instances: BTreeMap<String, Instance>,
    next_run: u64,
    chance: u64,
    goal: Goal,
}

#[derive(Serialize, Deserialize)]
enum Goal {
    Run,
    Shutdown,
}

#[derive(Serialize, Deserialize)]
struct Instance {
    rules: Rules,
    wanted: Wanted,
    tenure: Tenure,
    phase: Phase,
    attempt: u32,
    recent: VecDeque<Duration>,
    restarts: u64,
    last: Option<Ended>,
}

#[derive(Serialize, Deserialize)]
struct Rules {
    needs: Vec<String>,
    restart_with: Vec<String>,
    readiness: Readiness,
    restart: RestartRules,
    start_timeout: Duration,
    stop_timeout: Duration,
    drain: Duration,
    watchdog: Option<Duration>,
    unhealthy_threshold: u32,
}

#[derive(Serialize, Deserialize)]
enum Readiness {
    Started,
    Notify,
    Grpc,
    Port(u16),
}

#[derive(Serialize, Deserialize)]
struct RestartRules {
    policy: RestartPolicy,
    max_restarts: u32,
    window: Duration,
    backoff_initial: Duration,
    backoff_max: Duration,
    stable_after: Duration,
}

#[derive(Serialize, Deserialize)]
enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

#[derive(Serialize, Deserialize)]
enum Wanted {
    Up,
    Anew,
    Down,
}

#[derive(Serialize, Deserialize)]
enum Tenure {
    Planned,
    Retiring,
}

#[derive(Serialize, Deserialize)]
enum Phase {
    Stopped,
    Waiting,
    Starting {
        run: u64,
        since: Duration,
        pid: Option<i32>,
        exec_failure: Option<String>,
        deadline: Duration,
    },
    Ready {
        run: u64,
        pid: i32,
        spawned: Duration,
        since: Duration,
        strikes: u32,
        watchdog: Option<Duration>,
    },
    Stopping {
        run: u64,
        pid: Option<i32>,
        spawned: Duration,
        ready: Option<Duration>,
        rung: Rung,
        reason: StopReason,
        deadline: Duration,
    },
    Clearing {
        run: u64,
        ended: Ended,
        deadline: Duration,
    },
    Backoff {
        until: Duration,
        attempt: u32,
    },
    Failed(Verdict),
}

#[derive(Serialize, Deserialize)]
enum Rung {
    OwnAccord,
    Drain,
    Term,
    Kill,
    Unkillable,
}

#[derive(Serialize, Deserialize)]
enum StopReason {
    Operator,
    Shutdown,
    OwnAccord,
    StartTimeout,
    Unhealthy(String),
    Watchdog,
    Replanned,
    With(String),
}

#[derive(Serialize, Deserialize)]
struct Ended {
    run: u64,
    pid: Option<i32>,
    at: Duration,
    how: Ending,
    asked: Option<StopReason>,
    lasted: Duration,
    ready_for: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
enum Ending {
    Exited(ExitFacts),
    NeverStarted(String),
}

#[derive(Serialize, Deserialize)]
struct ExitFacts {
    status: ExitStatus,
    oom_kills: u64,
}

#[derive(Serialize, Deserialize)]
enum ExitStatus {
    Code(i32),
    Signal { number: i32, core: Core },
    Unseen,
}

#[derive(Serialize, Deserialize)]
enum Core {
    Dumped,
    None,
}

#[derive(Serialize, Deserialize)]
enum Verdict {
    TooManyRestarts { restarts: u32, window: Duration, last: Ended },
    NotRestarted { last: Ended },
}

pub(super) fn write(checkpoint: &Checkpoint) -> Result<Vec<u8>, CheckpointError> {
    let Checkpoint { sequence, boot, state, runs } = checkpoint;
    let State { generation, began_at, config, overrides, node } = state;
    let whole = Whole {
        form: FORM,
        sequence: *sequence,
        boot: boot.clone(),
        state: WholeState {
            generation: *generation,
            began_at: *began_at,
            config: config.clone(),
            beside: overrides.into(),
            node: node.into(),
        },
        runs: runs.iter().map(|(run, saved)| (run.0, saved.into())).collect(),
    };
    Ok(serde_json::to_vec(&whole)?)
}

/// The state, and the id of the boot in which it was written.
pub(super) fn read(bytes: &[u8]) -> Result<(Former, String), CheckpointError> {
    let Head { form } = serde_json::from_slice(bytes)?;
    if form != FORM {
        return Err(CheckpointError::Form { found: form });
    }
    let Whole { sequence, boot, state, runs, .. } = serde_json::from_slice(bytes)?;
    let WholeState { generation, began_at, config, beside, node } = state;
    let mut remarks = Vec::new();
    let overrides = beside.read(&mut remarks)?;
    let former = Former {
        sequence,
        slot: None,
        generation,
        began_at: Some(began_at),
        config: Some(config),
        overrides,
        node: node.read()?,
        runs: runs.into_iter().map(|(run, saved)| (RunId(run), saved.read())).collect(),
        known: Known::Instances,
        remarks,
    };
    Ok((former, boot))
}

fn name(text: &str) -> Result<ServiceName, NameError> {
    text.parse()
}

impl From<&RuntimeOverrides> for Beside {
    fn from(overrides: &RuntimeOverrides) -> Self {
        let RuntimeOverrides { scaled, limited } = overrides;
        let limits = |settings: &LimitSettings| settings.clone().into();
        Self {
            scaled: scaled.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
            limited: limited.iter().map(|(name, all)| (name.to_string(), limits(all))).collect(),
        }
    }
}

impl Beside {
    fn read(self, remarks: &mut Vec<String>) -> Result<RuntimeOverrides, NameError> {
        let scaled = self.scaled.into_iter();
        let scaled = scaled.map(|(service, count)| Ok((name(&service)?, count)));
        let mut overrides =
            RuntimeOverrides { scaled: scaled.collect::<Result<_, _>>()?, ..Default::default() };
        for (service, assignments) in self.limited {
            match LimitSettings::parse(&assignments) {
                Ok(settings) => drop(overrides.limit(&name(&service)?, settings)),
                Err(why) => remarks.push(format!("limits of {service}: {why}")),
            }
        }
        Ok(overrides)
    }
}
