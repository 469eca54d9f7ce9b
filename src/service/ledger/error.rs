//! The errors of the ledger, and their gRPC statuses.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tonic::{Code, Status};

use super::author::AuthorError;
use super::scan::Break;
use crate::service::durable_file::FileError;
use crate::service::error::ServiceError;
use crate::units::ByteSize;

/// An error of the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("another process has the ledger in {0:?} open; end it first")]
    InUse(PathBuf),
    #[error("cannot use {path:?}: {problem}")]
    Header { path: PathBuf, problem: String },
    #[error("{path:?} is damaged: {found}; nothing was changed; restore the file from a copy")]
    Damaged { path: PathBuf, found: Break },
    #[error(transparent)]
    Author(#[from] AuthorError),
    #[error("the signature ({0} bytes) over the payload is not by its author")]
    Signature(usize),
    #[error("the payload has {have} bytes; at most {most} are allowed")]
    TooLarge { have: usize, most: usize },
    #[error("there is no entry {index}; the ledger has {length}")]
    Beyond { index: u64, length: u64 },
    #[error("{0} of payloads are being appended already; try again")]
    Busy(ByteSize),
    #[error(
        "nothing is appended any more since a write failed in a way that cannot be undone \
         ({0}); mend the disk and restart the service"
    )]
    Stopped(Arc<LedgerError>),
    #[error("the service is ending")]
    Ending,
}

impl LedgerError {
    fn code(&self) -> Code {
        match self {
            Self::File(error) if is_full(error) => Code::ResourceExhausted,
            Self::File(_) => Code::Internal,
            Self::Damaged { .. } => Code::DataLoss,
            Self::Author(_) | Self::TooLarge { .. } => Code::InvalidArgument,
            Self::Signature(_) => Code::PermissionDenied,
            Self::Beyond { .. } => Code::NotFound,
            Self::Stopped(_) => Code::FailedPrecondition,
            Self::Busy(_) | Self::Ending => Code::Unavailable,
            Self::InUse(_) | Self::Header { .. } => Code::Internal,
        }
    }
}

fn is_full(error: &FileError) -> bool {
    matches!(error.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<LedgerError> for ServiceError {
    fn from(error: LedgerError) -> Self {
        Self::Own(Box::new(error))
    }
}

impl From<LedgerError> for Status {
    fn from(error: LedgerError) -> Self {
        (&error).into()
    }
}

impl From<&LedgerError> for Status {
    fn from(error: &LedgerError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
