//! Names of blocks: CIDv1 with sha2-256 (github.com/multiformats/cid). A block is stored under its
//! digest alone, so that the cid of the same bytes with any codec finds it.

use cid::multibase;
use cid::multihash::Multihash;
use cid::{Cid, Version};
use sha2::{Digest as _, Sha256};

const RAW: u64 = 0x55;
const SHA2_256: u64 = 0x12;
/// No CIDv1 with sha2-256 is longer in any base that is not meant for machines.
const TEXT_MOST: usize = 128;
/// The first characters of every raw sha2-256 CIDv1 in base32.
const SHARED_HEAD: usize = 7;
const SHARD: usize = 2;

/// Why a text is not the name of a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("cid {0:?} is not a CID")]
    NotACid(String),
    #[error("a cid of {0} bytes is too long; at most {TEXT_MOST} are allowed")]
    TooLong(usize),
    #[error("cid {given:?} is a CIDv0; write it as CIDv1: {instead}")]
    Version0 { given: String, instead: String },
    #[error("cid {given:?} has the hash function 0x{code:x}; only sha2-256 (0x12) is kept here")]
    OtherHash { given: String, code: u64 },
}

/// The sha2-256 of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The cid with the raw codec, under which the block is listed and filed.
    pub fn raw_cid(&self) -> Cid {
        let hash = Multihash::wrap(SHA2_256, &self.0);
        Cid::new_v1(RAW, hash.expect("32 bytes fit a multihash of up to 64"))
    }

    /// The folder and the file of the block. The folder is named by the first byte of the digest as
    /// base32 shows it, so that folders and files sort like the texts of the cids.
    pub fn place(&self) -> (String, String) {
        let name = self.raw_cid().to_string();
        (shard_of(&name).to_owned(), name)
    }
}

/// The folder of the block whose raw cid has this text.
pub fn shard_of(raw_cid: &str) -> &str {
    raw_cid.get(SHARED_HEAD..SHARED_HEAD + SHARD).unwrap_or_default()
}

/// Every folder that `shard_of` can name, one for each first byte of a digest, sorted as text (`2`
/// before `a`, other than by base32 value).
pub fn shards() -> Vec<String> {
    let mut shards: Vec<String> = (0..=u8::MAX)
        .map(|first| {
            let mut digest = [0; 32];
            digest[0] = first;
            Digest(digest).place().0
        })
        .collect();
    shards.sort_unstable();
    shards
}

/// A cid as a caller wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub cid: Cid,
    pub digest: Digest,
}

impl std::str::FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > TEXT_MOST {
            return Err(AddressError::TooLong(text.len()));
        }
        let not_a_cid = || AddressError::NotACid(text.to_owned());
        // The parser accepts a path that ends in a cid too, and bytes behind the cid.
        let cid = Cid::try_from(text).ok().filter(|_| !text.contains('/'));
        let cid = cid.ok_or_else(not_a_cid)?;
        if cid.version() == Version::V0 {
            let instead = cid.into_v1().map_err(|_| not_a_cid())?.to_string();
            return Err(AddressError::Version0 { given: text.to_owned(), instead });
        }
        let (_, bytes) = multibase::decode(text).map_err(|_| not_a_cid())?;
        if bytes != cid.to_bytes() {
            return Err(not_a_cid());
        }
        if cid.hash().code() != SHA2_256 {
            let code = cid.hash().code();
            return Err(AddressError::OtherHash { given: text.to_owned(), code });
        }
        let digest = cid.hash().digest().try_into().map_err(|_| not_a_cid())?;
        Ok(Self { cid, digest: Digest(digest) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq";

    #[test]
    fn a_known_block_has_its_known_cid() {
        // `hello` with sha2-256 2cf24dba... as every IPFS tool writes it.
        assert_eq!(Digest::of(b"hello").raw_cid().to_string(), HELLO);
        let address: Address = HELLO.parse().unwrap();
        assert_eq!(address.digest, Digest::of(b"hello"));
    }

    #[test]
    fn every_codec_and_base_of_the_same_bytes_is_the_same_block() {
        let hash = *Digest::of(b"hello").raw_cid().hash();
        let other = Cid::new_v1(0x71, hash).to_string_of_base(multibase::Base::Base58Btc).unwrap();
        assert_eq!(other.parse::<Address>().unwrap().digest, Digest::of(b"hello"));
    }

    #[test]
    fn what_cannot_name_a_block_says_why() {
        let refused = |text: &str| text.parse::<Address>().unwrap_err();
        let v0 = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n";
        let said = refused(v0).to_string();
        assert!(said.contains("CIDv1: bafybei"), "{said}");
        assert!(matches!(refused(""), AddressError::NotACid(_)));
        assert!(matches!(refused("hello"), AddressError::NotACid(_)));
        assert!(matches!(refused(&format!("/ipfs/{HELLO}")), AddressError::NotACid(_)));
        assert!(matches!(refused(&"b".repeat(129)), AddressError::TooLong(129)));
        let sha512 = Cid::new_v1(RAW, Multihash::wrap(0x13, &[0; 64]).unwrap()).to_string();
        assert!(matches!(refused(&sha512), AddressError::OtherHash { code: 0x13, .. }));
        let short = Cid::new_v1(RAW, Multihash::wrap(SHA2_256, &[0; 20]).unwrap()).to_string();
        assert!(matches!(refused(&short), AddressError::NotACid(_)));
        let mut trailing = Digest::of(b"hello").raw_cid().to_bytes();
        trailing.push(0);
        let trailing = multibase::encode(multibase::Base::Base32Lower, trailing);
        assert!(matches!(refused(&trailing), AddressError::NotACid(_)));
    }

    #[test]
    fn folders_are_few_and_keep_the_order_of_the_cids() {
        let shards = shards();
        assert_eq!(shards.len(), 256);
        assert!(shards.is_sorted());
        let mut cids: Vec<String> =
            (0..500_u32).map(|n| Digest::of(&n.to_le_bytes()).place().1).collect();
        let mut by_place = cids.clone();
        cids.sort();
        by_place.sort_by_key(|cid| (shard_of(cid).to_owned(), cid.clone()));
        assert!(cids.iter().all(|cid| shards.contains(&shard_of(cid).to_owned())));
        assert_eq!(cids, by_place);
    }
}
