//! The notify socket of the service manager that started us, up to the datagram (`sd_notify(3)`).
//! Knows nothing of what a message says.

use std::ffi::OsStr;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use tokio::io::Interest;

use super::error::{Error, failed};
use super::fd_readiness;

/// A socket that is connected to the service manager's notify socket.
#[derive(Debug)]
pub struct ManagerSocket(OwnedFd);

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Delivered,
    /// The manager has not read enough of what was sent before; `writable` tells when it has.
    Full,
}

impl ManagerSocket {
    /// `address` is what `NOTIFY_SOCKET` holds: an absolute path, or a name with `@` before it.
    pub fn connect(address: &OsStr) -> Result<Self, Error> {
        let unconnected = |reason| failed("connect to", address.display())(reason);
        let to = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
            path => SocketAddrUnix::new(path),
        };
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        let socket = socket.map_err(unconnected)?;
        let to = to.map_err(unconnected)?;
        rustix::net::connect(&socket, &to).map_err(unconnected)?;
        Ok(Self(socket))
    }

    /// One message with at most one descriptor. Never waits.
    pub fn send(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<Sent, Error> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = fd.as_slice();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(_) => Ok(Sent::Delivered),
            Err(Errno::AGAIN | Errno::NOBUFS) => Ok(Sent::Full),
            Err(reason) => Err(failed("send to", "the service manager")(reason)),
        }
    }

    /// Waits until there may be room for a message. One waiter at a time.
    pub async fn writable(&self) -> Result<(), Error> {
        let waited = fd_readiness::ready(self.0.as_fd(), Interest::WRITABLE).await;
        waited.map_err(failed("wait for", "the service manager"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::linux::fds::{self, SocketAccess};
    use crate::linux::notify::NotifySocket;

    #[tokio::test]
    async fn a_message_arrives_with_its_descriptor_and_a_full_queue_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manager");
        let manager = NotifySocket::bind(&path, SocketAccess::Owner).unwrap();
        let to = ManagerSocket::connect(path.as_os_str()).unwrap();
        let (read_end, _write_end) = fds::pipe().unwrap();
        assert_eq!(to.send(b"FDSTORE=1", Some(read_end.as_fd())).unwrap(), Sent::Delivered);
        let mut sent = 1;
        while to.send(b"STATUS=x", None).unwrap() == Sent::Delivered {
            sent += 1;
        }
        let first = manager.receive().await.unwrap();
        assert_eq!((first.bytes.as_slice(), first.fds.len()), (b"FDSTORE=1".as_slice(), 1));
        for _ in 1..sent {
            manager.receive().await.unwrap();
        }
        to.writable().await.unwrap();
        assert_eq!(to.send(b"STATUS=y", None).unwrap(), Sent::Delivered);
    }

    #[test]
    fn nobody_there_is_an_error_that_names_the_address() {
        let refused = ManagerSocket::connect(OsStr::new("/no/such/socket")).unwrap_err();
        assert!(refused.to_string().contains("/no/such/socket"), "{refused}");
    }
}
