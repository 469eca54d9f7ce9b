//! The frame around a checkpoint: it tells the form, and shows whether the content is damaged.
//!
//! 32 bytes, then the content; what is behind it is passed over. `BHSTATE` and a zero, the form
//! (4 bytes), the length of the content (4), check (16): the first bytes of SHA-256 over form,
//! length and content. Integers are little-endian.

use sha2::{Digest, Sha256};

const MAGIC: [u8; 8] = *b"BHSTATE\0";
const CHECK: usize = 16;

/// Bytes before the content.
pub const HEADER: usize = MAGIC.len() + 2 * size_of::<u32>() + CHECK;

/// Why there is no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("it is empty")]
    Empty,
    #[error("it does not begin as what a node saves")]
    Magic,
    #[error("it ends before its end")]
    Incomplete,
    #[error("its bytes do not have their checksum")]
    Check,
}

/// The content in its frame.
pub fn wrap(form: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let check = check(form, length, content);
    let header: [&[u8]; 4] = [&MAGIC, &form.to_le_bytes(), &length.to_le_bytes(), &check];
    [&header.concat(), content].concat()
}

/// The form and the content of what was wrapped.
pub fn unwrap(bytes: &[u8]) -> Result<(u32, &[u8]), FrameError> {
    if bytes.is_empty() {
        return Err(FrameError::Empty);
    }
    let (magic, rest) = bytes.split_first_chunk().ok_or(FrameError::Incomplete)?;
    if *magic != MAGIC {
        return Err(FrameError::Magic);
    }
    let (form, rest) = number(rest)?;
    let (length, rest) = number(rest)?;
    let (found, rest) = rest.split_first_chunk().ok_or(FrameError::Incomplete)?;
    let content = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let content = content.ok_or(FrameError::Incomplete)?;
    if *found == check(form, length, content) {
        Ok((form, content))
    } else {
        Err(FrameError::Check)
    }
}

fn number(bytes: &[u8]) -> Result<(u32, &[u8]), FrameError> {
    let (number, rest) = bytes.split_first_chunk().ok_or(FrameError::Incomplete)?;
    Ok((u32::from_le_bytes(*number), rest))
}

fn check(form: u32, length: u32, content: &[u8]) -> [u8; CHECK] {
    let hash = Sha256::new()
        .chain_update(form.to_le_bytes())
        .chain_update(length.to_le_bytes())
        .chain_update(content)
        .finalize();
    *hash.first_chunk().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrapped_is_unwrapped_whatever_is_behind_it() {
        for content in [b"".as_slice(), b"content"] {
            let mut bytes = wrap(7, content);
            assert_eq!(bytes.len(), HEADER + content.len());
            bytes.extend_from_slice(b"left of a longer one");
            assert_eq!(unwrap(&bytes), Ok((7, content)));
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_seen() {
        let whole = wrap(1, b"content");
        assert_eq!(unwrap(&[]), Err(FrameError::Empty));
        for length in 1..whole.len() {
            assert_eq!(unwrap(&whole[..length]), Err(FrameError::Incomplete), "{length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut spoilt = whole.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            assert!(unwrap(&spoilt).is_err(), "{bit}");
        }
    }
}
