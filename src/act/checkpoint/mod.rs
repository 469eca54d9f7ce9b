//! The state that outlives the orchestrator, in two forms: `checkpoint.proto`, and JSON, which the
//! version before reads. What cannot be read is named and is never a reason to end a service. Knows
//! nothing of when it is written.

pub mod frame;
mod json_form;
mod proto_form;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
mod value;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::fd_names::{CheckpointForm, CheckpointSlot, FdName, InheritedFds, KeptCheckpoint};
use crate::config::RuntimeOverrides;
use crate::decide::{Goal, Membership, Recency, Rng, SavedInstance, SavedNode, Wanted};
use crate::linux::{fds, process};
use crate::units::{InstanceId, RunId};

pub use value::{Checkpoint, CheckpointError, Former, Known, SavedRun, State};
pub(super) use writer::CheckpointWriter;

/// The largest checkpoint that is read, in bytes.
const SIZE_MOST: u64 = 64 << 20;

/// When a node began is read off two clocks, one after the other, for each checkpoint: what is less
/// than this apart is the same node.
const SAME_NODE: Duration = Duration::from_secs(2);

impl CheckpointForm {
    /// As bytes.
    pub fn write(self, checkpoint: &Checkpoint) -> Result<Vec<u8>, CheckpointError> {
        match self {
            Self::Proto => Ok(proto_form::write(checkpoint)),
            Self::Json => json_form::write(checkpoint),
        }
    }

    /// What bytes say that were written in the boot with this id, now at this reading of its
    /// monotonic clock.
    pub fn read(
        self,
        bytes: &[u8],
        (boot, monotonic): (&str, Duration),
    ) -> Result<Former, CheckpointError> {
        let (former, written_in) = match self {
            Self::Proto => proto_form::read(bytes, monotonic)?,
            Self::Json => json_form::read(bytes).map(|(former, boot)| (former, Some(boot)))?,
        };
        match written_in {
            Some(other) if other != boot => Err(CheckpointError::Boot),
            Some(_) | None => Ok(former),
        }
    }
}

/// A checkpoint that was kept, read.
struct Candidate {
    form: CheckpointForm,
    slot: CheckpointSlot,
    read: Result<Former, CheckpointError>,
}

impl InheritedFds {
    /// What is known of the former orchestrator; `None`: there was none. An error: what is left is
    /// of another boot, and nothing of it is gone on with.
    pub fn former(&self) -> Result<Option<Former>, CheckpointError> {
        let (boot, monotonic) = (process::boot_id()?, process::monotonic());
        let read = |kept: &KeptCheckpoint| {
            let bytes = fds::read_whole(&kept.fd, SIZE_MOST)?;
            kept.form.read(&bytes, (&boot, monotonic))
        };
        let all = self.checkpoints.iter();
        let candidates =
            all.map(|kept| Candidate { form: kept.form, slot: kept.slot, read: read(kept) });
        let former = newest(candidates.collect())?;
        let runs: Vec<&InstanceId> = self.whole_runs().map(|(id, ..)| id).collect();
        let former = match former {
            None if runs.is_empty() => return Ok(None),
            None => Former::of_descriptors(vec!["there is none".to_owned()], monotonic),
            Some(Newest::Read(former)) => *former,
            Some(Newest::Unreadable(why)) => Former::of_descriptors(why, monotonic),
        };
        Ok(Some(former.with_runs_of(runs)))
    }
}

enum Newest {
    Read(Box<Former>),
    /// Why none can be read.
    Unreadable(Vec<String>),
}

/// `None`: there are none. A node that began later is newer, and of the same one the higher number:
/// one that was started anew counts from the beginning, and may find what the one before left.
fn newest(candidates: Vec<Candidate>) -> Result<Option<Newest>, CheckpointError> {
    if candidates.is_empty() {
        return Ok(None);
    }
    let (mut readable, mut unreadable) = (Vec::new(), Vec::new());
    for Candidate { form, slot, read } in candidates {
        match read {
            Ok(former) => readable.push((form, slot, former)),
            Err(error) => unreadable.push((form, slot, error)),
        }
    }
    let readable_slots: Vec<CheckpointSlot> = readable.iter().map(|(_, slot, _)| *slot).collect();
    let latest = readable.iter().filter_map(|(_, _, former)| former.began_at).max();
    let is_latest = |began_at: Option<Duration>| {
        latest.is_none_or(|latest| began_at.is_some_and(|at| latest - at < SAME_NODE))
    };
    let of_the_latest = readable.into_iter().filter(|(_, _, former)| is_latest(former.began_at));
    let chosen = of_the_latest
        .max_by_key(|(form, _, former)| (former.sequence, *form == CheckpointForm::Proto));
    let named = |(form, slot, error): &(CheckpointForm, CheckpointSlot, CheckpointError)| {
        format!("{}: {error}", FdName::Checkpoint(*form, *slot))
    };
    let words = unreadable.iter().map(named);
    match chosen {
        Some((_, slot, mut former)) => {
            former.slot = Some(slot);
            former.remarks.splice(0..0, words);
            // A slot has the same in both forms.
            if unreadable.iter().any(|(_, other, _)| !readable_slots.contains(other)) {
                former.node.recency = Recency::Outdated;
                former.remarks.push("what was saved last may be lost".to_owned());
            }
            Ok(Some(Newest::Read(Box::new(former))))
        }
        None if unreadable.iter().any(|(_, _, error)| matches!(error, CheckpointError::Boot)) => {
            Err(CheckpointError::Boot)
        }
        None => Ok(Some(Newest::Unreadable(words.collect()))),
    }
}

impl Former {
    fn of_descriptors(remarks: Vec<String>, monotonic: Duration) -> Self {
        let seed = u64::try_from(monotonic.as_nanos()).unwrap_or(u64::MAX);
        let node = SavedNode {
            instances: BTreeMap::new(),
            next_run: RunId::FIRST,
            rng: Rng::seeded(seed),
            goal: Goal::Run,
            recency: Recency::Outdated,
        };
        Self {
            sequence: 0,
            slot: None,
            generation: 1,
            began_at: None,
            config: None,
            overrides: RuntimeOverrides::default(),
            node,
            runs: BTreeMap::new(),
            known: Known::Descriptors,
            remarks,
        }
    }

    /// Instances of which there is nothing but a run are among those of which little is known,
    /// unless all instances are known: then it is left of one that is gone.
    fn with_runs_of<'a>(mut self, ids: impl IntoIterator<Item = &'a InstanceId>) -> Self {
        let all_known = self.known == Known::Instances && self.node.recency == Recency::Newest;
        for id in ids.into_iter().filter(|_| !all_known) {
            let nothing_but_a_run = || SavedInstance {
                rules: value::default_rules(),
                wanted: Wanted::Up,
                membership: Membership::Planned,
                phase: None,
                attempt: 0,
                recent: VecDeque::new(),
                restarts: 0,
                last: None,
            };
            self.node.instances.entry(id.clone()).or_insert_with(nothing_but_a_run);
        }
        self
    }
}
