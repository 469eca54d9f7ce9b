//! Which calls of a connection are not answered to their last byte yet, and whether any came.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::timeout;

use super::limits;

/// The calls of one connection; clones are one.
#[derive(Debug, Clone)]
pub struct InFlight(Arc<watch::Sender<Calls>>);

#[derive(Debug, Default)]
struct Calls {
    begun: u64,
    open: usize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Call(InFlight);

impl InFlight {
    pub fn none_yet() -> Self {
        Self(Arc::new(watch::Sender::new(Calls::default())))
    }

    pub fn begin(&self) -> Call {
        self.0.send_modify(|calls| {
            calls.begun += 1;
            calls.open += 1;
        });
        Call(self.clone())
    }

    pub fn any(&self) -> bool {
        self.0.borrow().open > 0
    }

    async fn first(&self) {
        // The sender is ours: the error of a lost one cannot come.
        let _ = self.0.subscribe().wait_for(|calls| calls.begun > 0).await;
    }

    /// Returns when the first call came, at once if it has, and at the latest after a
    /// [`limits::FAREWELL`].
    pub async fn first_or_farewell(&self) {
        let _came_or_not = timeout(limits::FAREWELL, self.first()).await;
    }

    /// Returns when there was no call for so long.
    pub async fn none_for(&self, time: Duration) {
        let mut calls = self.0.subscribe();
        loop {
            let begun = match calls.wait_for(|calls| calls.open == 0).await {
                Ok(calls) => calls.begun,
                Err(_) => return,
            };
            let next = calls.wait_for(|calls| calls.begun != begun);
            if timeout(time, next).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.0.send_modify(|calls| calls.open -= 1);
    }
}

/// An answer's body: its call lasts until it was read to the end, or given up.
#[derive(Debug)]
pub struct Answer<B> {
    body: B,
    _call: Call,
}

impl<B> Answer<B> {
    pub fn of(call: Call, body: B) -> Self {
        Self { body, _call: call }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_only_while_no_call_is_open() {
        const SHORT: Duration = Duration::from_millis(1);
        let in_flight = InFlight::none_yet();
        let (first, second) = (in_flight.begin(), in_flight.begin());
        drop(first);
        tokio::select! {
            biased;
            () = in_flight.none_for(SHORT) => panic!("one is open"),
            () = tokio::time::sleep(SHORT * 20) => {}
        }
        drop(second);
        in_flight.none_for(SHORT).await;
    }
}
