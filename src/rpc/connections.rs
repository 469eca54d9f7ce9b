//! The life of a listening process: accept, serve each connection in a task of its own, stop
//! accepting when told, give what is in flight a limited time. Knows no protocol.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::limits;

/// Tells every connection that the drain has begun.
#[derive(Debug, Clone)]
pub struct Ending(watch::Receiver<bool>);

impl Ending {
    /// The switch and what it tells. Dropping the sender tells it too.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (tell, told) = watch::channel(false);
        (tell, Self(told))
    }

    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the end has begun; at once if it has.
    pub async fn begun(&mut self) {
        // An error means that the sender is gone, and with it the reason to go on.
        let _ = self.0.wait_for(|ending| *ending).await;
    }
}

/// How much is served at once, and for how long after the end was told.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once; further ones wait in the listener's backlog.
    pub connections: usize,
    /// What in-flight work may take after the end was told.
    pub drain: Duration,
}

/// Serves `first`, then what `accept` yields, until `told` returns; then drains.
///
/// `accept` must be cancel safe; when it yields nothing any more (`None`), this returns when the
/// last connection is gone. Every connection task has ended when this returns.
pub async fn serve_each<C, F>(
    bounds: Bounds,
    first: Vec<C>,
    mut accept: impl AsyncFnMut() -> Option<C>,
    mut serve: impl FnMut(C, Ending) -> F,
    told: impl Future<Output = ()>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (tell, ending) = Ending::new();
    let mut tasks = JoinSet::new();
    for connection in first {
        tasks.spawn(serve(connection, ending.clone()));
    }
    tokio::pin!(told);
    let mut listening = true;
    while listening || !tasks.is_empty() {
        let room = listening && tasks.len() < bounds.connections;
        tokio::select! {
            biased;
            () = &mut told => break,
            Some(_) = tasks.join_next() => {}
            next = async { if room { accept().await } else { pending().await } } => match next {
                Some(connection) => { tasks.spawn(serve(connection, ending.clone())); }
                None => listening = false,
            },
        }
    }
    // The listener closes here, so that nothing new is taken while the rest is finished.
    drop(accept);
    tell.send_replace(true);
    let finished = async { while tasks.join_next().await.is_some() {} };
    if timeout(bounds.drain, finished).await.is_err() {
        tracing::warn!(connections = tasks.len(), "the drain time is over: closing connections");
        tasks.shutdown().await;
    }
}

/// The next connection of any of the listeners; errors of `accept` are told and outlived. `turn` is
/// kept by the caller from call to call, so that none of them is always asked first.
pub async fn accept_one_of<L, C>(
    listeners: &[L],
    turn: &mut usize,
    accept: impl Fn(&L, &mut Context<'_>) -> Poll<io::Result<C>>,
) -> C {
    loop {
        *turn = turn.wrapping_add(1);
        let accepted = poll_fn(|context| {
            let in_turn = |n: usize| &listeners[n.wrapping_add(*turn) % listeners.len()];
            for listener in (0..listeners.len()).map(in_turn) {
                if let Poll::Ready(accepted) = accept(listener, context) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        });
        match accepted.await {
            Ok(connection) => return connection,
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Waits a little after a failed `accept`, unless only the one connection was at fault.
async fn pause_after(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tracing::warn!(%error, "cannot accept a connection");
        tokio::time::sleep(limits::ACCEPT_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(work)
    }

    #[test]
    fn it_ends_by_itself_when_nothing_can_come_any_more() {
        let (sent, mut seen) = tokio::sync::mpsc::channel(2);
        let serve = |n: u8, _| {
            let sent = sent.clone();
            async move { sent.send(n).await.unwrap() }
        };
        let bounds = Bounds { connections: 9, drain: Duration::from_secs(60) };
        alone(serve_each(bounds, vec![1], async || None, serve, pending()));
        assert_eq!(seen.try_recv(), Ok(1));
    }

    #[test]
    fn a_connection_that_never_ends_is_cut_when_the_drain_time_is_over() {
        let (held, mut cut) = tokio::sync::oneshot::channel::<()>();
        let mut held = Some(held);
        let serve = |(), _| {
            let held = held.take();
            async move {
                let _held = held;
                pending::<()>().await;
            }
        };
        let bounds = Bounds { connections: 9, drain: Duration::from_millis(1) };
        alone(serve_each(bounds, vec![()], async || pending().await, serve, async {}));
        let closed = tokio::sync::oneshot::error::TryRecvError::Closed;
        assert_eq!(cut.try_recv(), Err(closed));
    }

    #[test]
    fn no_more_connections_than_allowed_are_taken() {
        let accepted = std::cell::Cell::new(0);
        let accept = async || {
            accepted.set(accepted.get() + 1);
            Some(())
        };
        let serve = |(), mut ending: Ending| async move { ending.begun().await };
        let told = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        let bounds = Bounds { connections: 3, drain: Duration::from_secs(60) };
        alone(serve_each(bounds, Vec::new(), accept, serve, told));
        assert_eq!(accepted.get(), 3);
    }
}
