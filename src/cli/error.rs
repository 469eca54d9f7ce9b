//! Everything that can end a verb early: one line for the operator and an exit code for the shell.

use std::io;
use std::path::PathBuf;

use super::dirs::NoHome;
use super::exit::ExitCode;
use crate::control::client;
use crate::install::InstallError;

/// Why a verb ended before it was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Node(#[from] client::Error),
    #[error(transparent)]
    NoHome(#[from] NoHome),
    #[error("no service or instance is named {name}; this node has {known}")]
    NoSuchService { name: String, known: String },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write the manual page {}: {source}", .path.display())]
    ManualPage { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}

impl Error {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Node(error) => of_node(error),
            Self::NoHome(_) => ExitCode::Usage,
            Self::NoSuchService { .. } => ExitCode::NoSuchService,
            Self::Install(error) if error.is_denied() => ExitCode::NoPermission,
            Self::Output(_) if self.is_closed_pipe() => ExitCode::Ok,
            Self::Output(_) | Self::ManualPage { .. } | Self::Install(_) | Self::Runtime(_) => {
                ExitCode::Failed
            }
        }
    }

    /// Whether the reader of the output had enough (`| head`), which is no error.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

fn of_node(error: &client::Error) -> ExitCode {
    match error {
        client::Error::NotRunning { .. }
        | client::Error::WentAway { .. }
        | client::Error::Silent { .. } => ExitCode::NotRunning,
        client::Error::NoPermission { .. } | client::Error::Denied(_) => ExitCode::NoPermission,
        client::Error::NoSuchService(_) => ExitCode::NoSuchService,
        client::Error::Invalid(_) => ExitCode::Usage,
        client::Error::Configuration(_) => ExitCode::Configuration,
        client::Error::Connect { .. }
        | client::Error::Failed(_)
        | client::Error::NoSuccessor { .. }
        | client::Error::Internal(..)
        | client::Error::Watch(_) => ExitCode::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_the_exit_code_that_the_manual_promises() {
        let dir = PathBuf::from("/run/b");
        let node = |error| Error::Node(error).exit_code();
        let why = "no control socket";
        let not_running = node(client::Error::NotRunning { dir: dir.clone(), why });
        assert_eq!(not_running, ExitCode::NotRunning);
        assert_eq!(node(client::Error::WentAway { dir: dir.clone() }), ExitCode::NotRunning);
        let denied = node(client::Error::NoPermission { socket: dir });
        assert_eq!(denied, ExitCode::NoPermission);
        assert_eq!(node(client::Error::NoSuchService("x".into())), ExitCode::NoSuchService);
        assert_eq!(node(client::Error::Failed("x".into())), ExitCode::Failed);
        assert_eq!(node(client::Error::Invalid("x".into())), ExitCode::Usage);
        assert_eq!(node(client::Error::Configuration("x".into())), ExitCode::Configuration);
        assert_eq!(Error::NoHome(NoHome).exit_code(), ExitCode::Usage);
    }

    #[test]
    fn a_reader_that_had_enough_is_no_error() {
        let closed = Error::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!(closed.exit_code(), ExitCode::Ok);
        let full = Error::Output(io::ErrorKind::StorageFull.into());
        assert_eq!(full.exit_code(), ExitCode::Failed);
    }
}
