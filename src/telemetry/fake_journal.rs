//! A journal for tests: takes datagrams and sealed memory as journald does, and takes them apart by
//! the protocol's text, not by what the node writes.

use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

#[derive(Debug)]
pub struct FakeJournal(UnixDatagram);

/// One entry: names and values in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, Vec<u8>)>);

impl FakeJournal {
    pub fn at(path: &Path) -> Self {
        Self(UnixDatagram::bind(path).unwrap())
    }

    /// Waits for an entry; none: it was told to take no more, and all that came is read.
    pub fn next(&self) -> Option<Fields> {
        let mut bytes = vec![0; 512 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let length = match recvmsg(&self.0, into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received.bytes,
            Err(Errno::AGAIN) => return None,
            Err(errno) => panic!("{errno}"),
        };
        bytes.truncate(length);
        if let Some(RecvAncillaryMessage::ScmRights(mut fds)) = control.drain().next() {
            assert_eq!(length, 0);
            let _read = File::from(fds.next().unwrap()).read_to_end(&mut bytes).unwrap();
        } else if length == 0 {
            return None;
        }
        Some(Fields::parse(&bytes))
    }

    /// From now on senders are refused, and `next` ends when all that came is read.
    pub fn take_no_more(&self) {
        self.0.shutdown(Shutdown::Read).unwrap();
    }
}

impl Fields {
    /// Panics where journald would not take the entry, or not all of it.
    pub fn parse(entry: &[u8]) -> Self {
        let mut fields = Vec::new();
        let mut rest = entry;
        while !rest.is_empty() {
            let end = rest.iter().position(|b| *b == b'\n').expect("a field ends with LF");
            let line = &rest[..end];
            rest = &rest[end + 1..];
            let equals = line.iter().position(|b| *b == b'=');
            let (name, value) = if let Some(equals) = equals {
                (&line[..equals], &line[equals + 1..])
            } else {
                let (length, behind) = rest.split_first_chunk::<8>().expect("a length");
                let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
                let (value, behind) = behind.split_at(length);
                rest = behind.strip_prefix(b"\n").expect("LF after a value");
                (line, value)
            };
            let name = String::from_utf8(name.to_vec()).unwrap();
            assert!((1..=64).contains(&name.len()), "{name}");
            assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
            let valid = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(valid), "{name}");
            fields.push((name, value.to_vec()));
        }
        Self(fields)
    }

    /// The only field of that name, as text.
    pub fn get(&self, name: &str) -> &str {
        let mut found = self.0.iter().filter(|(other, _)| other == name);
        let (_, value) = found.next().unwrap_or_else(|| panic!("no {name} in {self:?}"));
        assert!(found.next().is_none(), "{name} comes twice in {self:?}");
        std::str::from_utf8(value).unwrap()
    }

    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}
