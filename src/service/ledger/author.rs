//! The author of an entry: an Ed25519 key of 32 bytes. Knows nothing of the chain.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::VerifyingKey;

use crate::service::did::{self, Did, DidError};

/// The most characters of a wrong author that an error repeats.
const SHOWN_MOST: usize = 64;

/// The text is not an author's.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not an Ed25519 did:key: {why}")]
pub struct AuthorError {
    /// At most 64 characters of the text.
    text: String,
    why: DidError,
}

/// The author's public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Author([u8; 32]);

impl Author {
    /// The key of an entry; not checked to be a point of the curve.
    pub fn from_bytes(key: [u8; 32]) -> Self {
        Self(key)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// See [`Did::has_signed`].
    pub fn has_signed(&self, payload: &[u8], signature: &[u8; 64]) -> bool {
        let key = VerifyingKey::from_bytes(&self.0);
        key.is_ok_and(|key| Did::of(key).has_signed(payload, signature))
    }
}

impl FromStr for Author {
    type Err = AuthorError;

    fn from_str(text: &str) -> Result<Self, AuthorError> {
        let refuse = |why| AuthorError { text: text.chars().take(SHOWN_MOST).collect(), why };
        let did: Did = text.parse().map_err(refuse)?;
        Ok(Self(*did.public_key()))
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&did::text_of(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    /// The key of the all-zero seed, as the did:key specification's vectors give it.
    const ZERO_SEED: &str = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";

    #[test]
    fn a_did_key_is_read_and_written_as_the_specification_says() {
        let key = SigningKey::from_bytes(&[0; 32]).verifying_key();
        let author: Author = ZERO_SEED.parse().unwrap();
        assert_eq!(author.as_bytes(), key.as_bytes());
        assert_eq!(author.to_string(), ZERO_SEED);
    }

    #[test]
    fn what_is_not_an_ed25519_did_key_is_refused_with_its_reason() {
        let refused = "did:web:example.org".parse::<Author>().unwrap_err().to_string();
        assert!(refused.contains("did:web:example.org") && refused.contains("did:key:z"));
    }

    #[test]
    fn only_the_authors_signature_over_the_same_payload_counts() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let author = Author::from_bytes(*key.verifying_key().as_bytes());
        let signature = key.sign(b"payload").to_bytes();
        assert!(author.has_signed(b"payload", &signature));
        assert!(!author.has_signed(b"other", &signature));
        let other = SigningKey::from_bytes(&[8; 32]).sign(b"payload").to_bytes();
        assert!(!author.has_signed(b"payload", &other));
    }

    #[test]
    fn a_key_of_small_order_signs_nothing() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!Author::from_bytes(neutral).has_signed(b"any", &signature));
    }
}
