//! Listens on the notify socket of a run, and accepts messages of its own processes only.

use std::sync::Arc;

use tokio::time::sleep;

use super::news::Reporter;
use super::notify_message::{self, FdStoreRequest};
use super::retry::{Failed, Report, Retry};
use crate::decide::News;
use crate::linux::members::Members;
use crate::linux::notify::{Completeness, Datagram, NotifySocket};
use crate::plan::NotifyAccess;
use crate::units::Pid;

/// How many invalid datagrams of a run are reported; further ones are ignored.
const REMARKS_MAX: u32 = 10;

/// The processes whose messages are accepted.
#[derive(Debug)]
pub struct Trusted {
    pub access: NotifyAccess,
    pub main: Pid,
    pub members: Members,
}

/// Listens until it is dropped.
pub async fn listen(socket: Arc<NotifySocket>, trusted: Trusted, reporter: Reporter) {
    let mut remarks_left = REMARKS_MAX;
    let mut waits = Retry::default();
    loop {
        let odd = match socket.receive().await {
            Ok(datagram) => {
                waits.succeeded();
                hear(datagram, &trusted, &reporter).await
            }
            // Its messages wait in the socket meanwhile.
            Err(error) => {
                let Failed { pause, report } = waits.failed();
                sleep(pause).await;
                if report == Report::Warn { vec![error.to_string()] } else { Vec::new() }
            }
        };
        for what in odd {
            if remarks_left > 0 {
                remarks_left -= 1;
                reporter.warn(what).await;
            }
        }
    }
}

/// Handles a datagram; returns what is wrong with it. Its descriptors, those of a BARRIER among
/// them, are closed at the end of this function: everything before the barrier was reported by
/// then.
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

/// Why the sender's messages are not accepted; `None`: they are.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;
    use crate::decide::Event;
    use crate::linux::fds::SocketAccess;
    use crate::linux::members::Marks;
    use crate::linux::notify;
    use crate::linux::process::own_pid;
    use crate::observe::clock::Clock;
    use crate::observe::news::{Observation, QUEUE};
    use crate::units::RunId;

    /// A socket can be waited for once at a time: a second wait fails at once.
    #[tokio::test]
    async fn a_wait_that_fails_is_tried_again_and_what_was_said_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = Arc::new(NotifySocket::bind(&path, SocketAccess::Owner).unwrap());
        let held = Arc::clone(&socket);
        let other_wait = tokio::spawn(async move { held.receive().await });
        tokio::task::yield_now().await;
        let (to_node, mut observations) = mpsc::channel(QUEUE);
        let all = ["NO=process".to_owned()].into();
        let members = Members::Marked(Marks { all, ..Marks::default() });
        let trusted = Trusted { access: NotifyAccess::Main, main: own_pid(), members };
        let reporter = Reporter::new(RunId(1), to_node);
        let clock = Clock::start();
        let listening = tokio::spawn(listen(Arc::clone(&socket), trusted, reporter));
        for _ in 0..3 {
            let warned = observations.recv().await.unwrap();
            assert!(matches!(warned, Observation::Warning { .. }), "{warned:?}");
        }
        // A sleep is never too short, and the first two were of 100 and 200 ms.
        assert!(clock.now().0 >= Duration::from_millis(300), "{:?}", clock.now());
        other_wait.abort();
        let _aborted = other_wait.await;
        notify::testing::send(&path, b"READY=1", &[]).unwrap();
        let heard = observations.recv().await.unwrap();
        assert!(
            matches!(heard, Observation::Event(Event::News { news: News::Notice(_), .. })),
            "{heard:?}"
        );
        listening.abort();
    }
}
