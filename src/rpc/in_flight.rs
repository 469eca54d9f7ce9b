//! Which calls of a connection are not answered to their last byte yet, and whether any came.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::sync::Notify;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Response;

use super::serve::limits;

/// Each call holds a clone; the connection holds one more.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<Notify>);

impl InFlight {
    /// Counts the call until its answer is read to the end, or given up.
    pub async fn until_answered(
        self,
        call: impl Future<Output = Result<Response<Body>, Infallible>>,
    ) -> Result<Response<Body>, Infallible> {
        self.0.notify_one();
        Ok(call.await?.map(|answer| Body::new(Answer { answer, _call: self })))
    }

    /// Returns when the first call came; at once if it has. To be asked once.
    pub async fn first(&self) {
        self.0.notified().await;
    }

    /// Returns when there is no call at the end of a whole [`limits::FAREWELL`]. To be asked by the
    /// connection, whose service holds a clone too.
    pub async fn none_for_a_while(&self) {
        const OWN: usize = 2;
        loop {
            tokio::time::sleep(limits::FAREWELL).await;
            if Arc::strong_count(&self.0) <= OWN {
                return;
            }
        }
    }
}

struct Answer {
    answer: Body,
    _call: InFlight,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.answer).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}
