//! An HTTP/1.1 connection that ends when its client is slower than allowed. Knows requests only as
//! bytes that come after an answer, and answers as bytes that go out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::in_flight::InFlight;
use super::limits;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct SlowClientLimits {
    /// From the connection to the end of the first head, and from the first byte of every further
    /// head to its end, however many bytes come in between.
    pub head: Duration,
    /// From an answer to the next request, and for taking a part of an answer; none: as long as it
    /// likes.
    pub idle: Option<Duration>,
}

impl SlowClientLimits {
    /// For clients from anywhere.
    pub const USUAL: Self =
        Self { head: Duration::from_secs(10), idle: Some(Duration::from_secs(60)) };
    /// For other processes of this host.
    pub const LOCAL: Self = Self { head: limits::FIRST_BYTE, idle: None };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    /// The end of a head that has begun, or has to begin at once.
    Head,
    /// The next request after an answer.
    Request,
    /// The client's taking what it is sent.
    Taking,
}

/// Reads at the end of a connection, 16 KiB each, that are thrown away.
const DISCARDED: usize = 64;

/// `stream`, failing with `TimedOut` when its time is over.
#[derive(Debug)]
pub struct TimeLimited<S> {
    stream: S,
    slow_client: SlowClientLimits,
    in_flight: InFlight,
    awaits: Awaits,
    over: Pin<Box<Sleep>>,
}

impl<S> TimeLimited<S> {
    /// `in_flight`: the calls of this connection, during which no request is waited for.
    pub fn new(stream: S, slow_client: SlowClientLimits, in_flight: InFlight) -> Self {
        let over = Box::pin(sleep(slow_client.head));
        Self { stream, slow_client, in_flight, awaits: Awaits::Head, over }
    }

    fn now_awaits(&mut self, awaits: Awaits) {
        self.awaits = awaits;
        if let Some(time) = self.time() {
            self.over.as_mut().reset(Instant::now() + time);
        }
    }

    fn time(&self) -> Option<Duration> {
        match self.awaits {
            Awaits::Head => Some(self.slow_client.head),
            Awaits::Request | Awaits::Taking => self.slow_client.idle,
        }
    }

    /// What came of a write.
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.now_awaits(Awaits::Request);
        } else if self.awaits != Awaits::Taking {
            self.now_awaits(Awaits::Taking);
        }
        self.or_over(context, written)
    }

    /// `result`, unless that is still to come and its time is over.
    fn or_over<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() || self.time().is_none() {
            return result;
        }
        self.over.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> TimeLimited<S> {
    /// Closing a socket with unread bytes resets the connection, which can cost the client the
    /// answer (RFC 9112 section 9.6); so what has come already is taken out first.
    fn discard_what_came(&mut self, context: &mut Context<'_>) {
        let mut scratch = [0; 16 << 10];
        for _ in 0..DISCARDED {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
            if !matches!(read, Poll::Ready(Ok(()))) || buffer.filled().is_empty() {
                return;
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimeLimited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.awaits == Awaits::Request && buffer.filled().len() > before {
            self.now_awaits(Awaits::Head);
        }
        if self.in_flight.any() { read } else { self.or_over(context, read) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimeLimited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.or_over(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.discard_what_came(context);
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const NEVER: Duration = Duration::from_secs(3600);

    fn patient(head: Duration, idle: Duration) -> (TimeLimited<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(4);
        let slow_client = SlowClientLimits { head, idle: Some(idle) };
        (TimeLimited::new(ours, slow_client, InFlight::none_yet()), theirs)
    }

    fn is_over<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
    }

    #[tokio::test]
    async fn a_first_head_that_does_not_come_ends_the_connection() {
        let (mut ours, _theirs) = patient(SHORT, NEVER);
        assert!(is_over(ours.read_u8().await));
    }

    #[tokio::test]
    async fn after_an_answer_the_idle_time_holds() {
        let (mut ours, mut theirs) = patient(NEVER, SHORT);
        theirs.write_u8(1).await.unwrap();
        ours.read_u8().await.unwrap();
        ours.write_u8(2).await.unwrap();
        assert!(is_over(ours.read_u8().await));
    }

    #[tokio::test]
    async fn a_begun_head_may_not_take_the_idle_time() {
        let (mut ours, mut theirs) = patient(SHORT, NEVER);
        ours.write_u8(2).await.unwrap();
        theirs.write_u8(1).await.unwrap();
        ours.read_u8().await.unwrap();
        assert!(is_over(ours.read_u8().await));
    }

    #[tokio::test]
    async fn an_answer_that_is_not_taken_ends_the_connection() {
        let (mut ours, _theirs) = patient(NEVER, SHORT);
        assert!(is_over(ours.write_all(b"more than fits").await));
    }

    #[tokio::test]
    async fn while_a_call_is_in_flight_no_request_is_waited_for() {
        let (mut ours, mut theirs) = patient(SHORT, SHORT);
        let call = ours.in_flight.begin();
        tokio::select! {
            biased;
            read = ours.read_u8() => panic!("{read:?}"),
            () = tokio::time::sleep(SHORT * 20) => {}
        }
        theirs.write_u8(1).await.unwrap();
        assert_eq!(ours.read_u8().await.unwrap(), 1);
        drop(call);
        assert!(is_over(ours.read_u8().await));
    }

    #[tokio::test]
    async fn what_came_is_taken_out_before_the_end() {
        let (mut ours, mut theirs) = patient(NEVER, NEVER);
        theirs.write_all(b"four").await.unwrap();
        ours.shutdown().await.unwrap();
        tokio::select! {
            biased;
            written = theirs.write_all(b"room") => written.unwrap(),
            () = async {} => panic!("there is no room for more"),
        }
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
    }
}
