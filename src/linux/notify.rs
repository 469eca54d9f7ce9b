//! The socket on which services speak the `sd_notify(3)` protocol, up to the datagram: who sent it,
//! its bytes, its descriptors. Knows nothing of what the bytes mean.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, ReturnFlags, SocketType, sockopt,
};
use tokio::io::Interest;

use super::error::{Error, failed};
use super::fd_readiness;
use super::fds::{self, SocketAccess};
use crate::units::Pid;

/// The longest message, in bytes; systemd takes as many.
pub const PAYLOAD_MAX: usize = 4096;
/// The most descriptors that are taken from one message.
pub const FDS_MAX: usize = 64;

/// A datagram socket whose messages come with their senders' credentials.
#[derive(Debug)]
pub struct NotifySocket(OwnedFd);

/// One message.
#[derive(Debug)]
pub struct Datagram {
    pub sender: Option<Credentials>,
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
    pub completeness: Completeness,
}

/// Who sent a message, as the kernel vouches for (`unix(7)`, SCM_CREDENTIALS). The process may be
/// gone by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    pub pid: Pid,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    Whole,
    /// Bytes beyond `PAYLOAD_MAX` or descriptors beyond `FDS_MAX` were dropped; the descriptors are
    /// closed.
    Truncated,
}

impl NotifySocket {
    /// A new socket at `path`; a stale one there is replaced.
    pub fn bind(path: &Path, access: SocketAccess) -> Result<Self, Error> {
        let socket = fds::bound_unix_socket(path, SocketType::DGRAM, access)?;
        Self::from_bound(socket).map_err(failed("ask for credentials on", path.display()))
    }

    /// A socket that was bound before, such as by the previous orchestrator.
    pub fn adopt(socket: OwnedFd) -> Result<Self, Error> {
        Self::from_bound(socket).map_err(failed("ask for credentials on", "an adopted socket"))
    }

    fn from_bound(socket: OwnedFd) -> Result<Self, Errno> {
        sockopt::set_socket_passcred(&socket, true)?;
        Ok(Self(socket))
    }

    /// The next message. Dropping the future loses none. One waiter at a time.
    pub async fn receive(&self) -> Result<Datagram, Error> {
        loop {
            match self.try_receive() {
                Ok(datagram) => return Ok(datagram),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(reason) => return Err(failed("receive from", "a notify socket")(reason)),
            }
            let waited = fd_readiness::ready(self.0.as_fd(), Interest::READABLE).await;
            waited.map_err(failed("wait for", "a notify socket"))?;
        }
    }

    fn try_receive(&self) -> Result<Datagram, Errno> {
        let mut payload = [0; PAYLOAD_MAX];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut into = [IoSliceMut::new(&mut payload)];
        let received = rustix::net::recvmsg(&self.0, &mut into, &mut control, flags)?;
        let (mut sender, mut fds) = (None, Vec::new());
        for message in control.drain() {
            match message {
                RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                RecvAncillaryMessage::ScmCredentials(found) => sender = Some(found.into()),
                // The enum is not ours and may grow.
                _ => {}
            }
        }
        let completeness = completeness(&received, fds.len());
        fds.truncate(FDS_MAX);
        let bytes = payload.get(..received.bytes).unwrap_or(&payload).to_vec();
        Ok(Datagram { sender, bytes, fds, completeness })
    }
}

fn completeness(received: &RecvMsg, fds: usize) -> Completeness {
    let cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    if cut || fds > FDS_MAX { Completeness::Truncated } else { Completeness::Whole }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<rustix::net::UCred> for Credentials {
    fn from(found: rustix::net::UCred) -> Self {
        let pid = Pid(found.pid.as_raw_nonzero().get());
        Self { pid, uid: found.uid.as_raw(), gid: found.gid.as_raw() }
    }
}

/// For tests: the other side.
#[cfg(test)]
pub mod testing {
    use rustix::net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
        SocketFlags,
    };
    use std::io::IoSlice;

    use super::*;

    /// Sends one message, as a service does. Never waits: a full socket is an error (EAGAIN).
    pub fn send(path: &Path, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let unsent = |reason| failed("send to", path.display())(reason);
        let address = SocketAddrUnix::new(path).map_err(unsent)?;
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let (socket, flags) = (socket.map_err(unsent)?, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        let from = [IoSlice::new(bytes)];
        rustix::net::sendmsg_addr(&socket, &address, &from, &mut control, flags).map_err(unsent)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::testing::send;
    use super::*;
    use crate::linux::process::{own_pid, own_uid};

    fn bound() -> (tempfile::TempDir, std::path::PathBuf, NotifySocket) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = NotifySocket::bind(&path, SocketAccess::Owner).unwrap();
        (folder, path, socket)
    }

    #[tokio::test]
    async fn a_message_comes_with_its_sender_and_its_descriptors() {
        let (_folder, path, socket) = bound();
        let (read_end, write_end) = fds::pipe().unwrap();
        send(&path, b"READY=1", &[write_end.as_fd(), read_end.as_fd()]).unwrap();
        let datagram = socket.receive().await.unwrap();
        let sender = datagram.sender.unwrap();
        assert_eq!((sender.pid, sender.uid), (own_pid(), own_uid()));
        assert_eq!(datagram.bytes, b"READY=1");
        assert_eq!(datagram.completeness, Completeness::Whole);
        let [received, _] = <[OwnedFd; 2]>::try_from(datagram.fds).unwrap();
        assert_eq!(fcntl_getfd(&received), Ok(FdFlags::CLOEXEC));
        File::from(received).write_all(b"x").unwrap();
        assert_eq!(rustix::io::read(&read_end, &mut [0; 8]), Ok(1));
    }

    #[tokio::test]
    async fn messages_are_awaited_and_come_in_order() {
        let (_folder, path, socket) = bound();
        let first = tokio::join!(socket.receive(), async {
            send(&path, b"1", &[]).unwrap();
            send(&path, b"2", &[]).unwrap();
        });
        assert_eq!(first.0.unwrap().bytes, b"1");
        assert_eq!(socket.receive().await.unwrap().bytes, b"2");
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_cut_and_says_so() {
        let (_folder, path, socket) = bound();
        send(&path, &[b'x'; PAYLOAD_MAX], &[]).unwrap();
        send(&path, &[b'x'; 65536], &[]).unwrap();
        send(&path, b"", &[]).unwrap();
        let exact = socket.receive().await.unwrap();
        assert_eq!((exact.bytes.len(), exact.completeness), (PAYLOAD_MAX, Completeness::Whole));
        let cut = socket.receive().await.unwrap();
        assert_eq!((cut.bytes.len(), cut.completeness), (PAYLOAD_MAX, Completeness::Truncated));
        assert_eq!(socket.receive().await.unwrap().bytes, b"");
    }

    #[tokio::test]
    async fn descriptors_beyond_the_bound_are_closed() {
        let (_folder, path, socket) = bound();
        let (read_end, write_end) = fds::pipe().unwrap();
        send(&path, b"FDSTORE=1", &[write_end.as_fd(); 200]).unwrap();
        drop(write_end);
        let datagram = socket.receive().await.unwrap();
        assert_eq!(datagram.fds.len(), FDS_MAX);
        assert_eq!(datagram.completeness, Completeness::Truncated);
        drop(datagram);
        // End of file: no write end is left open anywhere.
        assert_eq!(rustix::io::read(&read_end, &mut [0; 8]), Ok(0));
    }

    #[tokio::test]
    async fn an_adopted_socket_goes_on_where_the_first_stopped() {
        let (_folder, path, socket) = bound();
        send(&path, b"kept", &[]).unwrap();
        let adopted = NotifySocket::adopt(socket.0).unwrap();
        assert_eq!(adopted.receive().await.unwrap().bytes, b"kept");
    }
}
