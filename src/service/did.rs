//! Ed25519 `did:key` identifiers and their documents (W3C CCG, The did:key Method v0.7).
//!
//! `did:key:z` and the base58btc text of the multicodec prefix 0xed 0x01 with the 32 key bytes.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Value, json};

const METHOD: &str = "did:key:";
/// Multicodec `ed25519-pub` (0xed) as an unsigned varint.
const ED25519: [u8; 2] = [0xed, 0x01];
/// Multicodec `x25519-pub` (0xec) as an unsigned varint.
const X25519: [u8; 2] = [0xec, 0x01];
/// The encoded key has 48 characters; a text that is far longer is not decoded at all.
const KEY_TEXT_MOST: usize = 64;

/// Why a text is not an Ed25519 did:key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DidError {
    #[error("a did begins with \"did:key:z\" here, this one does not")]
    Method,
    #[error("the part behind \"did:key:\" is {0} bytes long; an Ed25519 key has 48")]
    Length(usize),
    #[error("the part behind \"did:key:z\" is not base58btc")]
    Base58,
    #[error("it is not an Ed25519 key (multicodec 0xed, 32 bytes)")]
    NotEd25519,
    #[error("its 32 bytes are not a point on the curve")]
    NotAPoint,
}

/// An Ed25519 public key, named by its did:key. Ordered as the text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Did {
    key: VerifyingKey,
    multibase: String,
}

impl Did {
    pub fn of(key: VerifyingKey) -> Self {
        Self { key, multibase: multibase(ED25519, key.as_bytes()) }
    }

    pub fn public_key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// The text after `did:key:`; letters and digits only.
    pub fn multibase(&self) -> &str {
        &self.multibase
    }

    /// Whether `signature` (64 bytes) over `payload` is this key's, strictly after RFC 8032: no
    /// malleable signatures, no keys of small order.
    pub fn has_signed(&self, payload: &[u8], signature: &[u8]) -> bool {
        let signature = Signature::from_slice(signature);
        signature.is_ok_and(|signature| self.key.verify_strict(payload, &signature).is_ok())
    }

    /// The DID document: the key itself for signing, and the X25519 key of the same point for key
    /// agreement.
    pub fn document(&self) -> Value {
        let did = self.to_string();
        let agreement = multibase(X25519, self.key.to_montgomery().as_bytes());
        let (key_id, agreement_id) =
            (format!("{did}#{}", self.multibase), format!("{did}#{agreement}"));
        json!({
            "@context": [
                "https://www.w3.org/ns/did/v1",
                "https://w3id.org/security/suites/ed25519-2020/v1",
                "https://w3id.org/security/suites/x25519-2020/v1",
            ],
            "id": did,
            "verificationMethod": [
                {
                    "id": key_id,
                    "type": "Ed25519VerificationKey2020",
                    "controller": did,
                    "publicKeyMultibase": self.multibase,
                },
                {
                    "id": agreement_id,
                    "type": "X25519KeyAgreementKey2020",
                    "controller": did,
                    "publicKeyMultibase": agreement,
                },
            ],
            "authentication": [key_id],
            "assertionMethod": [key_id],
            "capabilityInvocation": [key_id],
            "capabilityDelegation": [key_id],
            "keyAgreement": [agreement_id],
        })
    }
}

/// The did:key of these 32 bytes, whether or not they are a point of the curve.
pub fn text_of(key: &[u8; 32]) -> String {
    format!("{METHOD}{}", multibase(ED25519, key))
}

fn multibase(codec: [u8; 2], key: &[u8; 32]) -> String {
    format!("z{}", bs58::encode([&codec[..], &key[..]].concat()).into_string())
}

impl FromStr for Did {
    type Err = DidError;

    fn from_str(text: &str) -> Result<Self, DidError> {
        let multibase = text.strip_prefix(METHOD).ok_or(DidError::Method)?;
        if multibase.len() > KEY_TEXT_MOST {
            return Err(DidError::Length(multibase.len()));
        }
        let base58 = multibase.strip_prefix('z').ok_or(DidError::Method)?;
        let bytes = bs58::decode(base58).into_vec().map_err(|_| DidError::Base58)?;
        let key = bytes.strip_prefix(&ED25519).ok_or(DidError::NotEd25519)?;
        let key: &[u8; 32] = key.try_into().map_err(|_| DidError::NotEd25519)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| DidError::NotAPoint)?;
        Ok(Self { key, multibase: multibase.to_owned() })
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{METHOD}{}", self.multibase)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    const VECTORS: &str = "../shared/vectors/did-key/test-vectors/ed25519-x25519.json";

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    /// The document with its keys as bare bytes: the vectors write them as base58 or as JWK, under
    /// older suites than ours.
    fn with_bare_keys(mut document: Value) -> Value {
        document.as_object_mut().unwrap().remove("@context");
        for method in document["verificationMethod"].as_array_mut().unwrap() {
            let method = method.as_object_mut().unwrap();
            method.remove("type").unwrap();
            let key = match (
                method.remove("publicKeyMultibase"),
                method.remove("publicKeyBase58"),
                method.remove("publicKeyJwk"),
            ) {
                (Some(ours), None, None) => decode(ours.as_str().unwrap())[2..].to_vec(),
                (None, Some(bare), None) => decode(&format!("z{}", bare.as_str().unwrap())),
                (None, None, Some(jwk)) => decode(&format!("u{}", jwk["x"].as_str().unwrap())),
                other => panic!("not one key: {other:?}"),
            };
            method.insert("key".into(), key.into());
        }
        document
    }

    fn decode(multibase: &str) -> Vec<u8> {
        cid::multibase::decode(multibase).unwrap().1
    }

    #[test]
    fn the_public_vectors_resolve_to_their_documents() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(VECTORS);
        let Ok(text) = std::fs::read_to_string(&path) else {
            println!("skipped: no public did:key vectors here");
            return;
        };
        let vectors: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        assert!(!vectors.is_empty());
        for (text, vector) in vectors {
            let did: Did = text.parse().unwrap();
            assert_eq!(did.to_string(), text);
            let expected = vector["didDocument"].clone();
            assert_eq!(with_bare_keys(did.document()), with_bare_keys(expected));
            let seed: Vec<u8> = (0..32)
                .map(|n| &vector["seed"].as_str().unwrap()[2 * n..2 * n + 2])
                .map(|hex| u8::from_str_radix(hex, 16).unwrap())
                .collect();
            let key = SigningKey::from_bytes(&seed.try_into().unwrap());
            assert_eq!(Did::of(key.verifying_key()), did);
        }
    }

    #[test]
    fn a_did_reads_back_as_itself() {
        let did = Did::of(key(7).verifying_key());
        assert_eq!(did.to_string().parse(), Ok(did.clone()));
        assert_eq!(did.multibase().len(), 48);
    }

    #[test]
    fn what_is_not_an_ed25519_did_key_says_why() {
        let read = |text: &str| text.parse::<Did>().unwrap_err();
        assert_eq!(read(""), DidError::Method);
        assert_eq!(read("did:web:example.org"), DidError::Method);
        assert_eq!(read("did:key:m6Mk"), DidError::Method);
        assert_eq!(read("did:key:z0OIl"), DidError::Base58);
        assert_eq!(read(&format!("did:key:z{}", "1".repeat(99))), DidError::Length(100));
        let x25519 = "did:key:z6LShs9GGnqk85isEBzzshkuVWrVKsRp24GnDuHk8QWkARMW";
        assert_eq!(read(x25519), DidError::NotEd25519);
        let with_fragment = format!("{}#a", Did::of(key(7).verifying_key()));
        assert_eq!(read(&with_fragment), DidError::Base58);
    }

    #[test]
    fn only_the_keys_own_signature_over_the_payload_counts() {
        let (key, did) = (key(7), Did::of(key(7).verifying_key()));
        let signature = key.sign(b"payload").to_bytes();
        assert!(did.has_signed(b"payload", &signature));
        assert!(!did.has_signed(b"Payload", &signature));
        assert!(!did.has_signed(b"payload", &signature[..63]));
        assert!(!Did::of(super::tests::key(8).verifying_key()).has_signed(b"payload", &signature));
    }
}
