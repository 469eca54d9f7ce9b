//! The keys that this node holds, one file each. Nothing is cached, so that several instances may
//! share the folder. Knows nothing of gRPC.
//! A key file `keys/<multibase of the did>` (mode 0600): the 8 bytes `BHKEY 1\n`, the 32-byte seed
//! of RFC 8032, the creation time in microseconds since 1970 (i64, little endian), the label.
//! The name is checked against the seed whenever the file is read.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::service::did::Did;
use crate::service::durable_file::{self, Doing, FileError};

const MAGIC: &[u8; 8] = b"BHKEY 1\n";
const SEED: usize = 32;
const HEAD: usize = MAGIC.len() + SEED + 8;
/// The most bytes of a label.
pub const LABEL_MOST: usize = 256;

/// Why a key cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the label is {0} bytes long; at most {LABEL_MOST} are allowed")]
    LabelLength(usize),
    #[error("the label has the control character {0:?}")]
    LabelCharacter(char),
    #[error("this node does not hold the key of {0}")]
    NotHeld(String),
    #[error("the key file {path:?} is damaged: {why}")]
    Damaged { path: PathBuf, why: &'static str },
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    #[error(transparent)]
    File(#[from] FileError),
}

/// The public part of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub did: Did,
    pub label: String,
    pub created_unix_us: i64,
}

/// The folder of keys.
#[derive(Debug)]
pub struct Keys {
    folder: PathBuf,
    /// The prefix of files that are being written by this instance.
    beside: String,
    written: AtomicU64,
}

impl Keys {
    /// The keys below `data_dir`, for the instance with that number (which no other live process
    /// has). Removes what that instance left half written.
    pub fn open(data_dir: &Path, instance: u16) -> Result<Self, FileError> {
        let (folder, beside) = (data_dir.join("keys"), format!(".new-{instance}-"));
        durable_file::ensure(&folder)?;
        durable_file::flush(data_dir)?;
        durable_file::remove_leftovers(&folder, &beside)?;
        Ok(Self { folder, beside, written: AtomicU64::new(0) })
    }

    /// Makes a key; it is durable when this returns.
    pub fn create(&self, label: &str, now_unix_us: i64) -> Result<Held, KeyError> {
        if label.len() > LABEL_MOST {
            return Err(KeyError::LabelLength(label.len()));
        }
        if let Some(wrong) = label.chars().find(|c| c.is_control()) {
            return Err(KeyError::LabelCharacter(wrong));
        }
        let mut seed = Zeroizing::new([0; SEED]);
        getrandom::fill(&mut seed[..]).map_err(KeyError::Random)?;
        let did = Did::of(SigningKey::from_bytes(&seed).verifying_key());
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD + label.len()));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&seed[..]);
        bytes.extend_from_slice(&now_unix_us.to_le_bytes());
        bytes.extend_from_slice(label.as_bytes());
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let beside = self.folder.join(format!("{}{number}", self.beside));
        durable_file::write_durably(&self.folder.join(did.multibase()), &beside, &bytes)?;
        Ok(Held { did, label: label.to_owned(), created_unix_us: now_unix_us })
    }

    /// The signing key. It is erased from memory when it is dropped.
    pub fn signing_key(&self, did: &Did) -> Result<SigningKey, KeyError> {
        self.read(did.multibase()).map(|(_, key)| key)
    }

    /// At most `most` held keys after the one with the did `after`, in the order of their dids, and
    /// whether there are more.
    pub fn list(&self, after: Option<&Did>, most: usize) -> Result<(Vec<Held>, bool), KeyError> {
        let names = durable_file::sorted_names(&self.folder)?;
        let after = after.map_or("", Did::multibase);
        let mut rest = names.iter().filter(|name| !name.starts_with('.') && name.as_str() > after);
        let page = rest.by_ref().take(most).map(|name| self.read(name).map(|(held, _)| held));
        let page: Vec<Held> = page.collect::<Result<_, _>>()?;
        Ok((page, rest.next().is_some()))
    }

    fn read(&self, multibase: &str) -> Result<(Held, SigningKey), KeyError> {
        let path = self.folder.join(multibase);
        let bytes = match read_at_most(&path, HEAD + LABEL_MOST) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeyError::NotHeld(format!("did:key:{multibase}")));
            }
            Err(error) => return Err(error).doing("read", &path).map_err(KeyError::File),
        };
        decode(&bytes, multibase).map_err(|why| KeyError::Damaged { path, why })
    }
}

fn read_at_most(path: &Path, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // One byte more, so that a file that is too long is noticed; never grown, so that no copy of
    // the key is left in memory.
    let mut bytes = Zeroizing::new(vec![0; most + 1]);
    let mut file = File::open(path)?;
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..])? {
            0 => break,
            more => length += more,
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn decode(bytes: &[u8], multibase: &str) -> Result<(Held, SigningKey), &'static str> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as a key file")?;
    let (seed, rest) = rest.split_first_chunk::<SEED>().ok_or("it is too short")?;
    let (created, label) = rest.split_first_chunk().ok_or("it is too short")?;
    if label.len() > LABEL_MOST {
        return Err("it is too long");
    }
    let label = std::str::from_utf8(label).map_err(|_| "its label is not UTF-8")?.to_owned();
    let key = SigningKey::from_bytes(seed);
    let did = Did::of(key.verifying_key());
    if did.multibase() != multibase {
        return Err("its key is not the one in its name");
    }
    Ok((Held { did, label, created_unix_us: i64::from_le_bytes(*created) }, key))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use ed25519_dalek::Signer;

    use super::*;

    #[test]
    fn a_key_is_there_after_reopening_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let made = Keys::open(dir.path(), 0).unwrap().create("mail", 42).unwrap();
        let path = dir.path().join("keys").join(made.did.multibase());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let keys = Keys::open(dir.path(), 0).unwrap();
        assert_eq!(keys.list(None, 10).unwrap(), (vec![made.clone()], false));
        let signature = keys.signing_key(&made.did).unwrap().sign(b"x");
        assert!(made.did.has_signed(b"x", &signature.to_bytes()));
    }

    #[test]
    fn pages_follow_the_order_of_the_dids_and_miss_none() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path(), 0).unwrap();
        let mut made: Vec<_> =
            (0..5).map(|n| keys.create("", n).unwrap().did.to_string()).collect();
        made.sort();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let (page, more) = keys.list(after.as_ref(), 2).unwrap();
            seen.extend(page.iter().map(|held| held.did.to_string()));
            after = page.last().map(|held| held.did.clone());
            if !more {
                break;
            }
        }
        assert_eq!(seen, made);
    }

    #[test]
    fn two_instances_share_the_folder_and_only_clean_up_after_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) =
            (Keys::open(dir.path(), 0).unwrap(), Keys::open(dir.path(), 1).unwrap());
        let made = first.create("", 1).unwrap();
        assert!(second.signing_key(&made.did).is_ok());
        fs::write(dir.path().join("keys/.new-1-0"), b"torn").unwrap();
        Keys::open(dir.path(), 0).unwrap();
        assert!(dir.path().join("keys/.new-1-0").exists());
        Keys::open(dir.path(), 1).unwrap();
        assert!(!dir.path().join("keys/.new-1-0").exists());
    }

    /// Reliability 49. Time and label are not the key: a bit of those may be lost unnoticed.
    #[test]
    fn no_flipped_bit_and_no_cut_gives_another_key() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path(), 0).unwrap();
        let did = keys.create("label", 1).unwrap().did;
        let good = keys.signing_key(&did).unwrap();
        let path = dir.path().join("keys").join(did.multibase());
        let bytes = fs::read(&path).unwrap();
        let key = ..MAGIC.len() + SEED;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).unwrap();
            match keys.signing_key(&did) {
                Ok(found) => assert!(found == good && !key.contains(&(bit / 8)), "bit {bit}"),
                Err(error) => assert!(matches!(error, KeyError::Damaged { .. }), "bit {bit}"),
            }
        }
        for length in 0..HEAD {
            fs::write(&path, &bytes[..length]).unwrap();
            let error = keys.signing_key(&did).unwrap_err();
            assert!(matches!(error, KeyError::Damaged { .. }), "{length} bytes: {error}");
        }
    }

    #[test]
    fn a_damaged_key_file_is_never_used() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path(), 0).unwrap();
        let did = keys.create("label", 1).unwrap().did;
        let path = dir.path().join("keys").join(did.multibase());
        let good = fs::read(&path).unwrap();
        for (offset, said) in [(0, "begin"), (8, "name"), (HEAD, "UTF-8")] {
            let mut bad = good.clone();
            bad[offset] ^= 0x80;
            fs::write(&path, bad).unwrap();
            let error = keys.signing_key(&did).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        fs::write(&path, &good[..20]).unwrap();
        assert!(keys.list(None, 1).unwrap_err().to_string().contains("too short"));
        fs::write(&path, [&good[..], &[b'x'; 300]].concat()).unwrap();
        assert!(keys.list(None, 1).unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn a_label_that_cannot_be_kept_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path(), 0).unwrap();
        let long = keys.create(&"x".repeat(257), 1).unwrap_err();
        assert!(matches!(long, KeyError::LabelLength(257)));
        assert!(matches!(keys.create("a\nb", 1), Err(KeyError::LabelCharacter('\n'))));
        assert_eq!(keys.list(None, 1).unwrap().0, []);
    }
}
