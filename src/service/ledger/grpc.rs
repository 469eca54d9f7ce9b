//! The ledger's gRPC methods: checks requests, passes appends to the writer, and reads entries.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::author::Author;
use super::entry::{Entry, Hash};
use super::error::LedgerError;
use super::steps::in_steps;
use super::store::Store;
use super::verify::Check;
use super::writer::{Draft, Waiting};
use crate::rpc::pb::ledger as pb;
use crate::rpc::pb::ledger::ledger_server::Ledger;
use crate::service::disk_io::{Disk, DiskStream};
use crate::units::ByteSize;

/// The most bytes of payloads that are being appended at once, over all calls.
const ROOM: usize = 64 << 20;
/// How many entries `Read` fetches at once, and after how many bytes of payload it fetches no more.
const BATCH_ENTRIES: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// Answers the calls. Appends go through `queue`; when the service is dropped, the writer ends.
#[derive(Debug)]
pub struct LedgerService {
    store: Arc<Store>,
    queue: mpsc::Sender<Waiting>,
    disk: Disk,
    /// Bytes of the largest payload.
    most: usize,
    room: Arc<Semaphore>,
    /// One check at a time, because each keeps a processor busy.
    verifying: Semaphore,
}

impl LedgerService {
    pub fn new(store: Arc<Store>, queue: mpsc::Sender<Waiting>, disk: Disk, most: usize) -> Self {
        let (room, verifying) = (Arc::new(Semaphore::new(ROOM)), Semaphore::new(1));
        Self { store, queue, disk, most, room, verifying }
    }

    /// The request as a draft, after its author's signature was checked.
    async fn checked(&self, request: pb::AppendRequest) -> Result<Draft, Status> {
        let pb::AppendRequest { author, payload, signature } = request;
        let author: Author = author.parse().map_err(LedgerError::from)?;
        let not_his = LedgerError::Signature(signature.len());
        let Ok(signature) = <[u8; 64]>::try_from(signature) else { return Err(not_his.into()) };
        let check = move || {
            let signed = author.has_signed(&payload, &signature);
            signed.then_some(Draft { author, signature, payload })
        };
        self.disk.run(check).await?.ok_or_else(|| not_his.into())
    }
}

#[tonic::async_trait]
impl Ledger for LedgerService {
    type ReadStream = Entries;

    async fn append(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        let request = request.into_inner();
        let have = request.payload.len();
        if have > self.most {
            return Err(LedgerError::TooLarge { have, most: self.most }.into());
        }
        let share = u32::try_from(have).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(share);
        let room = room.map_err(|_| LedgerError::Busy(ByteSize(ROOM as u64)))?;
        let draft = self.checked(request).await?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { draft, answer, room: Some(room) };
        self.queue.send(waiting).await.map_err(|_| LedgerError::Ending)?;
        let answer = answered.await.map_err(|_| LedgerError::Ending)?;
        let appended = answer.map_err(|error| Status::from(&*error))?;
        let (index, hash) = (appended.index, appended.hash.to_vec());
        Ok(Response::new(pb::AppendResponse { index, hash }))
    }

    async fn get(
        &self,
        request: Request<pb::GetRequest>,
    ) -> Result<Response<pb::GetResponse>, Status> {
        let (store, index) = (Arc::clone(&self.store), request.into_inner().index);
        let (entry, hash) = self.disk.run(move || store.entry(index)).await??;
        Ok(Response::new(pb::GetResponse { entry: Some(shown(entry, hash)) }))
    }

    /// Empty if `from` is the length of the ledger or more.
    async fn read(&self, request: Request<pb::ReadRequest>) -> Result<Response<Entries>, Status> {
        let pb::ReadRequest { from, limit } = request.into_inner();
        let length = self.store.head().length;
        let until = if limit == 0 { length } else { from.saturating_add(limit).min(length) };
        let batches = Batches { store: Arc::clone(&self.store), next: from, until };
        let batches = self.disk.stream(batches);
        Ok(Response::new(Entries { batches, batch: VecDeque::new() }))
    }

    async fn head(
        &self,
        _request: Request<pb::HeadRequest>,
    ) -> Result<Response<pb::HeadResponse>, Status> {
        let head = self.store.head();
        let (length, hash) = (head.length, head.hash.to_vec());
        Ok(Response::new(pb::HeadResponse { length, hash }))
    }

    async fn verify(
        &self,
        _request: Request<pb::VerifyRequest>,
    ) -> Result<Response<pb::VerifyResponse>, Status> {
        let _turn = self.verifying.acquire().await.map_err(|_| LedgerError::Ending)?;
        let check = Check::begin(&self.store);
        let done = in_steps(&self.disk, check, Check::step).await?;
        let (valid, checked) = (done.problem.is_none(), done.checked);
        let problem = done.problem.unwrap_or_default();
        Ok(Response::new(pb::VerifyResponse { valid, checked, problem }))
    }
}

fn shown(entry: Entry, hash: Hash) -> pb::Entry {
    pb::Entry {
        index: entry.index,
        previous: entry.previous.to_vec(),
        hash: hash.to_vec(),
        author: entry.author.to_string(),
        payload: entry.payload,
        signature: entry.signature.to_vec(),
        appended_unix_us: entry.appended_unix_us,
    }
}

/// Reads entries in batches of limited size, of at least one entry.
#[derive(Debug)]
struct Batches {
    store: Arc<Store>,
    next: u64,
    until: u64,
}

impl Batches {
    fn batch(&mut self) -> Result<VecDeque<pb::Entry>, LedgerError> {
        let (mut batch, mut bytes) = (VecDeque::new(), 0);
        while self.next < self.until && batch.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
            let (entry, hash) = self.store.entry(self.next)?;
            bytes += entry.payload.len();
            batch.push_back(shown(entry, hash));
            self.next += 1;
        }
        Ok(batch)
    }
}

impl Iterator for Batches {
    type Item = Result<VecDeque<pb::Entry>, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.next < self.until).then(|| self.batch().map_err(Status::from))
    }
}

/// The stream of `Read`. One batch is in memory; the next is fetched after it was sent.
#[derive(Debug)]
pub struct Entries {
    batches: DiskStream<Batches, VecDeque<pb::Entry>>,
    batch: VecDeque<pb::Entry>,
}

impl Stream for Entries {
    type Item = Result<pb::Entry, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(entry) = self.batch.pop_front() {
                return Poll::Ready(Some(Ok(entry)));
            }
            match ready!(Pin::new(&mut self.batches).poll_next(context)) {
                Some(Ok(batch)) => self.batch = batch,
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Ground, request};
    use super::*;

    #[tokio::test]
    async fn an_append_that_finds_no_room_is_told_to_try_again_and_not_kept() {
        let ground = Ground::new();
        let (queue, mut queued) = mpsc::channel(1);
        let store = Arc::new(ground.load().unwrap().store);
        let grpc = LedgerService::new(store, queue, Disk::default(), 100);
        let taken = grpc.room.try_acquire_many(u32::try_from(ROOM).unwrap() - 6).unwrap();
        let refused = grpc.append(Request::new(request(1, b"payload"))).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        assert!(refused.message().contains("64MiB"), "{refused}");
        drop(taken);
        let appending = grpc.append(Request::new(request(1, b"payload")));
        let answering = async {
            let waiting = queued.recv().await.unwrap();
            assert_eq!(waiting.draft.payload, b"payload");
        };
        let (gone, ()) = tokio::join!(appending, answering);
        assert_eq!(gone.unwrap_err().message(), "the service is ending");
    }
}
