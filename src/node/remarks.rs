//! The core's remarks, as log lines.

use super::host::Host;
use crate::decide::{Blame, Memory, Remark, RemarkKind, StopReason};
use crate::telemetry::LogStore;
use crate::units::{Level, human_duration};

pub(super) fn log(log_store: &LogStore, remark: &Remark) {
    if let Some((level, words)) = words(&remark.kind) {
        let instance = &remark.instance;
        let mut fields = Vec::new();
        if let Some(run) = remark.run {
            fields.push(("run", serde_json::Value::from(run.0)));
        }
        log_store.node_line(level, &format!("{instance} {words}"), &fields);
    }
}

pub(super) fn log_degradations(log_store: &LogStore, host: &Host) {
    for d in &host.degradations {
        let line = format!("without {}: {}; instead: {}", d.name, d.missing, d.instead);
        log_store.node_line(Level::Warn, &line, &[]);
    }
}

/// `None`: another line says the same.
pub(super) fn words(kind: &RemarkKind) -> Option<(Level, String)> {
    let said = match kind {
        RemarkKind::Starting => (Level::Info, "starting".to_owned()),
        RemarkKind::Ready { pid, after } => {
            (Level::Info, format!("ready in {} (pid {pid})", human_duration(*after)))
        }
        RemarkKind::StartFailed(_) => return None,
        RemarkKind::Ended(ended) => {
            let blame = ended.asked.as_ref().map(StopReason::blame);
            let wanted = blame == Some(Blame::Nobody);
            let level = if wanted || ended.is_success() { Level::Info } else { Level::Error };
            (level, format!("ended: {ended}"))
        }
        RemarkKind::Restarting { delay, attempt } if delay.is_zero() => {
            (Level::Info, format!("restarts at once (attempt {attempt})"))
        }
        RemarkKind::Restarting { delay, attempt } => {
            (Level::Warn, format!("restarts in {} (attempt {attempt})", human_duration(*delay)))
        }
        RemarkKind::Unhealthy { why, strikes, threshold } => {
            (Level::Warn, format!("health check {strikes} of {threshold} failed: {why}"))
        }
        RemarkKind::Starved => {
            (Level::Warn, "did not answer, but was given no processor: not counted".to_owned())
        }
        RemarkKind::Memory(Memory::Short) => {
            (Level::Warn, "is slowed down: it asks for more memory than its limits give".to_owned())
        }
        RemarkKind::Memory(Memory::Enough) => {
            (Level::Info, "is no longer slowed down for want of memory".to_owned())
        }
        RemarkKind::LimitsRefused(refusal) => {
            (Level::Warn, format!("does not have its limits: {refusal}"))
        }
        RemarkKind::Stopping(reason) => (Level::Info, format!("stopping: {reason}")),
        RemarkKind::Killing => {
            (Level::Warn, "did not end within its stop timeout and is killed".to_owned())
        }
        RemarkKind::Unkillable => {
            (Level::Error, "cannot be killed: a process hangs in the kernel".to_owned())
        }
        RemarkKind::LeftOvers => (Level::Warn, "left processes behind; they are killed".to_owned()),
        RemarkKind::Failed(reason) => {
            (Level::Error, format!("failed: {reason}; `start` tries again"))
        }
        RemarkKind::Stopped => (Level::Info, "stopped".to_owned()),
        RemarkKind::Retired => (Level::Info, "removed: it is no longer configured".to_owned()),
    };
    Some(said)
}
