//! The ledger as a whole. Here is what the tests share.

mod calls;
mod file;
mod writing;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use ed25519_dalek::{Signer, SigningKey};
use tokio::sync::{mpsc, oneshot};

use super::author::Author;
use super::error::LedgerError;
use super::recovery::{Loaded, Recovery};
use super::steps::Progress;
use super::store::Store;
use super::writer::{self, Answer, Draft, Tally, Waiting};
use crate::rpc::pb::ledger::AppendRequest;

/// A folder with a ledger in it.
pub struct Ground {
    pub dir: tempfile::TempDir,
}

impl Ground {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With these bytes as its file.
    fn with(bytes: &[u8]) -> Self {
        let ground = Self::new();
        fs::write(ground.path(), bytes).unwrap();
        ground
    }

    /// With one entry for each payload, each written and flushed alone.
    fn with_entries(payloads: &[&[u8]]) -> Self {
        let ground = Self::new();
        let store = Arc::new(ground.load().unwrap().store);
        for payload in payloads {
            let (answers, _) = append(&store, vec![draft(1, payload)]);
            assert!(answers[0].is_ok());
        }
        ground
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("ledger.log")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    pub fn load(&self) -> Result<Loaded, LedgerError> {
        let mut recovery = Recovery::begin(self.dir.path())?;
        while recovery.step()? == Progress::More {}
        recovery.finish()
    }
}

fn author(seed: u8) -> String {
    let key = SigningKey::from_bytes(&[seed; 32]).verifying_key();
    Author::from_bytes(*key.as_bytes()).to_string()
}

fn draft(seed: u8, payload: &[u8]) -> Draft {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let author = Author::from_bytes(*key.verifying_key().as_bytes());
    let signature = key.sign(payload).to_bytes();
    Draft { author, signature, payload: payload.to_vec() }
}

/// A good request of the author of that seed.
pub fn request(seed: u8, payload: &[u8]) -> AppendRequest {
    let draft = draft(seed, payload);
    let signature = draft.signature.to_vec();
    AppendRequest { author: author(seed), payload: draft.payload, signature }
}

fn waiting(draft: Draft) -> (Waiting, oneshot::Receiver<Answer>) {
    let (answer, answered) = oneshot::channel();
    (Waiting { draft, answer, room: None }, answered)
}

/// All of them wait before the writer begins.
fn append(store: &Arc<Store>, drafts: Vec<Draft>) -> (Vec<Answer>, Tally) {
    let (queue, queued) = mpsc::channel(writer::QUEUE);
    let mut answers = Vec::new();
    for draft in drafts {
        let (waiting, answered) = waiting(draft);
        queue.try_send(waiting).unwrap();
        answers.push(answered);
    }
    drop(queue);
    let store = Arc::clone(store);
    let tally = thread::spawn(move || writer::write_until_closed(store, queued)).join().unwrap();
    (answers.into_iter().map(|mut answered| answered.try_recv().unwrap()).collect(), tally)
}
