//! Connections on request between two processes: one asks on a Unix stream, the other sends it the
//! end of a new connection there (`SCM_RIGHTS`). A request that is not answered waits in the stream
//! for whoever holds its other end by then. Knows nothing of what is said on the connections.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;

use super::error::{Error, failed};
use super::fd_readiness;
use super::fds;

/// One end. The other may be in another process.
#[derive(Debug)]
pub struct ConnectionBroker(OwnedFd);

/// Requests that are read at a time; each is one byte.
const REQUESTS_AT_ONCE: usize = 64;

/// What came from the end that requests connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerRequest {
    /// So many connections are requested.
    Connections(usize),
    HungUp,
}

impl ConnectionBroker {
    pub fn pair() -> Result<(Self, Self), Error> {
        let (one, other) = fds::socket_pair()?;
        Ok((Self(one.into()), Self(other.into())))
    }

    /// Asks for a connection and waits for it. One at a time. Connections that came for a
    /// request that was given up are closed.
    pub async fn connect(&self) -> Result<UnixStream, Error> {
        let unasked = |reason: Errno| failed("ask for", "a connection")(reason);
        while self.try_receive().map_err(unasked)?.is_some() {}
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::net::send(&self.0, b"?", flags).map_err(unasked)?;
        loop {
            if let Some(stream) = self.try_receive().map_err(unasked)? {
                return Ok(stream);
            }
            fd_readiness::ready(self.0.as_fd(), Interest::READABLE)
                .await
                .map_err(failed("wait for", "a connection"))?;
        }
    }

    /// A connection that has come. ENOTCONN: nobody holds the other end.
    fn try_receive(&self) -> Result<Option<UnixStream>, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut byte = [0];
        let mut into = [IoSliceMut::new(&mut byte)];
        let received = match rustix::net::recvmsg(&self.0, &mut into, &mut control, flags) {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(reason) => return Err(reason),
        };
        let mut found = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                found = rights.last();
            }
        }
        match found {
            Some(stream) => Ok(Some(UnixStream::from(stream))),
            None if received.bytes == 0 => Err(Errno::NOTCONN),
            None => Ok(None),
        }
    }

    /// Waits until the other end asks.
    pub async fn next_request(&self) -> Result<BrokerRequest, Error> {
        let unheard = |reason| failed("hear from", "one who asks for connections")(reason);
        let mut requests = [0; REQUESTS_AT_ONCE];
        loop {
            match rustix::net::recv(&self.0, requests.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(BrokerRequest::HungUp),
                Ok((_, count)) => return Ok(BrokerRequest::Connections(count)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(reason) => return Err(unheard(reason.into())),
            }
            fd_readiness::ready(self.0.as_fd(), Interest::READABLE).await.map_err(unheard)?;
        }
    }

    /// Sends a connection to the one who asked. Never waits: EAGAIN where that one has not fetched
    /// what was sent before.
    pub fn hand_out(&self, stream: UnixStream) -> Result<(), Error> {
        let fds = [stream.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = rustix::net::sendmsg(&self.0, &[IoSlice::new(b"!")], &mut control, flags);
        sent.map_err(failed("give", "a connection"))?;
        Ok(())
    }
}

impl AsFd for ConnectionBroker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for ConnectionBroker {
    /// `fd` must be an end of a pair that was made here, in this process or another.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<UnixStream> for ConnectionBroker {
    /// As above.
    fn from(stream: UnixStream) -> Self {
        Self(stream.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[tokio::test]
    async fn who_asks_gets_a_connection_from_whoever_holds_the_other_end() {
        let (asker, giver) = ConnectionBroker::pair().unwrap();
        // Whoever held the other end did not answer; another holds it now.
        let giver = ConnectionBroker::from(giver.0);
        let (got, mut ours) = tokio::join!(asker.connect(), async {
            assert_eq!(giver.next_request().await.unwrap(), BrokerRequest::Connections(1));
            let (ours, theirs) = fds::socket_pair().unwrap();
            giver.hand_out(theirs).unwrap();
            ours
        });
        got.unwrap().write_all(b"hello").unwrap();
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello");
    }

    #[tokio::test]
    async fn an_answer_to_a_request_that_was_given_up_is_not_taken_for_the_next() {
        let (asker, giver) = ConnectionBroker::pair().unwrap();
        let (mut stale, theirs) = fds::socket_pair().unwrap();
        giver.hand_out(theirs).unwrap();
        let (fresh, theirs) = fds::socket_pair().unwrap();
        let (got, ()) = tokio::join!(asker.connect(), async {
            assert_eq!(giver.next_request().await.unwrap(), BrokerRequest::Connections(1));
            giver.hand_out(theirs).unwrap();
        });
        got.unwrap().write_all(b"x").unwrap();
        assert_eq!(stale.read(&mut [0; 8]).unwrap(), 0);
        drop(fresh);
    }

    #[tokio::test]
    async fn the_end_of_either_side_is_told_to_the_other() {
        let (asker, giver) = ConnectionBroker::pair().unwrap();
        drop(giver);
        assert!(asker.connect().await.is_err());
        let (asker, giver) = ConnectionBroker::pair().unwrap();
        drop(asker);
        assert_eq!(giver.next_request().await.unwrap(), BrokerRequest::HungUp);
    }
}
