//! What keeps a machine from being there for a test. None of it is a verdict about the node.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

#[derive(thiserror::Error)]
pub enum Error {
    #[error("cannot {operation} {object}: {source}")]
    Io { operation: &'static str, object: String, source: io::Error },
    #[error("{program} failed: {said}")]
    Program { program: String, said: String },
    #[error("the guest's kernel died, which is no verdict about the node:\n{0}")]
    Panic(String),
    #[error("QEMU ended ({status}) while {doing}: {said}")]
    Ended { status: String, doing: String, said: String },
    #[error("nothing was heard from the guest for {} s while {doing}", .after.as_secs())]
    Silent { doing: String, after: Duration },
    #[error("{doing}: the other side says what it should not: {said}")]
    Protocol { doing: String, said: String },
    #[error("the machine did not come up: {0}")]
    Boot(String),
}

impl Error {
    pub fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let object = path.display().to_string();
        move |source| Self::Io { operation, object, source }
    }
}

/// As a failed test shows it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
