//! Listening sockets: bound once, kept over every restart, so that a client waits in the backlog
//! instead of being refused.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::error::ActError;
use crate::linux::fds::{self, SocketAccess};
use crate::linux::procfs;
use crate::plan::{SocketId, SocketPlace};

#[derive(Debug, Default)]
pub(super) struct Sockets {
    bound: BTreeMap<SocketId, Listener>,
}

#[derive(Debug)]
enum Listener {
    Unix { listener: UnixListener, path: PathBuf },
    Tcp(TcpListener),
}

impl Sockets {
    /// Binds it, unless it is bound.
    pub(super) fn bind(&mut self, id: &SocketId, place: &SocketPlace) -> Result<(), ActError> {
        if !self.bound.contains_key(id) {
            self.bound.insert(id.clone(), bind(place)?);
        }
        Ok(())
    }

    pub(super) fn get(&self, id: &SocketId) -> Option<BorrowedFd<'_>> {
        Some(match self.bound.get(id)? {
            Listener::Unix { listener, .. } => listener.as_fd(),
            Listener::Tcp(listener) => listener.as_fd(),
        })
    }

    pub(super) fn tcp_address(&self, id: &SocketId) -> Option<SocketAddr> {
        match self.bound.get(id)? {
            Listener::Unix { .. } => None,
            Listener::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    pub(super) fn remove_files(&mut self) {
        for listener in std::mem::take(&mut self.bound).into_values() {
            if let Listener::Unix { path, .. } = listener {
                let _gone_already = std::fs::remove_file(path);
            }
        }
    }
}

fn bind(place: &SocketPlace) -> Result<Listener, ActError> {
    match place {
        SocketPlace::Unix(path) => {
            let listener = fds::unix_listener(path, SocketAccess::Owner)
                .map_err(|reason| ActError::UnixSocket { path: path.clone(), reason })?;
            Ok(Listener::Unix { listener, path: path.clone() })
        }
        SocketPlace::Tcp(address) => {
            let listener = fds::tcp_listener(*address).map_err(|reason| ActError::Port {
                address: *address,
                reason: Box::new(reason),
                holder: procfs::port_holder(address.port()).ok().flatten(),
            })?;
            Ok(Listener::Tcp(listener))
        }
    }
}
