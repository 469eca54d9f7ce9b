//! The errors of the storage, and their gRPC statuses.

use tonic::Status;

use super::address::AddressError;
use crate::service::durable_file::FileError;

/// Why a block cannot be stored or given out.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("the data is that of {actual}, not of {expected}")]
    OtherCid { expected: String, actual: String },
    #[error("a block of {size} bytes is too large; at most {most} are allowed")]
    TooLarge { size: u64, most: u64 },
    #[error("{wanted} more bytes do not fit: {used} of the quota of {quota} are used")]
    OverQuota { used: u64, wanted: u64, quota: u64 },
    #[error("there is no block {0}")]
    NotFound(String),
    #[error("what is stored as {0} is damaged; put the block again to mend it")]
    Damaged(String),
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<StorageError> for Status {
    fn from(error: StorageError) -> Self {
        let said = error.to_string();
        match error {
            StorageError::Address(_) | StorageError::OtherCid { .. } => {
                Self::invalid_argument(said)
            }
            StorageError::TooLarge { .. } | StorageError::OverQuota { .. } => {
                Self::resource_exhausted(said)
            }
            StorageError::NotFound(_) => Self::not_found(said),
            StorageError::Damaged(_) => {
                tracing::error!(error = said, "a stored block is damaged");
                Self::data_loss(said)
            }
            StorageError::File(error) => error.into(),
        }
    }
}
