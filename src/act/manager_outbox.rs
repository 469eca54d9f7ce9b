//! Messages on their way to the service manager (sd_notify(3)). Sending never blocks: messages that
//! the socket does not take wait here, in order and up to a bound. Knows nothing of why they are
//! sent.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::linux::Error;
use crate::linux::manager::{ManagerSocket, Sent};

/// How many messages may wait before descriptors are lost: twice as many as are stored.
const STORES_MOST: usize = 8192;
/// How many messages may wait before states such as `STATUS=` are lost too. Removals are never
/// lost: there is at most one for each descriptor that was accepted.
const MESSAGES_MOST: usize = 4 * STORES_MOST;
/// The pause after an attempt to send failed or sent nothing.
const RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Outbox {
    socket: Option<ManagerSocket>,
    waiting: VecDeque<Message>,
    retry_at: Option<Instant>,
    lost: u64,
}

#[derive(Debug)]
enum Message {
    Words(String),
    /// With `FDPOLL=0`: a pipe or a pidfd whose other side is gone is stored for what can still be
    /// read from it, so the service manager must not drop it then.
    Store(String, OwnedFd),
    Remove(String),
}

/// Whether a message was sent or waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    Yes,
    /// It is lost, and counted in `lost`.
    No,
}

impl Outbox {
    pub(super) fn to(socket: ManagerSocket) -> Self {
        Self { socket: Some(socket), ..Self::default() }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many messages were lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn count_as_lost(&mut self) {
        self.lost += 1;
    }

    pub(super) fn say(&mut self, words: String) {
        if self.waiting.len() < MESSAGES_MOST {
            let _counted_if_lost = self.send(Message::Words(words));
        } else {
            self.lost += 1;
        }
    }

    /// Stores a duplicate of the descriptor.
    pub(super) fn store(&mut self, name: String, fd: BorrowedFd<'_>) -> Accepted {
        if !self.is_connected() {
            return Accepted::No;
        }
        match fd.try_clone_to_owned() {
            Ok(fd) if self.waiting.len() < STORES_MOST => self.send(Message::Store(name, fd)),
            Ok(_) | Err(_) => {
                self.lost += 1;
                Accepted::No
            }
        }
    }

    /// Removes all stored descriptors of this name.
    pub(super) fn remove(&mut self, name: String) {
        let _counted_if_lost = self.send(Message::Remove(name));
    }

    fn send(&mut self, message: Message) -> Accepted {
        let Some(socket) = &self.socket else { return Accepted::No };
        if self.waiting.is_empty() {
            match deliver(socket, &message) {
                Ok(Sent::Delivered) => return Accepted::Yes,
                Ok(Sent::Full) => {}
                Err(_) => {
                    self.lost += 1;
                    return Accepted::No;
                }
            }
        }
        self.waiting.push_back(message);
        Accepted::Yes
    }

    /// Waits until a waiting message may be sent; pending for ever when none waits.
    pub(super) async fn writable(&self) {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.waiting.is_empty()) else {
            return std::future::pending().await;
        };
        if let Some(at) = self.retry_at {
            sleep_until(at).await;
        }
        if socket.writable().await.is_err() {
            sleep(RETRY).await;
        }
    }

    /// Sends waiting messages, in order, until the socket is full.
    pub(super) fn send_waiting(&mut self) {
        let Some(socket) = &self.socket else { return };
        let mut stuck = true;
        while let Some(message) = self.waiting.front() {
            match deliver(socket, message) {
                Ok(Sent::Full) => break,
                Ok(Sent::Delivered) => drop(self.waiting.pop_front()),
                Err(_) => {
                    self.waiting.pop_front();
                    self.lost += 1;
                }
            }
            stuck = false;
        }
        self.retry_at = stuck.then(|| Instant::now() + RETRY);
    }

    /// The names of descriptors that still wait. After an exec handover the new program has to
    /// store them.
    pub(super) fn unsent(&self) -> impl Iterator<Item = &str> {
        self.waiting.iter().filter_map(|message| match message {
            Message::Store(name, _) => Some(name.as_str()),
            Message::Words(_) | Message::Remove(_) => None,
        })
    }
}

fn deliver(socket: &ManagerSocket, message: &Message) -> Result<Sent, Error> {
    match message {
        Message::Words(words) => socket.send(words.as_bytes(), None),
        Message::Store(name, fd) => {
            let text = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
            socket.send(text.as_bytes(), Some(fd.as_fd()))
        }
        Message::Remove(name) => {
            socket.send(format!("FDSTOREREMOVE=1\nFDNAME={name}").as_bytes(), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::fds::{self, SocketAccess};
    use crate::linux::notify::NotifySocket;

    /// A service manager that reads when it is told to.
    struct SlowReader {
        socket: NotifySocket,
        _folder: tempfile::TempDir,
    }

    impl SlowReader {
        fn new() -> (Self, Outbox) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("manager");
            let socket = NotifySocket::bind(&path, SocketAccess::Owner).unwrap();
            let outbox = Outbox::to(ManagerSocket::connect(path.as_os_str()).unwrap());
            (Self { socket, _folder: folder }, outbox)
        }

        /// The next message, and how many descriptors came with it.
        async fn hear(&self, outbox: &mut Outbox) -> (String, Vec<OwnedFd>) {
            loop {
                tokio::select! {
                    biased;
                    datagram = self.socket.receive() => {
                        let datagram = datagram.unwrap();
                        return (String::from_utf8(datagram.bytes).unwrap(), datagram.fds);
                    }
                    () = outbox.writable() => outbox.send_waiting(),
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_taken_at_once_arrives_later_in_order_with_its_descriptors() {
        let (manager, mut outbox) = SlowReader::new();
        let (read_end, write_end) = fds::pipe().unwrap();
        let messages = 3000;
        for number in 0..messages {
            let accepted = outbox.store(format!("out.{number}"), read_end.as_fd());
            assert_eq!(accepted, Accepted::Yes);
        }
        assert!(!outbox.is_empty() && outbox.lost() == 0);
        drop(read_end);
        for number in 0..messages {
            let (text, fds) = manager.hear(&mut outbox).await;
            assert_eq!(text, format!("FDSTORE=1\nFDNAME=out.{number}\nFDPOLL=0"));
            assert_eq!(fds.len(), 1);
        }
        drop(write_end);
    }

    #[tokio::test]
    async fn beyond_the_bound_stores_and_words_are_lost_and_counted_and_removals_are_not() {
        let (manager, mut outbox) = SlowReader::new();
        let (read_end, _write_end) = fds::pipe().unwrap();
        let mut accepted = 0;
        while outbox.store(format!("out.{accepted}"), read_end.as_fd()) == Accepted::Yes {
            accepted += 1;
        }
        assert_eq!(outbox.lost(), 1);
        assert_eq!(outbox.waiting.len(), STORES_MOST);
        for number in 0..accepted {
            outbox.remove(format!("out.{number}"));
        }
        outbox.say("READY=1".to_owned());
        assert_eq!(outbox.lost(), 1);
        let mut removed = 0;
        loop {
            let (text, _) = manager.hear(&mut outbox).await;
            if text == "READY=1" {
                break;
            }
            removed += usize::from(text.starts_with("FDSTOREREMOVE=1"));
        }
        assert_eq!(removed, accepted);
    }

    #[test]
    fn without_a_manager_nothing_waits_and_nothing_is_lost() {
        let mut outbox = Outbox::default();
        outbox.say("READY=1".to_owned());
        outbox.remove("out".to_owned());
        assert!(outbox.is_empty() && outbox.lost() == 0);
    }

    #[test]
    fn what_a_manager_that_is_gone_does_not_get_is_counted() {
        let (manager, mut outbox) = SlowReader::new();
        drop(manager);
        outbox.say("READY=1".to_owned());
        assert_eq!(outbox.lost(), 1);
    }
}
