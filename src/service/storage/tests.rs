//! The storage service over a Unix socket.

use cid::Cid;
use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::rpc::pb::storage::PutHeader;
use crate::rpc::pb::storage::storage_client::StorageClient;
use crate::rpc::testing::{NEVER, Served};

const NAMES: &[&str] = &["blackhole.storage.v1.Storage"];

fn serve(dir: &Path, max_block: u64, quota: u64) -> (Served, StorageClient<Channel>) {
    let routes = routes(dir, 0, Limits { max_block, quota }).unwrap();
    let served = Served::start(routes, NAMES, NEVER);
    let client = StorageClient::new(served.channel()).max_decoding_message_size(32 << 20);
    (served, client)
}

fn put(data: &[u8], cid: &str) -> PutRequest {
    PutRequest { data: data.to_vec(), cid: cid.to_owned() }
}

fn parts(cid: &str, pieces: &[&[u8]]) -> Vec<PutStreamRequest> {
    let header = Part::Header(PutHeader { cid: cid.to_owned() });
    let data = pieces.iter().map(|piece| Part::Data(piece.to_vec()));
    std::iter::once(header).chain(data).map(|part| PutStreamRequest { part: Some(part) }).collect()
}

async fn get_in_pieces(client: &mut StorageClient<Channel>, cid: &str) -> Result<Vec<u8>, Status> {
    let mut answers = client.get_stream(GetRequest { cid: cid.into() }).await?.into_inner();
    let mut data = Vec::new();
    while let Some(answer) = answers.message().await? {
        data.extend(answer.data);
    }
    Ok(data)
}

#[tokio::test]
async fn a_streamed_block_is_got_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (served, mut client) = serve(dir.path(), 32 << 20, 0);
    let piece = vec![9; 3 << 20];
    let stream = tokio_stream::iter(parts("", &[&piece, &piece, &piece, &piece, &piece, &piece]));
    let stored = client.put_stream(stream).await.unwrap().into_inner();
    assert_eq!((stored.size, stored.existed), (18 << 20, false));
    served.end().await;

    let (served, mut client) = serve(dir.path(), 32 << 20, 0);
    assert_eq!(get_in_pieces(&mut client, &stored.cid).await.unwrap(), piece.repeat(6));
    let whole = client.get(GetRequest { cid: stored.cid.clone() }).await.unwrap_err();
    assert_eq!(whole.code(), Code::ResourceExhausted);
    let stat = client.stat(StatRequest { cid: stored.cid }).await.unwrap().into_inner();
    assert_eq!(stat.size, 18 << 20);
    assert!(stat.stored_unix_us > 0);
    served.end().await;
}

#[tokio::test]
async fn another_codec_names_the_same_block_and_is_answered_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (served, mut client) = serve(dir.path(), 1 << 20, 0);
    let raw = Digest::of(b"data").raw_cid();
    let other = Cid::new_v1(0x71, *raw.hash()).to_string();
    let stored = client.put(put(b"data", &other)).await.unwrap().into_inner();
    assert_eq!(stored.cid, other);
    for cid in [&other, &raw.to_string()] {
        let got = client.get(GetRequest { cid: cid.clone() }).await.unwrap().into_inner();
        assert_eq!(got.data, b"data");
    }
    let listed = client.list(ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.blocks[0].cid, raw.to_string());
    assert!(
        client.delete(DeleteRequest { cid: other.clone() }).await.unwrap().into_inner().deleted
    );
    assert!(!client.has(HasRequest { cid: other }).await.unwrap().into_inner().has);
    served.end().await;
}

#[tokio::test]
async fn every_refusal_has_its_own_code_and_stores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (served, mut client) = serve(dir.path(), 10, 15);
    let other = Digest::of(b"other").raw_cid().to_string();
    let code = |answer: Result<_, Status>| answer.map(Response::into_inner).unwrap_err().code();
    assert_eq!(code(client.put(put(b"data", &other)).await), Code::InvalidArgument);
    assert_eq!(code(client.put(put(b"data", "Qm")).await), Code::InvalidArgument);
    assert_eq!(code(client.put(put(&[0; 11], "")).await), Code::ResourceExhausted);
    let large = tokio_stream::iter(parts("", &[&[0; 6], &[0; 6]]));
    assert_eq!(code(client.put_stream(large).await), Code::ResourceExhausted);
    let mismatch = tokio_stream::iter(parts(&other, &[b"data"]));
    assert_eq!(code(client.put_stream(mismatch).await), Code::InvalidArgument);
    let headless = tokio_stream::iter(parts("", &[b"data"]).split_off(1));
    assert_eq!(code(client.put_stream(headless).await), Code::InvalidArgument);
    let two_headers = tokio_stream::iter([parts("", &[]), parts("", &[])].concat());
    assert_eq!(code(client.put_stream(two_headers).await), Code::InvalidArgument);
    let nothing = tokio_stream::iter(Vec::new());
    assert_eq!(code(client.put_stream(nothing).await), Code::InvalidArgument);
    client.put(put(&[1; 10], "")).await.unwrap();
    assert_eq!(code(client.put(put(&[2; 10], "")).await), Code::ResourceExhausted);
    let absent = client.get(GetRequest { cid: other.clone() }).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    let absent = client.stat(StatRequest { cid: other }).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    let usage = client.usage(UsageRequest {}).await.unwrap().into_inner();
    let expected = UsageResponse { blocks: 1, bytes: 10, quota_bytes: 15, max_block_bytes: 10 };
    assert_eq!(usage, expected);
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    served.end().await;
}

#[tokio::test]
async fn a_damaged_block_ends_as_data_loss_in_one_piece_and_in_many() {
    let dir = tempfile::tempdir().unwrap();
    let (served, mut client) = serve(dir.path(), 1 << 20, 0);
    let cid = client.put(put(&[5; 600_000], "")).await.unwrap().into_inner().cid;
    let path = dir.path().join("blocks").join(address::shard_of(&cid)).join(&cid);
    std::fs::write(path, vec![6; 600_000]).unwrap();
    let lost = client.get(GetRequest { cid: cid.clone() }).await.unwrap_err();
    assert_eq!(lost.code(), Code::DataLoss);
    let lost = get_in_pieces(&mut client, &cid).await.unwrap_err();
    assert_eq!(lost.code(), Code::DataLoss);
    served.end().await;
}

#[tokio::test]
async fn the_quota_holds_exactly_under_concurrent_puts() {
    let dir = tempfile::tempdir().unwrap();
    let (served, client) = serve(dir.path(), 100, 1000);
    let mut puts = tokio::task::JoinSet::new();
    for n in 0..40_u8 {
        let mut client = client.clone();
        puts.spawn(async move { client.put(put(&[n; 100], "")).await });
    }
    let answers = puts.join_all().await;
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(refused.clone().all(|status| status.code() == Code::ResourceExhausted));
    assert_eq!(refused.count(), 30);
    let usage = client.clone().usage(UsageRequest {}).await.unwrap().into_inner();
    assert_eq!((usage.blocks, usage.bytes), (10, 1000));
    served.end().await;
}
