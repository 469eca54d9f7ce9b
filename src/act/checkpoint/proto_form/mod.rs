//! The form that is written from this version on: `checkpoint.proto`, in a frame. A field that a
//! later version added is skipped and named; a missing one gets a value that harms no service.

mod read;
mod write;

use std::time::Duration;

use prost::Message;

use super::frame;
use super::value::{Checkpoint, CheckpointError, Former};
use crate::rpc::pb::node as pb;

/// The form's number in the frame. A change that fields cannot express gets another.
const FORM: u32 = 1;

pub(super) fn write(checkpoint: &Checkpoint) -> Vec<u8> {
    frame::wrap(FORM, &pb::Checkpoint::from(checkpoint).encode_to_vec())
}

/// The state, and the id of the boot in which it was written, if it is there. `monotonic`: the
/// monotonic clock now.
pub(super) fn read(
    bytes: &[u8],
    monotonic: Duration,
) -> Result<(Former, Option<String>), CheckpointError> {
    let (form, content) = frame::unwrap(bytes)?;
    if form != FORM {
        return Err(CheckpointError::Form { found: form });
    }
    let checkpoint = pb::Checkpoint::decode(content)?;
    let unknown = content.len().saturating_sub(checkpoint.encoded_len());
    Ok(read::read(checkpoint, unknown, monotonic))
}
