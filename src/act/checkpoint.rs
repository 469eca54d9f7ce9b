//! The state as it is kept over the orchestrator's end: sealed memory in the service manager's
//! hands, a new one for every change. Knows nothing of when it is written.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fd_names::InheritedFds;
use crate::config::RuntimeOverrides;
use crate::decide::SavedNode;
use crate::linux::{fds, process};
use crate::units::{Pid, RunId};

/// Of what is written here. Fields that are called otherwise by now keep their names in it.
/// An orchestrator that reads another takes over nothing.
const FORM: u32 = 1;
/// The largest checkpoint that is read, in bytes.
const SIZE_MOST: u64 = 64 << 20;

/// What the next orchestrator has to know and cannot find out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    form: u32,
    /// Of two, the one with the higher number is newer.
    sequence: u64,
    boot: String,
    pub state: State,
    pub runs: BTreeMap<RunId, SavedRun>,
}

/// What the loop knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// How many orchestrators there were, with the one that wrote it.
    pub generation: u32,
    /// The reading of the monotonic clock at `Tick::ZERO`.
    pub began_at: Duration,
    /// The configuration in force, as text that gives it again.
    pub config: String,
    /// What an operator asked for, and the configuration does not have.
    #[serde(rename = "beside")]
    pub overrides: RuntimeOverrides,
    pub node: SavedNode,
}

/// What is known of a run beside its descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedRun {
    pub pid: Pid,
    pub cpu_before: Duration,
    pub oom_kills_before: u64,
}

/// Why there is nothing to go on from.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("the former orchestrator's state cannot be read: {0}")]
    Read(#[from] crate::linux::Error),
    #[error("the former orchestrator's state is not understood: {0}")]
    Content(#[from] serde_json::Error),
    #[error("the former orchestrator wrote its state in form {found}, not in form {FORM}")]
    Form { found: u32 },
    #[error("the former orchestrator's state is of another boot")]
    Boot,
}

impl Checkpoint {
    fn read(fd: &OwnedFd) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        struct Head {
            form: u32,
        }
        let bytes = fds::read_whole(fd, SIZE_MOST)?;
        let Head { form } = serde_json::from_slice(&bytes)?;
        if form != FORM {
            return Err(CheckpointError::Form { found: form });
        }
        let read: Self = serde_json::from_slice(&bytes)?;
        if read.boot != process::boot_id()? { Err(CheckpointError::Boot) } else { Ok(read) }
    }
}

impl InheritedFds {
    /// The newest state that was kept; `None`: there is none at all.
    pub fn checkpoint(&self) -> Option<Result<Checkpoint, CheckpointError>> {
        let all = self.checkpoints.iter().map(Checkpoint::read);
        all.reduce(|one, other| match (one, other) {
            (Ok(one), Ok(other)) if one.sequence > other.sequence => Ok(one),
            (Ok(one), Err(_)) => Ok(one),
            (_, other) => other,
        })
    }
}

/// Writes checkpoints, one after another.
#[derive(Debug)]
pub(super) struct CheckpointWriter {
    sequence: u64,
    boot: String,
}

impl CheckpointWriter {
    /// `after`: the one that was gone on from.
    pub(super) fn new(after: Option<&Checkpoint>) -> Result<Self, crate::linux::Error> {
        let sequence = after.map_or(0, |checkpoint| checkpoint.sequence + 1);
        Ok(Self { sequence, boot: process::boot_id()? })
    }

    /// As a file that holds it.
    pub(super) fn write(
        &mut self,
        state: State,
        runs: BTreeMap<RunId, SavedRun>,
    ) -> Result<OwnedFd, CheckpointError> {
        let (sequence, boot) = (self.sequence, self.boot.clone());
        self.sequence += 1;
        let checkpoint = Checkpoint { form: FORM, sequence, boot, state, runs };
        Ok(fds::sealed_memory("checkpoint", &serde_json::to_vec(&checkpoint)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{Node, Planned};
    use crate::units::InstanceId;

    fn state() -> State {
        let node = Node::new(Vec::<(InstanceId, Planned)>::new(), 7).saved();
        let scaled = BTreeMap::from([("web".parse().unwrap(), 3)]);
        let overrides = RuntimeOverrides { scaled, ..RuntimeOverrides::default() };
        let began_at = Duration::from_millis(1234);
        State { generation: 1, began_at, config: "[node]\n".to_owned(), overrides, node }
    }

    fn runs() -> BTreeMap<RunId, SavedRun> {
        let cpu_before = Duration::from_secs(3);
        BTreeMap::from([(RunId(5), SavedRun { pid: Pid(7), cpu_before, oom_kills_before: 2 })])
    }

    fn inherited(files: Vec<OwnedFd>) -> InheritedFds {
        InheritedFds { checkpoints: files, ..InheritedFds::default() }
    }

    #[test]
    fn the_newest_of_all_is_gone_on_from() {
        let mut checkpoint_writer = CheckpointWriter::new(None).unwrap();
        let old =
            checkpoint_writer.write(State { config: "old".to_owned(), ..state() }, runs()).unwrap();
        let new = checkpoint_writer.write(state(), runs()).unwrap();
        let torn = fds::sealed_memory("checkpoint", b"{\"form\":1,").unwrap();
        let read = inherited(vec![new, torn, old]).checkpoint().unwrap().unwrap();
        assert_eq!((read.state, read.runs), (state(), runs()));
        assert!(inherited(Vec::new()).checkpoint().is_none());
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_an_error_or_a_state_and_never_a_panic() {
        let file = CheckpointWriter::new(None).unwrap().write(state(), runs()).unwrap();
        let whole = fds::read_whole(&file, SIZE_MOST).unwrap();
        let read = |bytes: &[u8]| {
            let file = fds::sealed_memory("checkpoint", bytes).unwrap();
            inherited(vec![file]).checkpoint().unwrap()
        };
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut spoilt = whole.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            let _an_error_or_a_state = read(&spoilt);
        }
    }

    #[test]
    fn another_form_and_another_boot_are_told_apart() {
        let file = CheckpointWriter::new(None).unwrap().write(state(), runs()).unwrap();
        let text = String::from_utf8(fds::read_whole(&file, SIZE_MOST).unwrap()).unwrap();
        let spoilt = |text: String| {
            let file = fds::sealed_memory("checkpoint", text.as_bytes()).unwrap();
            inherited(vec![file]).checkpoint().unwrap().unwrap_err()
        };
        let form = spoilt(text.replace("\"form\":1", "\"form\":2"));
        assert!(matches!(form, CheckpointError::Form { found: 2 }), "{form}");
        let boot = spoilt(text.replace(&process::boot_id().unwrap(), "another"));
        assert!(matches!(boot, CheckpointError::Boot), "{boot}");
    }
}
