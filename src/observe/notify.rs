//! Hears what a service says on its notify socket, and believes only its own processes.

use std::sync::Arc;

use super::news::Reporter;
use super::notify_message::{self, FdStoreRequest};
use crate::decide::News;
use crate::linux::members::Members;
use crate::linux::notify::{Completeness, Datagram, NotifySocket};
use crate::plan::NotifyAccess;
use crate::units::Pid;

/// How many odd datagrams of one run are remarked upon; the rest are passed over in silence.
const REMARKS_MAX: u32 = 10;

/// Whose word counts.
#[derive(Debug)]
pub struct Trusted {
    pub access: NotifyAccess,
    pub main: Pid,
    pub members: Members,
}

/// Listens until it is dropped.
pub async fn listen(socket: Arc<NotifySocket>, trusted: Trusted, reporter: Reporter) {
    let mut remarks_left = REMARKS_MAX;
    loop {
        let odd = match socket.receive().await {
            Ok(datagram) => hear(datagram, &trusted, &reporter).await,
            Err(error) => return reporter.warn(error.to_string()).await,
        };
        for what in odd {
            if remarks_left > 0 {
                remarks_left -= 1;
                reporter.warn(what).await;
            }
        }
    }
}

/// Returns what is odd about the datagram. Its descriptors, a BARRIER's among them, are closed at
/// the end of this function: what was said before the barrier has been told by then.
async fn hear(datagram: Datagram, trusted: &Trusted, reporter: &Reporter) -> Vec<String> {
    if let Some(stranger) = untrusted(&datagram, trusted) {
        return vec![stranger];
    }
    if datagram.completeness == Completeness::Truncated {
        return vec!["its notify message is too long and was not read".to_owned()];
    }
    let message = notify_message::read(&datagram.bytes);
    for notice in message.notices {
        reporter.report(News::Notice(notice)).await;
    }
    match message.fd_store {
        Some(what @ FdStoreRequest::Keep { .. }) => reporter.store(what, datagram.fds).await,
        Some(what @ FdStoreRequest::Remove { .. }) => reporter.store(what, Vec::new()).await,
        None => {}
    }
    let odd = message.not_understood.into_iter();
    odd.map(|line| format!("its notify message is not understood: {line}")).collect()
}

/// Why the sender's word does not count, if it does not.
fn untrusted(datagram: &Datagram, trusted: &Trusted) -> Option<String> {
    let Some(sender) = datagram.sender else {
        return Some("a notify message without credentials was refused".to_owned());
    };
    let counts = match trusted.access {
        NotifyAccess::Main => sender.pid == trusted.main,
        NotifyAccess::All => {
            sender.pid == trusted.main || trusted.members.contains(sender.pid).unwrap_or(false)
        }
    };
    (!counts).then(|| format!("a notify message of process {} was refused", sender.pid))
}
