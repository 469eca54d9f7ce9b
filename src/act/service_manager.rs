//! The service manager that started us, if one did (sd_notify(3)): what it is told, and what its fd
//! store keeps for the orchestrator that follows us. Never waits for it: what it does not take in
//! time waits here, in order and up to a bound.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use sd_notify::NotifyState;

use super::fd_names::FdName;
use crate::linux::manager::{ManagerSocket, Sent};

/// Messages that may wait. Each run takes five when it begins and five when it is over.
const WAITING_MOST: usize = 8192;

/// The connection to it. Silent where `NOTIFY_SOCKET` is not set.
#[derive(Debug, Default)]
pub struct ServiceManager {
    /// How often it is sent `WATCHDOG=1`: a third of `WATCHDOG_USEC`.
    pub watchdog_interval: Option<Duration>,
    socket: Option<ManagerSocket>,
    /// The last `STATUS=`: it is last_status changes only.
    last_status: String,
    waiting: VecDeque<Message>,
    /// Messages that there was no room for.
    lost: u64,
}

#[derive(Debug)]
struct Message {
    text: String,
    fd: Option<OwnedFd>,
}

impl ServiceManager {
    /// The one that our environment names, and why there is none where one is named.
    pub fn find() -> (Self, Option<crate::linux::Error>) {
        let watchdog_interval = sd_notify::watchdog_enabled().map(|patience| patience / 3);
        let Some(address) = std::env::var_os("NOTIFY_SOCKET") else {
            return (Self { watchdog_interval, ..Self::default() }, None);
        };
        match ManagerSocket::connect(&address) {
            Ok(socket) => {
                (Self { watchdog_interval, socket: Some(socket), ..Self::default() }, None)
            }
            Err(error) => (Self::default(), Some(error)),
        }
    }

    pub fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// How many messages it never got, because it read none for so long.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    pub fn ready(&mut self, status: String) {
        self.say(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.last_status = status;
    }

    pub fn status(&mut self, status: String) {
        if status != self.last_status {
            self.say(&[NotifyState::Status(&status)]);
            self.last_status = status;
        }
    }

    /// A reload begins; `ready` ends it (sd_notify(3), `RELOADING=1`).
    pub fn reloading(&mut self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.say(&[NotifyState::Reloading, now]);
        }
    }

    pub fn stopping(&mut self) {
        self.say(&[NotifyState::Stopping]);
    }

    /// Asks that the start, stop or reload that is under way may go on for so long from now, also
    /// beyond its own time limit.
    pub fn extend_timeout(&mut self, more: Duration) {
        let micros = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
        self.say(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }

    pub fn watchdog(&mut self) {
        // One that waits says as much as ten.
        if self.waiting.is_empty() {
            self.say(&[NotifyState::Watchdog]);
        }
    }

    /// Has the control socket's listener kept, so that operators wait and are not refused.
    pub fn store_control(&mut self, listener: &UnixListener) {
        self.store_fd(&FdName::Control.to_string(), listener.as_fd());
    }

    /// Has a duplicate of the descriptor kept over our end. Not watched (`FDPOLL=0`): what a pipe
    /// or a pidfd still has to tell when its other side is gone is what it is kept for.
    pub(super) fn store_fd(&mut self, name: &str, fd: BorrowedFd<'_>) {
        self.send(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), Some(fd));
    }

    /// Has all that is kept by this name dropped.
    pub(super) fn remove_fd(&mut self, name: &str) {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None);
    }

    fn say(&mut self, states: &[NotifyState<'_>]) {
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        self.send(&lines.join("\n"), None);
    }

    fn send(&mut self, text: &str, fd: Option<BorrowedFd<'_>>) {
        let Some(socket) = &self.socket else { return };
        // Nobody may be listening any more, and there is nobody else to tell that.
        let at_once = self.waiting.is_empty();
        if at_once && !matches!(socket.send(text.as_bytes(), fd), Ok(Sent::Full)) {
            return;
        }
        match fd.map(|fd| fd.try_clone_to_owned()).transpose() {
            Ok(fd) if self.waiting.len() < WAITING_MOST => {
                self.waiting.push_back(Message { text: text.to_owned(), fd });
            }
            Ok(_) | Err(_) => self.lost += 1,
        }
    }

    /// Waits until something that waits may be sent; for ever when nothing does.
    pub async fn writable(&self) {
        match &self.socket {
            Some(socket) if !self.waiting.is_empty() => {
                if socket.writable().await.is_err() {
                    std::future::pending().await
                }
            }
            Some(_) | None => std::future::pending().await,
        }
    }

    /// Waits until nothing waits any more.
    pub async fn flush(&mut self) {
        while !self.waiting.is_empty() {
            self.writable().await;
            self.send_waiting();
        }
    }

    /// Sends of what waits as much as there is room for.
    pub fn send_waiting(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some(message) = self.waiting.front() {
            let fd = message.fd.as_ref().map(AsFd::as_fd);
            if matches!(socket.send(message.text.as_bytes(), fd), Ok(Sent::Full)) {
                return;
            }
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::fds::{self, SocketAccess};
    use crate::linux::notify::NotifySocket;

    #[tokio::test]
    async fn what_is_not_taken_at_once_arrives_later_in_order_with_its_descriptors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manager");
        let manager = NotifySocket::bind(&path, SocketAccess::Owner).unwrap();
        let socket = ManagerSocket::connect(path.as_os_str()).unwrap();
        let mut service_manager =
            ServiceManager { socket: Some(socket), ..ServiceManager::default() };
        let (read_end, write_end) = fds::pipe().unwrap();
        let messages = 3000;
        for number in 0..messages {
            service_manager.store_fd(&format!("out.{number}"), read_end.as_fd());
        }
        assert!(!service_manager.waiting.is_empty() && service_manager.lost() == 0);
        drop(read_end);
        let mut heard = 0;
        while heard < messages {
            tokio::select! {
                () = service_manager.writable() => service_manager.send_waiting(),
                datagram = manager.receive() => {
                    let datagram = datagram.unwrap();
                    let text = String::from_utf8(datagram.bytes).unwrap();
                    assert_eq!(text, format!("FDSTORE=1\nFDNAME=out.{heard}\nFDPOLL=0"));
                    assert_eq!(datagram.fds.len(), 1);
                    heard += 1;
                }
            }
        }
        drop(write_end);
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_waits() {
        let mut service_manager = ServiceManager::default();
        service_manager.ready("ready".to_owned());
        service_manager.remove_fd("out");
        assert!(!service_manager.is_connected() && service_manager.waiting.is_empty());
    }
}
