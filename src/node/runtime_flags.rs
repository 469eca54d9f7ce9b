//! Empty files in the runtime folder that tell a later process of this node what an earlier one
//! knew: whether it was ready, whether its stop was wanted, and who put it into its group.

use std::io;
use std::path::{Path, PathBuf};

/// Each is a file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RuntimeFlag {
    /// The service manager was told that this orchestrator is ready: its start is over.
    Ready,
    /// The node's orderly end has begun.
    Stopping,
    /// The service manager puts us into a group below the unit's (systemd's `DelegateSubgroup=`).
    OwnSubgroup,
}

impl RuntimeFlag {
    fn file(self, runtime_dir: &Path) -> PathBuf {
        runtime_dir.join(match self {
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::OwnSubgroup => "own-subgroup",
        })
    }

    pub(super) fn is_set(self, runtime_dir: &Path) -> bool {
        self.file(runtime_dir).exists()
    }

    pub(super) fn set(self, runtime_dir: &Path) -> io::Result<()> {
        std::fs::write(self.file(runtime_dir), "")
    }

    /// A mark that is not set is fine.
    pub(super) fn clear(self, runtime_dir: &Path) -> io::Result<()> {
        match std::fs::remove_file(self.file(runtime_dir)) {
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }
}
