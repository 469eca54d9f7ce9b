//! The storage service: blocks over gRPC. `address` holds the names, `blocks` the files, `usage`
//! the counts and the quota; this file has the requests and responses.

mod address;
mod blocks;
mod error;
mod usage;

use std::path::Path;
use std::sync::Arc;

use tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use self::address::{Address, Digest};
use self::blocks::{Blocks, Limits, Stored};
use self::error::StorageError;
use super::builtin::{Beside, BuiltinService};
use super::disk_io::Disk;
use super::durable_file::FileError;
use super::error::ServiceError;
use super::launch::{Launch, LaunchError};
use super::page;
use crate::catalog::{STORAGE_DISK, STORAGE_MAX_BLOCK};
use crate::rpc::limits;
use crate::rpc::pb::storage::put_stream_request::Part;
use crate::rpc::pb::storage::storage_server::{Storage as Api, StorageServer};
use crate::rpc::pb::storage::{
    BlockInfo, DeleteRequest, DeleteResponse, GetRequest, GetResponse, GetStreamResponse,
    HasRequest, HasResponse, ListRequest, ListResponse, PutRequest, PutResponse, PutStreamRequest,
    StatRequest, StatResponse, UsageRequest, UsageResponse,
};

/// The largest block in one message; larger ones are streamed.
const UNARY_MOST: u64 = 16 << 20;
/// See [`Limits`].
const NO_QUOTA: u64 = 0;
/// The rest of a message beside the data.
const AROUND: usize = 64 << 10;

/// The service over the blocks below `data_dir`, for the instance of that number (below 64).
fn routes(data_dir: &Path, instance: u16, limits: Limits) -> Result<Routes, FileError> {
    let blocks = Blocks::open(data_dir, instance, limits)?;
    let usage = blocks.usage()?;
    tracing::info!(blocks = usage.blocks, bytes = usage.bytes, "counted what is stored");
    let block = usize::try_from(limits.max_block.min(UNARY_MOST)).unwrap_or(usize::MAX);
    let storage = Storage { blocks: Arc::new(blocks), disk: Disk::default() };
    let server = StorageServer::new(storage)
        .max_decoding_message_size(block.max(limits::MESSAGE).saturating_add(AROUND));
    Ok(Routes::new(server))
}

/// The gRPC service over one folder of blocks.
pub struct Storage {
    blocks: Arc<Blocks>,
    disk: Disk,
}

impl BuiltinService for Storage {
    type Settings = Limits;

    fn settings(launch: &Launch) -> Result<Limits, LaunchError> {
        let quota = launch.limit(&STORAGE_DISK)?.unwrap_or(NO_QUOTA);
        Ok(Limits { max_block: launch.size(&STORAGE_MAX_BLOCK)?, quota })
    }

    async fn open(
        launch: &mut Launch,
        limits: Limits,
        _: &mut Beside,
    ) -> Result<Routes, ServiceError> {
        Ok(routes(&launch.data_dir, launch.instance.index, limits)?)
    }
}

fn address(text: &str) -> Result<Address, Status> {
    Ok(text.parse::<Address>().map_err(StorageError::from)?)
}

fn optional_address(text: &str) -> Result<Option<Address>, Status> {
    if text.is_empty() { Ok(None) } else { address(text).map(Some) }
}

/// The cid is the one that the caller named the block by, where there is one.
fn answer(stored: &Stored, named: Option<Address>) -> Response<PutResponse> {
    let cid = named.map_or_else(|| stored.digest.raw_cid(), |address| address.cid).to_string();
    Response::new(PutResponse { cid, size: stored.size, existed: stored.existed })
}

impl Storage {
    /// Does `work` with the blocks on a blocking thread.
    async fn with_blocks<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Blocks>) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, Status> {
        let blocks = Arc::clone(&self.blocks);
        Ok(self.disk.run(move || work(&blocks)).await??)
    }

    async fn put_pieces(
        &self,
        mut parts: Streaming<PutStreamRequest>,
        named: Option<Address>,
    ) -> Result<Stored, Status> {
        let mut writer = self.with_blocks(Blocks::writer).await?;
        while let Some(part) = parts.message().await? {
            let Some(Part::Data(data)) = part.part else {
                return Err(Status::invalid_argument(
                    "after the header every message carries data",
                ));
            };
            let write = move || writer.write(&data).map(|()| writer);
            writer = self.disk.run(write).await??;
        }
        Ok(self.disk.run(move || writer.finish(named.as_ref())).await??)
    }
}

#[tonic::async_trait]
impl Api for Storage {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let PutRequest { data, cid } = request.into_inner();
        let named = optional_address(&cid)?;
        let expected = named.clone();
        let stored = self.with_blocks(move |blocks| blocks.put(&data, expected.as_ref())).await?;
        Ok(answer(&stored, named))
    }

    async fn put_stream(
        &self,
        request: Request<Streaming<PutStreamRequest>>,
    ) -> Result<Response<PutResponse>, Status> {
        let mut parts = request.into_inner();
        let first = parts.message().await?.and_then(|first| first.part);
        let Some(Part::Header(header)) = first else {
            return Err(Status::invalid_argument("the first message must be the header"));
        };
        let named = optional_address(&header.cid)?;
        let stored = self.put_pieces(parts, named.clone()).await?;
        Ok(answer(&stored, named))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let address = address(&request.get_ref().cid)?;
        let read = move |blocks: &Arc<Blocks>| {
            let pieces = blocks.read(&address)?;
            if pieces.left() > UNARY_MOST {
                return Ok(None);
            }
            let pieces: Vec<Vec<u8>> = pieces.collect::<Result<_, _>>()?;
            Ok(Some(pieces.concat()))
        };
        let said = format!("the block has more than {UNARY_MOST} bytes; use GetStream");
        let data = self.with_blocks(read).await?;
        let data = data.ok_or_else(|| Status::resource_exhausted(said))?;
        Ok(Response::new(GetResponse { data }))
    }

    type GetStreamStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<GetStreamResponse, Status>> + Send>>;

    async fn get_stream(
        &self,
        request: Request<GetRequest>,
    ) -> Result<Response<Self::GetStreamStream>, Status> {
        let address = address(&request.get_ref().cid)?;
        let pieces = self.with_blocks(move |blocks| blocks.read(&address)).await?;
        let pieces = pieces.map(|piece| piece.map_err(Status::from));
        let answers =
            self.disk.stream(pieces).map(|piece| piece.map(|data| GetStreamResponse { data }));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn stat(&self, request: Request<StatRequest>) -> Result<Response<StatResponse>, Status> {
        let address = address(&request.get_ref().cid)?;
        let cid = address.cid.to_string();
        let facts = self.with_blocks(move |blocks| blocks.facts(&address)).await?;
        let (size, stored_unix_us) = (facts.size, facts.stored_unix_us);
        Ok(Response::new(StatResponse { cid, size, stored_unix_us }))
    }

    async fn has(&self, request: Request<HasRequest>) -> Result<Response<HasResponse>, Status> {
        let address = address(&request.get_ref().cid)?;
        let has = move |blocks: &Arc<Blocks>| match blocks.facts(&address) {
            Ok(_) => Ok(true),
            Err(StorageError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        };
        Ok(Response::new(HasResponse { has: self.with_blocks(has).await? }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let ListRequest { page_size, page_token } = request.into_inner();
        let most = page::size(page_size)?;
        let after = optional_address(&page_token).map_err(|_| page::wrong_token(&page_token))?;
        let after = after.map(|address| address.digest);
        let list = move |blocks: &Arc<Blocks>| blocks.list(after.as_ref(), most);
        let (page, more) = self.with_blocks(list).await?;
        let info =
            |(digest, size): (Digest, u64)| BlockInfo { cid: digest.raw_cid().to_string(), size };
        let blocks: Vec<BlockInfo> = page.into_iter().map(info).collect();
        let last = blocks.last().filter(|_| more).map(|block| block.cid.clone());
        Ok(Response::new(ListResponse { blocks, next_page_token: last.unwrap_or_default() }))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let digest = address(&request.get_ref().cid)?.digest;
        let deleted = self.with_blocks(move |blocks| blocks.delete(&digest)).await?;
        Ok(Response::new(DeleteResponse { deleted }))
    }

    async fn usage(&self, _: Request<UsageRequest>) -> Result<Response<UsageResponse>, Status> {
        let counts = self.with_blocks(|blocks| Ok(blocks.usage()?)).await?;
        let Limits { max_block, quota } = self.blocks.limits();
        Ok(Response::new(UsageResponse {
            blocks: counts.blocks,
            bytes: counts.bytes,
            quota_bytes: quota,
            max_block_bytes: max_block,
        }))
    }
}

#[cfg(test)]
mod tests;
