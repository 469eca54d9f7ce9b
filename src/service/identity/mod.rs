//! The identity service: keys and did:key documents over gRPC. `keys` holds the files, `did` the
//! format; this file has the requests and responses.

mod keys;

use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::Signer;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use self::keys::{Held, KeyError, Keys};
use super::builtin::{Beside, BuiltinService};
use super::clock::unix_us;
use super::did::Did;
use super::disk_io::Disk;
use super::durable_file::FileError;
use super::error::ServiceError;
use super::launch::{Launch, LaunchError};
use super::page;
use crate::rpc::pb::identity::identity_server::{Identity as Api, IdentityServer};
use crate::rpc::pb::identity::{
    CreateRequest, CreateResponse, HeldIdentity, ListRequest, ListResponse, ResolveRequest,
    ResolveResponse, SignRequest, SignResponse, VerifyRequest, VerifyResponse,
};

/// The most bytes that are signed or checked in one call.
const PAYLOAD_MOST: usize = 1 << 20;
/// A payload and the rest of its message.
const MESSAGE_MOST: usize = PAYLOAD_MOST + (64 << 10);

/// The service over the keys below `data_dir`, for the instance of that number.
fn routes(data_dir: &Path, instance: u16) -> Result<Routes, FileError> {
    let identity =
        Identity { keys: Arc::new(Keys::open(data_dir, instance)?), disk: Disk::default() };
    let server = IdentityServer::new(identity).max_decoding_message_size(MESSAGE_MOST);
    Ok(Routes::new(server))
}

/// The gRPC service over one folder of keys.
pub struct Identity {
    keys: Arc<Keys>,
    disk: Disk,
}

impl BuiltinService for Identity {
    type Settings = ();

    fn settings(_: &Launch) -> Result<(), LaunchError> {
        Ok(())
    }

    async fn open(launch: &mut Launch, (): (), _: &mut Beside) -> Result<Routes, ServiceError> {
        Ok(routes(&launch.data_dir, launch.instance.index)?)
    }
}

fn did(text: &str) -> Result<Did, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("did {text:?}: {error}")))
}

fn bounded(payload: &[u8]) -> Result<(), Status> {
    if payload.len() > PAYLOAD_MOST {
        let length = payload.len();
        let said =
            format!("the payload is {length} bytes long; at most {PAYLOAD_MOST} are allowed");
        return Err(Status::invalid_argument(said));
    }
    Ok(())
}

fn shown(held: Held) -> HeldIdentity {
    HeldIdentity {
        did: held.did.to_string(),
        label: held.label,
        public_key: held.did.public_key().to_vec(),
        created_unix_us: held.created_unix_us,
    }
}

impl From<KeyError> for Status {
    fn from(error: KeyError) -> Self {
        let said = error.to_string();
        match error {
            KeyError::LabelLength(_) | KeyError::LabelCharacter(_) => Self::invalid_argument(said),
            KeyError::NotHeld(_) => Self::not_found(said),
            KeyError::Damaged { .. } => Self::data_loss(said),
            KeyError::Random(_) => Self::internal(said),
            KeyError::File(error) => error.into(),
        }
    }
}

#[tonic::async_trait]
impl Api for Identity {
    async fn create(
        &self,
        request: Request<CreateRequest>,
    ) -> Result<Response<CreateResponse>, Status> {
        let (keys, label) = (Arc::clone(&self.keys), request.into_inner().label);
        let held = self.disk.run(move || keys.create(&label, unix_us())).await??;
        tracing::info!(did = %held.did, "made a key");
        Ok(Response::new(CreateResponse { identity: Some(shown(held)) }))
    }

    async fn resolve(
        &self,
        request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveResponse>, Status> {
        let did = did(&request.get_ref().did)?;
        let (document_json, public_key) = (did.document().to_string(), did.public_key().to_vec());
        Ok(Response::new(ResolveResponse { document_json, public_key }))
    }

    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let SignRequest { did: text, payload } = request.into_inner();
        let (keys, did) = (Arc::clone(&self.keys), did(&text)?);
        bounded(&payload)?;
        let sign = move || keys.signing_key(&did).map(|key| key.sign(&payload));
        let signature = self.disk.run(sign).await??.to_bytes().to_vec();
        Ok(Response::new(SignResponse { signature }))
    }

    /// A signature of another length than 64 bytes is not valid, rather than an error.
    async fn verify(
        &self,
        request: Request<VerifyRequest>,
    ) -> Result<Response<VerifyResponse>, Status> {
        let VerifyRequest { did: text, payload, signature } = request.into_inner();
        let did = did(&text)?;
        bounded(&payload)?;
        Ok(Response::new(VerifyResponse { valid: did.has_signed(&payload, &signature) }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let ListRequest { page_size, page_token } = request.into_inner();
        let (keys, most) = (Arc::clone(&self.keys), page::size(page_size)?);
        let after = (!page_token.is_empty()).then(|| page_token.parse::<Did>()).transpose();
        let after = after.map_err(|_| page::wrong_token(&page_token))?;
        let (page, more) = self.disk.run(move || keys.list(after.as_ref(), most)).await??;
        let last = page.last().filter(|_| more).map(|held| held.did.to_string());
        let identities = page.into_iter().map(shown).collect();
        let next_page_token = last.unwrap_or_default();
        Ok(Response::new(ListResponse { identities, next_page_token }))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic::transport::Channel;

    use super::*;
    use crate::rpc::pb::identity::identity_client::IdentityClient;
    use crate::rpc::testing::{NEVER, Served};

    const NAMES: &[&str] = &["blackhole.identity.v1.Identity"];

    fn serve(dir: &Path) -> (Served, IdentityClient<Channel>) {
        let served = Served::start(routes(dir, 0).unwrap(), NAMES, NEVER);
        let client = IdentityClient::new(served.channel());
        (served, client)
    }

    #[tokio::test]
    async fn a_made_identity_signs_resolves_and_verifies_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (served, mut client) = serve(dir.path());
        let label = CreateRequest { label: "mail".into() };
        let made = client.create(label).await.unwrap().into_inner().identity.unwrap();
        served.end().await;

        let (served, mut client) = serve(dir.path());
        let ask = SignRequest { did: made.did.clone(), payload: b"text".to_vec() };
        let signature = client.sign(ask).await.unwrap().into_inner().signature;
        let ask = |payload: &[u8]| VerifyRequest {
            did: made.did.clone(),
            payload: payload.to_vec(),
            signature: signature.clone(),
        };
        assert!(client.verify(ask(b"text")).await.unwrap().into_inner().valid);
        assert!(!client.verify(ask(b"test")).await.unwrap().into_inner().valid);
        let ask = ResolveRequest { did: made.did.clone() };
        let resolved = client.resolve(ask).await.unwrap().into_inner();
        assert_eq!(resolved.public_key, made.public_key);
        let document: serde_json::Value = serde_json::from_str(&resolved.document_json).unwrap();
        assert_eq!(document["id"], made.did);
        served.end().await;
    }

    #[tokio::test]
    async fn every_wrong_request_has_its_own_code() {
        let dir = tempfile::tempdir().unwrap();
        let (served, mut client) = serve(dir.path());
        let ask = ResolveRequest { did: "did:web:x".into() };
        assert_eq!(client.resolve(ask).await.unwrap_err().code(), Code::InvalidArgument);
        let stranger = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp".to_owned();
        let ask = SignRequest { did: stranger.clone(), payload: Vec::new() };
        assert_eq!(client.sign(ask).await.unwrap_err().code(), Code::NotFound);
        let ask = SignRequest { did: stranger, payload: vec![0; PAYLOAD_MOST + 1] };
        assert_eq!(client.sign(ask).await.unwrap_err().code(), Code::InvalidArgument);
        let ask = CreateRequest { label: "x".repeat(257) };
        assert_eq!(client.create(ask).await.unwrap_err().code(), Code::InvalidArgument);
        for (page_size, page_token) in [(1001, ""), (1, "nonsense")] {
            let ask = ListRequest { page_size, page_token: page_token.into() };
            assert_eq!(client.list(ask).await.unwrap_err().code(), Code::InvalidArgument);
        }
        served.end().await;
    }

    #[tokio::test]
    async fn the_list_is_paged_and_its_last_page_has_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let (served, mut client) = serve(dir.path());
        for n in 0..3 {
            client.create(CreateRequest { label: n.to_string() }).await.unwrap();
        }
        let ask = ListRequest { page_size: 2, page_token: String::new() };
        let first = client.list(ask).await.unwrap().into_inner();
        let ask = ListRequest { page_size: 2, page_token: first.next_page_token };
        let second = client.list(ask).await.unwrap().into_inner();
        assert_eq!((first.identities.len(), second.identities.len()), (2, 1));
        assert_eq!(second.next_page_token, "");
        served.end().await;
    }
}
