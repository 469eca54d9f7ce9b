//! The ledger over gRPC.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::StreamExt;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::*;
use crate::rpc::pb::ledger::ledger_client::LedgerClient;
use crate::rpc::pb::ledger::{
    AppendResponse, Entry, GetRequest, HeadRequest, ReadRequest, VerifyRequest, VerifyResponse,
};
use crate::rpc::testing::{NEVER, Served};
use crate::service::ledger::frame::{self, FILE_HEADER};
use crate::service::ledger::{Opened, open};

const NAMES: &[&str] = &["blackhole.ledger.v1.Ledger"];

/// The service in this process.
struct Service {
    served: Served,
    client: LedgerClient<Channel>,
    writer: JoinHandle<Tally>,
}

impl Service {
    async fn start(ground: &Ground) -> Self {
        let Opened { server, writer } = open(ground.dir.path(), 1000).await.unwrap();
        let served = Served::start(Routes::new(server), NAMES, NEVER);
        let client = LedgerClient::new(served.channel());
        Self { served, client, writer }
    }

    async fn append(&mut self, request: AppendRequest) -> Result<AppendResponse, Status> {
        self.client.append(request).await.map(tonic::Response::into_inner)
    }

    async fn get(&mut self, index: u64) -> Result<Entry, Status> {
        Ok(self.client.get(GetRequest { index }).await?.into_inner().entry.unwrap())
    }

    async fn read(&mut self, from: u64, limit: u64) -> Vec<Entry> {
        let entries = self.client.read(ReadRequest { from, limit }).await.unwrap().into_inner();
        entries.map(Result::unwrap).collect().await
    }

    async fn length(&mut self) -> u64 {
        self.client.head(HeadRequest {}).await.unwrap().into_inner().length
    }

    async fn verify(&mut self) -> VerifyResponse {
        self.client.verify(VerifyRequest {}).await.unwrap().into_inner()
    }

    async fn end(self) -> Tally {
        drop(self.client);
        self.served.end().await;
        self.writer.await.unwrap()
    }
}

#[tokio::test]
async fn appends_at_once_are_neither_lost_nor_doubled_nor_misplaced() {
    let ground = Ground::new();
    let mut service = Service::start(&ground).await;
    let mut callers = JoinSet::new();
    for caller in 0..64_u8 {
        let mut client = service.client.clone();
        callers.spawn(async move {
            let mut told = Vec::new();
            for n in 0..20_u8 {
                let answer = client.append(request(caller, &[caller, n])).await.unwrap();
                told.push((answer.into_inner(), vec![caller, n]));
            }
            told
        });
    }
    let told: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    let by_index: BTreeMap<u64, _> =
        told.into_iter().map(|(answer, payload)| (answer.index, (answer.hash, payload))).collect();
    assert!(by_index.keys().copied().eq(0..1280));
    check(&mut service, &by_index).await;
    let tally = service.end().await;
    assert_eq!(tally.appended, 1280);
    let mut service = Service::start(&ground).await;
    check(&mut service, &by_index).await;
    assert_eq!(service.end().await, Tally::default());
}

/// What callers were told is what every way of reading gives, and it is one chain.
async fn check(service: &mut Service, told: &BTreeMap<u64, (Vec<u8>, Vec<u8>)>) {
    let all = service.read(0, 0).await;
    assert_eq!(all.len(), told.len());
    let mut previous = vec![0; 32];
    for (entry, (index, (hash, payload))) in all.iter().zip(told) {
        assert_eq!((&entry.index, &entry.hash, &entry.payload), (index, hash, payload));
        assert_eq!((&entry.previous, &entry.author), (&previous, &author(payload[0])));
        assert_eq!(&service.get(*index).await.unwrap(), entry);
        previous.clone_from(hash);
    }
    let head = service.client.head(HeadRequest {}).await.unwrap().into_inner();
    assert_eq!((head.length, head.hash), (told.len() as u64, previous));
    let verified = service.verify().await;
    assert_eq!((verified.valid, verified.checked, verified.problem.as_str()), (true, 1280, ""));
}

#[tokio::test]
async fn what_its_author_did_not_sign_is_refused_and_not_written() {
    let ground = Ground::new();
    let mut service = Service::start(&ground).await;
    let good = request(1, b"payload");
    let mut flipped = good.clone();
    flipped.signature[5] ^= 1;
    let of_another = AppendRequest { author: author(2), ..good.clone() };
    let over_another = AppendRequest { payload: b"Payload".to_vec(), ..good.clone() };
    let short = AppendRequest { signature: good.signature[..63].to_vec(), ..good.clone() };
    let before = ground.bytes();
    for wrong in [flipped, of_another, over_another, short] {
        let refused = service.append(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    assert_eq!((service.length().await, ground.bytes()), (0, before));
    assert_eq!(service.append(good).await.unwrap().index, 0);
    service.end().await;
}

#[tokio::test]
async fn bad_input_is_named() {
    let ground = Ground::new();
    let mut service = Service::start(&ground).await;
    let other = AppendRequest { author: "did:web:example.org".into(), ..request(1, b"") };
    let refused = service.append(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("did:web:example.org"), "{refused}");
    let refused = service.append(request(1, &[0; 1001])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("1001 bytes; at most 1000"), "{refused}");
    assert_eq!(service.append(request(1, &[0; 1000])).await.unwrap().index, 0);
    for beyond in [1, u64::MAX] {
        let refused = service.get(beyond).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert!(refused.message().contains(&format!("{beyond}; the ledger has 1")), "{refused}");
    }
    service.end().await;
}

#[tokio::test]
async fn read_gives_the_asked_part_in_order() {
    let ground = Ground::new();
    let store = Arc::new(ground.load().unwrap().store);
    let entries = (0..=255).map(|n: u8| draft(1, &[n])).collect();
    assert_eq!(append(&store, entries).1.appended, 256);
    drop(store);
    let mut service = Service::start(&ground).await;
    for n in 0..100 {
        service.append(request(1, &[n])).await.unwrap();
    }
    let cases = [
        (0, 0, 0..356),
        (0, 1, 0..1),
        (250, 20, 250..270),
        (355, u64::MAX, 355..356),
        (356, 0, 0..0),
        (u64::MAX, u64::MAX, 0..0),
    ];
    for (from, limit, expected) in cases {
        let indices = service.read(from, limit).await.into_iter().map(|entry| entry.index);
        assert!(indices.eq(expected.clone()), "{from} {limit}: {expected:?}");
    }
    service.end().await;
}

#[tokio::test]
async fn damage_under_a_running_service_is_data_loss_and_verify_names_it() {
    let ground = Ground::with_entries(&[b"one", b"two", b"three"]);
    let mut service = Service::start(&ground).await;
    assert!(service.verify().await.valid);
    let bytes = ground.bytes();
    let at = bytes.windows(3).position(|window| window == b"two").unwrap();
    let file = File::options().write(true).open(ground.path()).unwrap();
    file.write_all_at(b"TWO", at as u64).unwrap();
    let verified = service.verify().await;
    assert_eq!((verified.valid, verified.checked), (false, 1));
    assert!(verified.problem.contains("entry 1 at byte"), "{}", verified.problem);
    let lost = service.get(1).await.unwrap_err();
    assert_eq!(lost.code(), Code::DataLoss);
    assert!(lost.message().contains("entry 1 at byte"), "{lost}");
    assert_eq!(service.get(2).await.unwrap().payload, b"three");
    service.end().await;
}

#[tokio::test]
async fn verify_finds_a_wrong_signature_in_a_good_chain() {
    let ground = Ground::with_entries(&[b"one"]);
    let store = Arc::new(ground.load().unwrap().store);
    let forged = Draft { payload: b"forged".to_vec(), ..draft(1, b"signed") };
    assert_eq!(append(&store, vec![forged]).1.appended, 1);
    drop(store);
    let mut service = Service::start(&ground).await;
    let verified = service.verify().await;
    assert_eq!((verified.valid, verified.checked), (false, 1));
    assert!(verified.problem.contains("entry 1") && verified.problem.contains("signature"));
    service.end().await;
}

#[tokio::test]
async fn verify_finds_a_file_that_was_shortened_and_one_that_holds_another_chain() {
    let ground = Ground::with_entries(&[b"one"]);
    let store = ground.load().unwrap().store;
    let (mut entry, _) = store.entry(0).unwrap();
    let Draft { payload, signature, .. } = draft(1, b"two");
    (entry.payload, entry.signature) = (payload, signature);
    let mut another = Vec::new();
    frame::add(&mut another, store.mark(), &entry.encode());
    drop(store);
    let mut service = Service::start(&ground).await;
    let file = File::options().write(true).open(ground.path()).unwrap();
    file.write_all_at(&another, FILE_HEADER as u64).unwrap();
    let verified = service.verify().await;
    assert_eq!((verified.valid, verified.checked), (false, 1));
    assert!(verified.problem.contains("not with the last of the 1"), "{}", verified.problem);
    file.set_len(40).unwrap();
    let verified = service.verify().await;
    assert_eq!((verified.valid, verified.checked), (false, 0));
    assert!(verified.problem.contains("the file ends within it"), "{}", verified.problem);
    service.end().await;
}

#[tokio::test]
async fn a_torn_tail_is_reported_as_a_warning_with_its_bytes() {
    let ground = Ground::with_entries(&[b"one", b"torn off"]);
    let bytes = ground.bytes();
    let ground = Ground::with(&bytes[..bytes.len() - 1]);
    let (log, mut seen) = (tempfile::NamedTempFile::new().unwrap(), String::new());
    let subscriber = tracing_subscriber::fmt().json().with_writer(log.reopen().unwrap()).finish();
    let told = tracing::subscriber::set_default(subscriber);
    let opened = open(ground.dir.path(), 1000).await.unwrap();
    drop(told);
    drop(opened.server);
    opened.writer.await.unwrap();
    log.reopen().unwrap().read_to_string(&mut seen).unwrap();
    let warning = seen.lines().find(|line| line.contains("\"WARN\"")).unwrap();
    assert!(warning.contains("cut off a torn write"), "{warning}");
    assert!(warning.contains("\"bytes\":191"), "{warning}");
}
