//! Writes checkpoints into memory that the service manager keeps: two slots in turn, so that one is
//! always whole, each in both forms. The memory is stored once and written to many times. Knows
//! nothing of the content.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use super::value::{Checkpoint, CheckpointError, Former, SavedRun, State};
use crate::act::fd_names::{CheckpointForm, CheckpointSlot, FdName, KeptCheckpoint};
use crate::act::service_manager::{Reserved, ServiceManager};
use crate::linux::kept_memory::KeptMemory;
use crate::linux::{fds, process};
use crate::units::RunId;

const MEMORY: &str = "checkpoint";

#[derive(Debug)]
pub(in crate::act) struct CheckpointWriter {
    sequence: u64,
    /// The slot that is written to next.
    slot: CheckpointSlot,
    boot: String,
    memories: BTreeMap<(CheckpointForm, CheckpointSlot), KeptMemory>,
    left: Left,
}

/// Names under which a former orchestrator may have stored memory that we did not get or cannot
/// write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Perhaps,
    Nothing,
}

impl CheckpointWriter {
    /// `former`: the orchestrator that is adopted from; its memory in `kept` is written to again.
    /// `None`: `kept` is not used.
    pub(in crate::act) fn new(
        former: Option<&Former>,
        kept: Vec<KeptCheckpoint>,
    ) -> Result<Self, crate::linux::Error> {
        let mut memories = BTreeMap::new();
        for KeptCheckpoint { form, slot, fd } in kept.into_iter().filter(|_| former.is_some()) {
            if let Some(memory) = KeptMemory::adopt(fd, MEMORY) {
                memories.insert((form, slot), memory);
            }
        }
        Ok(Self {
            sequence: former.map_or(0, |former| former.sequence + 1),
            // The slot that was read stays until the other one is written.
            slot: former.and_then(|former| former.slot).map_or(CheckpointSlot::Zero, |s| s.other()),
            boot: process::boot_id()?,
            memories,
            left: Left::Perhaps,
        })
    }

    /// Sealed copies for a rehearsal.
    pub(in crate::act) fn rehearsed(
        &self,
        state: State,
        runs: BTreeMap<RunId, SavedRun>,
    ) -> Result<Vec<(String, OwnedFd)>, CheckpointError> {
        let checkpoint = self.checkpoint(state, runs);
        let sealed = |form: CheckpointForm| {
            let bytes = form.write(&checkpoint)?;
            let name = FdName::Checkpoint(form, CheckpointSlot::Zero).to_string();
            Ok((name, fds::sealed_memory(MEMORY, &bytes)?))
        };
        CheckpointForm::ALL.into_iter().map(sealed).collect()
    }

    /// Writes a checkpoint. The one before stays whole in the other slot.
    pub(in crate::act) fn save(
        &mut self,
        state: State,
        runs: BTreeMap<RunId, SavedRun>,
        service_manager: &mut ServiceManager,
    ) -> Result<(), CheckpointError> {
        let checkpoint = self.checkpoint(state, runs);
        for form in CheckpointForm::ALL {
            let bytes = form.write(&checkpoint)?;
            if let Some(memory) = self.memories.get(&(form, self.slot)) {
                memory.replace(&bytes)?;
                continue;
            }
            let memory = KeptMemory::new(MEMORY)?;
            memory.replace(&bytes)?;
            let name = FdName::Checkpoint(form, self.slot);
            // Memory that could not be stored is made and stored anew when its slot has its turn
            // again.
            if service_manager.store_reserved(name, memory.as_fd()) == Reserved::Kept {
                self.memories.insert((form, self.slot), memory);
            }
        }
        self.sequence += 1;
        self.slot = self.slot.other();
        if std::mem::replace(&mut self.left, Left::Nothing) == Left::Perhaps {
            // What is stored by these names is older than the slot just written, and stays so.
            let others = all().filter(|which| !self.memories.contains_key(which));
            service_manager
                .remove_reserved(others.map(|(form, slot)| FdName::Checkpoint(form, slot)));
        }
        Ok(())
    }

    /// All memory that is written to, with its names.
    pub(in crate::act) fn memories(&self) -> impl Iterator<Item = (FdName, &KeptMemory)> {
        self.memories
            .iter()
            .map(|((form, slot), memory)| (FdName::Checkpoint(*form, *slot), memory))
    }

    pub(in crate::act) fn remove(service_manager: &mut ServiceManager) {
        service_manager.remove_reserved(all().map(|(form, slot)| FdName::Checkpoint(form, slot)));
    }

    fn checkpoint(&self, state: State, runs: BTreeMap<RunId, SavedRun>) -> Checkpoint {
        Checkpoint { sequence: self.sequence, boot: self.boot.clone(), state, runs }
    }
}

fn all() -> impl Iterator<Item = (CheckpointForm, CheckpointSlot)> {
    let slots = [CheckpointSlot::Zero, CheckpointSlot::One];
    CheckpointForm::ALL.into_iter().flat_map(move |form| slots.map(|slot| (form, slot)))
}
