//! Empty files in the runtime folder by which one process of the node leaves facts for the next:
//! whether it was ready, whether its stop was wanted, and who chose its group.

use std::io;
use std::path::{Path, PathBuf};

/// Each is the name of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RuntimeFlag {
    /// `READY=1` was sent: the start of the orchestrator is finished.
    Ready,
    /// The orderly shutdown of the node has begun.
    Stopping,
    /// The service manager puts the orchestrator into a group below the unit's (systemd's
    /// `DelegateSubgroup=`).
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

    /// A flag that is not set is no error.
    pub(super) fn clear(self, runtime_dir: &Path) -> io::Result<()> {
        match std::fs::remove_file(self.file(runtime_dir)) {
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }
}
