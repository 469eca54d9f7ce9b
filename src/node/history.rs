//! The history of each instance, for `why`: the newest remarks of the core, with their times. Each
//! is also recorded for the orchestrator that follows.

use std::collections::{BTreeMap, VecDeque};

use super::remarks;
use crate::decide::Remark;
use crate::rpc::pb::node::{Happening, HistoryEvent, HistoryRecord};
use crate::units::InstanceId;

/// How many remarks are kept of one instance: some ten restarts.
const KEPT: usize = 64;

#[derive(Debug, Default)]
pub(super) struct History {
    kept: BTreeMap<InstanceId, VecDeque<Happening>>,
}

impl History {
    /// Keeps a remark. `unix_us`: the wall clock now. Returns the record to be written, if any.
    pub(super) fn keep(&mut self, remark: &Remark, unix_us: i64) -> Option<HistoryRecord> {
        let (level, what) = remarks::words(&remark.kind)?;
        let run = remark.run.map_or(0, |run| run.0);
        let happening = Happening { unix_us, run, level: level.to_string(), what };
        let record = record(&remark.instance, &happening);
        self.push(remark.instance.clone(), happening);
        Some(record)
    }

    fn push(&mut self, id: InstanceId, happening: Happening) {
        let kept = self.kept.entry(id).or_default();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(happening);
    }

    /// Forgets a retired instance. Returns the record to be written.
    pub(super) fn forget(&mut self, id: &InstanceId) -> HistoryRecord {
        self.kept.remove(id);
        HistoryRecord { instance: id.to_string(), event: None }
    }

    /// Takes over the records of a former orchestrator, oldest first.
    pub(super) fn restore(&mut self, recorded: Vec<HistoryRecord>) {
        for HistoryRecord { instance, event } in recorded {
            let Ok(id) = instance.parse::<InstanceId>() else { continue };
            match event {
                Some(HistoryEvent { unix_us, run, level, what }) => {
                    self.push(id, Happening { unix_us, run, level, what });
                }
                None => drop(self.kept.remove(&id)),
            }
        }
    }

    /// The remarks about an instance, oldest first.
    pub(super) fn of(&self, id: &InstanceId) -> Vec<Happening> {
        self.kept.get(id).into_iter().flatten().cloned().collect()
    }

    /// The whole history as records.
    pub(super) fn records(&self) -> Vec<HistoryRecord> {
        let all = self.kept.iter();
        all.flat_map(|(id, kept)| kept.iter().map(|happening| record(id, happening))).collect()
    }
}

fn record(id: &InstanceId, happening: &Happening) -> HistoryRecord {
    let Happening { unix_us, run, level, what } = happening.clone();
    let event = HistoryEvent { unix_us, run, level, what };
    HistoryRecord { instance: id.to_string(), event: Some(event) }
}
