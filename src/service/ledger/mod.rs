//! The built-in service `ledger`: an append-only log of signed entries in one file, each linked to
//! the one before by its hash.
//!
//! `data_dir/ledger.log` is laid out as [`frame`] says, and an entry in it as [`entry`] says. At
//! the start the whole file is read and every checksum, hash and link is checked; signatures were
//! checked when the entries came, and `Verify` checks them again. A write that a power cut tore
//! was answered to nobody: it is cut off, with a warning. Anything else that is wrong with the
//! file is an error, and the service does not start. Damage that came later to the last write of
//! all cannot be told from a torn one, and is cut off too.
//!
//! Knows nothing of who may append: every author with a valid signature may.

mod author;
mod entry;
mod error;
mod frame;
mod grpc;
mod recovery;
mod scan;
mod steps;
mod store;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::service::Routes;

pub use error::LedgerError;
pub use grpc::LedgerService;
pub use writer::Tally;

use super::builtin::{Beside, BuiltinService};
use super::disk_io::Disk;
use super::error::ServiceError;
use super::launch::{Launch, LaunchError};
use crate::catalog::LEDGER_MAX_ENTRY;
use crate::rpc::pb::ledger::ledger_server::LedgerServer;
use recovery::{Loaded, Recovery};

/// Bytes of a message beside its payload: author, hashes, signature and framing need a few
/// hundred; the rest lets a payload that is a little too large have an answer that says so.
const MESSAGE_ROOM: usize = 64 << 10;

/// A ledger that is ready to be served.
#[derive(Debug)]
pub struct Opened {
    pub server: LedgerServer<LedgerService>,
    /// Ends when `server` and all its clones are dropped and what was queued is durable; the
    /// caller joins it. It keeps one blocking thread of the runtime.
    pub writer: JoinHandle<Tally>,
}

impl BuiltinService for LedgerService {
    /// Bytes of the largest payload.
    type Settings = usize;

    fn settings(launch: &Launch) -> Result<usize, LaunchError> {
        const { assert!(LEDGER_MAX_ENTRY.most.0 <= frame::PAYLOAD_MOST as u64) }
        Ok(usize::try_from(launch.size(&LEDGER_MAX_ENTRY)?).unwrap_or(frame::PAYLOAD_MOST))
    }

    async fn open(
        launch: &mut Launch,
        most: usize,
        beside: &mut Beside,
    ) -> Result<Routes, ServiceError> {
        let Opened { server, writer } = open(&launch.data_dir, most).await?;
        beside.spawn(async move {
            let tally = writer.await.map_err(|_| ServiceError::PartEnded)?;
            tracing::debug!(?tally, "the ledger is written");
            Ok(())
        });
        Ok(Routes::new(server))
    }
}

/// Opens, and where it is not there yet makes, the ledger in `folder`; `most`: bytes of the largest
/// payload. It takes as long as reading the whole file does, and can be cancelled.
async fn open(folder: &Path, most: usize) -> Result<Opened, LedgerError> {
    let disk = Disk::default();
    let store = Arc::new(load(&disk, folder).await?);
    let (queue, queued) = mpsc::channel(writer::QUEUE);
    let writing = Arc::clone(&store);
    let writer = tokio::task::spawn_blocking(move || writer::write_until_closed(writing, queued));
    let server = LedgerServer::new(LedgerService::new(store, queue, disk, most))
        .max_decoding_message_size(most + MESSAGE_ROOM)
        // Entries of a time when more was allowed can still be read.
        .max_encoding_message_size(frame::PAYLOAD_MOST + MESSAGE_ROOM);
    Ok(Opened { server, writer })
}

async fn load(disk: &Disk, folder: &Path) -> Result<store::Store, LedgerError> {
    let folder = folder.to_owned();
    let run = disk.run(move || Recovery::begin(&folder)).await;
    let begun = run.map_err(|_| LedgerError::Ending)??;
    let checked = steps::in_steps(disk, begun, Recovery::step).await?;
    let run = disk.run(move || checked.finish()).await;
    let Loaded { store, cut } = run.map_err(|_| LedgerError::Ending)??;
    let (path, head) = (store.path().display(), store.head());
    if cut > 0 {
        tracing::warn!(%path, bytes = cut, entries = head.length, "cut off a torn write");
    }
    tracing::info!(%path, entries = head.length, bytes = head.end, "the ledger is whole");
    Ok(store)
}
