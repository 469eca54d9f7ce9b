//! One connection: what it speaks, its calls, its end. Knows no service.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, pending};
use std::io;

use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tower::{Service, ServiceExt};

use super::connections::Ending;
use super::in_flight::{Answer, InFlight};
use super::limits;
use super::options::{Options, Protocols};
use super::slow_client::{SlowClientLimits, TimeLimited};
use super::sockets::Stream;
use super::tls;

/// What answers every request: a `tower` service that cannot fail. Each call gets a clone.
pub trait HttpService: Clone + Send + 'static {
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;

    fn answer(
        self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    type Body = B;

    async fn answer(self, request: Request<Incoming>) -> Response<B> {
        let Ok(response) = self.oneshot(request).await;
        response
    }
}

/// A connection that has begun to speak.
enum Begun {
    Plain(Stream, Protocol),
    Tls(Box<TlsStream<TcpStream>>, Protocol),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

pub(super) async fn serve<S: HttpService>(
    stream: Stream,
    service: S,
    options: Options,
    mut ending: Ending,
) {
    // hyper ends no connection in its handshake, so it gets none that has not begun to speak.
    let begun = tokio::select! {
        begun = begin(stream, &options) => begun,
        () = a_while_after(&mut ending) => return,
        () = tokio::time::sleep(options.slow_client.head) => return,
    };
    let slow_client = options.slow_client;
    let ended = match begun {
        Ok(Some(Begun::Plain(Stream::Unix(stream), protocol))) => {
            speak(stream, protocol, service, slow_client, ending).await
        }
        Ok(Some(Begun::Plain(Stream::Tcp(stream), protocol))) => {
            speak(stream, protocol, service, slow_client, ending).await
        }
        Ok(Some(Begun::Tls(stream, protocol))) => {
            speak(*stream, protocol, service, slow_client, ending).await
        }
        Ok(None) => return,
        Err(error) => return tracing::debug!(%error, "a connection did not begin"),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// None: the client speaks a protocol that is not served here.
async fn begin(stream: Stream, options: &Options) -> io::Result<Option<Begun>> {
    let begun = match (stream, &options.tls) {
        (Stream::Tcp(stream), Some(tls)) => {
            stream.set_nodelay(true)?;
            let stream = tls.accept(stream).await?;
            let protocol = if tls::is_http_2(&stream) { Protocol::Http2 } else { Protocol::Http1 };
            if options.protocols == Protocols::Http2 && protocol == Protocol::Http1 {
                return Ok(None);
            }
            Begun::Tls(Box::new(stream), protocol)
        }
        (stream, _) => {
            let protocol = spoken(&stream, options.protocols).await?;
            Begun::Plain(stream, protocol)
        }
    };
    Ok(Some(begun))
}

/// By the first bytes: no method but that of HTTP/2's preface begins so (RFC 9113 section 3.4).
async fn spoken(stream: &Stream, protocols: Protocols) -> io::Result<Protocol> {
    match protocols {
        Protocols::Http2 => stream.first_bytes::<1>().await.map(|_| Protocol::Http2),
        Protocols::Http1AndHttp2 => {
            let first = stream.first_bytes().await?;
            Ok(if first == *b"PRI" { Protocol::Http2 } else { Protocol::Http1 })
        }
    }
}

async fn a_while_after(ending: &mut Ending) {
    ending.begun().await;
    tokio::time::sleep(limits::FAREWELL).await;
}

async fn speak<T, S>(
    stream: T,
    protocol: Protocol,
    service: S,
    slow_client: SlowClientLimits,
    ending: Ending,
) -> hyper::Result<()>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: HttpService,
{
    match protocol {
        Protocol::Http1 => speak_http1(stream, service, slow_client, ending).await,
        Protocol::Http2 => speak_http2(stream, service, slow_client, ending).await,
    }
}

async fn speak_http1<T, S>(
    stream: T,
    service: S,
    slow_client: SlowClientLimits,
    mut ending: Ending,
) -> hyper::Result<()>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: HttpService,
{
    let in_flight = InFlight::none_yet();
    let serving = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(limits::HEADERS as usize)
        .max_buf_size(limits::HEADERS as usize)
        .serve_connection(
            TokioIo::new(TimeLimited::new(stream, slow_client, in_flight.clone())),
            service_fn(counted(service, &in_flight)),
        );
    tokio::pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return ended,
        () = ending.begun() => {}
    }
    tokio::select! {
        ended = serving.as_mut() => return ended,
        () = in_flight.first_or_farewell() => {}
    }
    serving.as_mut().graceful_shutdown();
    serving.await
}

async fn speak_http2<T, S>(
    stream: T,
    service: S,
    slow_client: SlowClientLimits,
    mut ending: Ending,
) -> hyper::Result<()>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: HttpService,
{
    let in_flight = InFlight::none_yet();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(limits::HEADERS)
        // A client that reads no more answers no ping either.
        .keep_alive_interval(slow_client.idle)
        .keep_alive_timeout(slow_client.head);
    let answer = service_fn(counted(service, &in_flight));
    let serving = builder.serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(serving);
    let idle = async {
        match slow_client.idle {
            Some(time) => in_flight.none_for(time).await,
            None => pending().await,
        }
    };
    tokio::select! {
        ended = serving.as_mut() => return ended,
        () = idle => {}
        () = ending.begun() => {
            tokio::select! {
                ended = serving.as_mut() => return ended,
                () = in_flight.first_or_farewell() => {}
            }
        }
    }
    serving.as_mut().graceful_shutdown();
    tokio::select! {
        ended = serving.as_mut() => ended,
        () = in_flight.none_for(limits::FAREWELL) => Ok(()),
    }
}

/// Calls are in flight until the last byte of their answer was taken.
fn counted<S: HttpService>(
    service: S,
    in_flight: &InFlight,
) -> impl Fn(Request<Incoming>) -> Counted<S> + use<S> {
    let in_flight = in_flight.clone();
    move |request| {
        let call = in_flight.begin();
        let answering = service.clone().answer(request);
        Box::pin(async move { Ok(answering.await.map(|body| Answer::of(call, body))) })
    }
}

type Counted<S> = std::pin::Pin<
    Box<dyn Future<Output = Result<Response<Answer<<S as HttpService>::Body>>, Infallible>> + Send>,
>;
