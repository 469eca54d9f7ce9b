//! What happened to each instance, for `why`: the newest remarks of the core, with their times.

use std::collections::{BTreeMap, VecDeque};

use super::remarks;
use crate::decide::Remark;
use crate::rpc::pb::node::Happening;
use crate::units::InstanceId;

/// How much is kept of one instance: some ten restarts.
const KEPT: usize = 64;

#[derive(Debug, Default)]
pub(super) struct History {
    kept: BTreeMap<InstanceId, VecDeque<Happening>>,
}

impl History {
    /// `unix_us` is the wall clock now.
    pub(super) fn keep(&mut self, remark: &Remark, unix_us: i64) {
        let Some((level, what)) = remarks::words(&remark.kind) else { return };
        let kept = self.kept.entry(remark.instance.clone()).or_default();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        let run = remark.run.map_or(0, |run| run.0);
        kept.push_back(Happening { unix_us, run, level: level.to_string(), what });
    }

    /// Nobody can ask for it any more.
    pub(super) fn drop_all_of(&mut self, id: &InstanceId) {
        self.kept.remove(id);
    }

    /// Oldest first.
    pub(super) fn of(&self, id: &InstanceId) -> Vec<Happening> {
        self.kept.get(id).into_iter().flatten().cloned().collect()
    }
}
