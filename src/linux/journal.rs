//! journald's native socket, up to the datagram: one entry at a time, as sealed memory where it is
//! too large for a datagram. Never waits. Knows nothing of what an entry says.

use std::fmt::Display;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

use super::error::{Error, failed};
use super::fds;

/// Where journald listens (systemd-journald.service(8)).
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// A socket that is connected to the journal. Writable (`poll(2)`) when the journal has room.
#[derive(Debug)]
pub struct JournalSocket(OwnedFd);

/// Why an entry was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    #[error("the journal has no room now")]
    Full,
    /// journald does not listen there any more: connect again.
    #[error(transparent)]
    Away(Error),
    /// This entry cannot be sent; another may.
    #[error(transparent)]
    Unsendable(Error),
}

impl JournalSocket {
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let unconnected = |reason| failed("connect to", path.display())(reason);
        let address = SocketAddrUnix::new(path).map_err(unconnected)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
            .map_err(unconnected)?;
        rustix::net::connect(&socket, &address).map_err(unconnected)?;
        Ok(Self(socket))
    }

    pub fn send(&self, entry: &[u8]) -> Result<(), NotTaken> {
        match again(|| rustix::net::send(&self.0, entry, SendFlags::NOSIGNAL)) {
            Ok(_) => Ok(()),
            Err(Errno::MSGSIZE | Errno::NOBUFS) => self.send_sealed(entry),
            Err(errno) => Err(not_taken(errno, entry.len())),
        }
    }

    fn send_sealed(&self, entry: &[u8]) -> Result<(), NotTaken> {
        let memory = fds::memory_for_journald(entry).map_err(NotTaken::Unsendable)?;
        let rights = [memory.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let sent = again(|| {
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&rights));
            rustix::net::sendmsg(&self.0, &[IoSlice::new(&[])], &mut control, SendFlags::NOSIGNAL)
        });
        sent.map(drop).map_err(|errno| not_taken(errno, entry.len()))
    }
}

impl AsFd for JournalSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether `fd` is what `JOURNAL_STREAM` names with `named`, its device and inode
/// (systemd.exec(5)): then what is written to it comes to the journal.
pub fn is_journal_stream(fd: impl AsFd, named: &str) -> bool {
    let found = rustix::fs::fstat(fd);
    found.is_ok_and(|found| format!("{}:{}", found.st_dev, found.st_ino) == named)
}

fn again(mut send: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match send() {
            Err(Errno::INTR) => {}
            sent => return sent,
        }
    }
}

fn not_taken(errno: Errno, length: usize) -> NotTaken {
    let error = |object: &dyn Display| failed("send to", object)(errno);
    match errno {
        Errno::AGAIN => NotTaken::Full,
        Errno::MSGSIZE | Errno::NOBUFS | Errno::INVAL | Errno::TOOMANYREFS => {
            NotTaken::Unsendable(error(&format_args!("the journal an entry of {length} bytes")))
        }
        _ => NotTaken::Away(error(&"the journal")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{IoSliceMut, Read};
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixDatagram;

    use rustix::fs::{SealFlags, fcntl_get_seals};
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;

    fn journal() -> (tempfile::TempDir, UnixDatagram, JournalSocket) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let socket = JournalSocket::connect(&path).unwrap();
        (folder, journal, socket)
    }

    #[test]
    fn an_entry_is_a_datagram() {
        let (_folder, journal, socket) = journal();
        socket.send(b"MESSAGE=1\n").unwrap();
        socket.send(b"MESSAGE=2\n").unwrap();
        let mut space = [0; 100];
        for expected in [b"MESSAGE=1\n", b"MESSAGE=2\n"] {
            let length = journal.recv(&mut space).unwrap();
            assert_eq!(&space[..length], expected);
        }
    }

    #[test]
    fn an_entry_too_large_for_a_datagram_is_passed_as_sealed_memory() {
        let (_folder, journal, socket) = journal();
        rustix::net::sockopt::set_socket_send_buffer_size(&socket.0, 4096).unwrap();
        let entry = b"x".repeat(100_000);
        socket.send(&entry).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 10];
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&journal, into, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        assert_eq!(received.bytes, 0);
        let Some(RecvAncillaryMessage::ScmRights(mut fds)) = control.drain().next() else {
            panic!("no descriptor came");
        };
        let mut memory = File::from(fds.next().unwrap());
        // Exactly these: journald before v254 takes no memory with further seals.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        assert_eq!(fcntl_get_seals(&memory), Ok(seals));
        let mut content = Vec::new();
        memory.read_to_end(&mut content).unwrap();
        assert_eq!(content, entry);
    }

    #[test]
    fn the_stream_that_is_named_is_told_from_others() {
        let file = File::from(fds::sealed_memory("stream", b"").unwrap());
        let (device, inode) = (file.metadata().unwrap().dev(), file.metadata().unwrap().ino());
        assert!(is_journal_stream(&file, &format!("{device}:{inode}")));
        for other in [&format!("{device}:{}", inode + 1), "", "1:2:3", "x"] {
            assert!(!is_journal_stream(&file, other), "{other}");
        }
    }

    #[test]
    fn a_journal_that_does_not_read_is_full_and_one_that_went_is_away() {
        let (folder, journal, socket) = journal();
        let mut sent = 0;
        let full = loop {
            match socket.send(b"MESSAGE=x\n") {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(sent > 0 && matches!(full, NotTaken::Full), "{sent} {full}");
        drop(journal);
        let away = socket.send(b"MESSAGE=x\n").unwrap_err();
        assert!(matches!(away, NotTaken::Away(_)), "{away}");
        assert_eq!(away.to_string(), "send to the journal: Connection refused");
        let path = folder.path().join("none");
        let refused = JournalSocket::connect(&path).unwrap_err().to_string();
        assert_eq!(refused, format!("connect to {}: No such file or directory", path.display()));
    }
}
