//! One entry and its canonical bytes. Knows neither the file nor the writer.
//!
//! The canonical bytes, integers big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `BHENTRY1` |
//! | 8 | index |
//! | 8 | microseconds since 1970-01-01 UTC when it was appended, signed |
//! | 32 | SHA-256 of the entry before; zero for the first |
//! | 32 | the author's Ed25519 public key |
//! | 64 | the author's signature over the payload |
//! | rest | the payload |
//!
//! The entry's hash is SHA-256 over all of them.

use sha2::{Digest, Sha256};

use super::author::Author;

/// SHA-256.
pub type Hash = [u8; 32];

/// The previous hash of the first entry.
pub const NO_ENTRY: Hash = [0; 32];

const TAG: [u8; 8] = *b"BHENTRY1";
/// Canonical bytes of an entry without a payload.
pub const FIXED: usize = 8 + 8 + 8 + 32 + 32 + 64;

/// An entry: what its author gave, and its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub index: u64,
    pub appended_unix_us: i64,
    pub previous: Hash,
    pub author: Author,
    pub signature: [u8; 64],
    pub payload: Vec<u8>,
}

/// The hash of an entry, from its canonical bytes.
pub fn hash(canonical: &[u8]) -> Hash {
    Sha256::digest(canonical).into()
}

impl Entry {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let index = self.index.to_be_bytes();
        let appended = self.appended_unix_us.to_be_bytes();
        let parts: [&[u8]; 7] = [
            &TAG,
            &index,
            &appended,
            &self.previous,
            self.author.as_bytes(),
            &self.signature,
            &self.payload,
        ];
        parts.concat()
    }

    /// `None`: the bytes are too few, or do not begin with the tag.
    pub fn decode(canonical: &[u8]) -> Option<Self> {
        let (tag, rest) = canonical.split_first_chunk::<8>()?;
        let (index, rest) = rest.split_first_chunk()?;
        let (appended, rest) = rest.split_first_chunk()?;
        let (previous, rest) = rest.split_first_chunk()?;
        let (author, rest) = rest.split_first_chunk()?;
        let (signature, payload) = rest.split_first_chunk()?;
        (*tag == TAG).then(|| Self {
            index: u64::from_be_bytes(*index),
            appended_unix_us: i64::from_be_bytes(*appended),
            previous: *previous,
            author: Author::from_bytes(*author),
            signature: *signature,
            payload: payload.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_bytes_are_as_documented_and_read_back() {
        let entry = Entry {
            index: 0x0102,
            appended_unix_us: -2,
            previous: [3; 32],
            author: Author::from_bytes([4; 32]),
            signature: [5; 64],
            payload: b"payload".to_vec(),
        };
        let bytes = entry.encode();
        assert_eq!(bytes.len(), FIXED + 7);
        assert_eq!(&bytes[..24], b"BHENTRY1\0\0\0\0\0\0\x01\x02\xff\xff\xff\xff\xff\xff\xff\xfe");
        assert_eq!((bytes[24], bytes[56], bytes[88], &bytes[152..]), (3, 4, 5, &b"payload"[..]));
        assert_eq!(Entry::decode(&bytes), Some(entry));
        assert_eq!(Entry::decode(&bytes[..FIXED - 1]), None);
        assert_eq!(Entry::decode(&[0; FIXED]), None);
    }

    #[test]
    fn the_hash_is_sha_256() {
        let of_abc = [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea];
        assert_eq!(hash(b"abc")[..8], of_abc);
    }
}
