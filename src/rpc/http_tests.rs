//! Whatever is spoken on one port: HTTP/1.1 and HTTP/2, in plain text and within TLS.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower::service_fn;

use super::slow_client::SlowClientLimits;
use super::testing::NEVER;
use super::tls::Tls;
use super::{Options, Peers, Protocols, ServeError, Sockets, limits, serve_http};

const SHORT: Duration = Duration::from_millis(20);
const PATIENT: SlowClientLimits = SlowClientLimits { head: NEVER, idle: Some(NEVER) };
const ONE_THAT_IDLES: SlowClientLimits = SlowClientLimits { head: NEVER, idle: Some(SHORT) };

fn options(slow_client: SlowClientLimits, tls: Option<Tls>) -> Options {
    let protocols = Protocols::Http1AndHttp2;
    Options { peers: Peers::Anyone, protocols, tls, slow_client, drain: NEVER }
}

/// Says in which version it was asked; `/wait` only when its gate is opened.
struct Endpoint {
    address: SocketAddr,
    gate: Arc<Semaphore>,
    waiting: watch::Receiver<usize>,
    end: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Endpoint {
    fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (gate, (asked, waiting)) = (Arc::new(Semaphore::new(0)), watch::channel(0));
        let (pass, asked) = (Arc::clone(&gate), Arc::new(asked));
        let service = service_fn(move |request: Request<Incoming>| {
            let (pass, asked) = (Arc::clone(&pass), Arc::clone(&asked));
            async move {
                if request.uri().path() == "/wait" {
                    asked.send_modify(|count| *count += 1);
                    pass.acquire().await.unwrap().forget();
                }
                let said = format!("{:?}", request.version());
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(said)))
            }
        });
        let (end, told) = oneshot::channel::<()>();
        let told = async { told.await.unwrap_or(()) };
        let sockets = Sockets { ports: vec![listener], ..Sockets::default() };
        let task = tokio::spawn(serve_http(sockets, service, options, told));
        Self { address, gate, waiting, end, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn end(self) {
        self.end.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    let uri = format!("http://localhost{path}");
    Request::get(uri).header("host", "localhost").body(Empty::new()).unwrap()
}

type Asked = hyper::Result<(StatusCode, String)>;

async fn read(response: hyper::Result<Response<Incoming>>) -> Asked {
    let response = response?;
    let (status, body) = (response.status(), response.into_body().collect().await?.to_bytes());
    Ok((status, String::from_utf8(body.to_vec()).unwrap()))
}

/// What is answered to `request` in this version, over `stream`; the connection then ends.
async fn ask_over<T>(stream: T, version: Version, request: Request<Empty<Bytes>>) -> Asked
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = TokioIo::new(stream);
    if version == Version::HTTP_2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        let _connection = Connection(tokio::spawn(connection));
        return read(sender.send_request(request).await).await;
    }
    let (mut sender, connection) = http1::handshake(stream).await?;
    let _connection = Connection(tokio::spawn(connection));
    read(sender.send_request(request).await).await
}

/// Ends with what holds it.
struct Connection(JoinHandle<hyper::Result<()>>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn said(asked: Asked) -> String {
    let (status, said) = asked.unwrap();
    assert_eq!(status, StatusCode::OK);
    said
}

async fn is_closed<T: AsyncRead + Unpin>(mut stream: T) -> bool {
    let mut rest = Vec::new();
    // What came before the end does not matter, nor whether it was a reset.
    let _ended = stream.read_to_end(&mut rest).await;
    true
}

struct Certified {
    tls: Tls,
    trusted: RootCertStore,
}

fn certified() -> Certified {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from(made.cert.der().to_vec())).unwrap();
    Certified { tls: Tls::from_pem(chain.as_bytes(), key.as_bytes()).unwrap(), trusted }
}

impl Certified {
    async fn connect(&self, to: &Endpoint, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.trusted.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, to.connect().await).await.unwrap()
    }
}

#[tokio::test]
async fn one_port_speaks_http_1_and_http_2() {
    let endpoint = Endpoint::start(options(PATIENT, None));
    for (version, expected) in [(Version::HTTP_11, "HTTP/1.1"), (Version::HTTP_2, "HTTP/2.0")] {
        let asked = ask_over(endpoint.connect().await, version, request("/")).await;
        assert_eq!(said(asked), expected);
    }
    endpoint.end().await;
}

#[tokio::test]
async fn what_is_spoken_shows_also_where_it_comes_byte_by_byte() {
    let endpoint = Endpoint::start(options(PATIENT, None));
    for (sent, expected) in [
        (&b"PROPFIND / HTTP/1.1\r\nconnection: close\r\n\r\n"[..], &b"HTTP/1.1 200 OK\r\n"[..]),
        // The preface and an empty SETTINGS frame (RFC 9113 sections 3.4 and 6.5).
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", b"\0\0"),
    ] {
        let mut stream = endpoint.connect().await;
        stream.set_nodelay(true).unwrap();
        for byte in sent {
            stream.write_u8(*byte).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, expected);
    }
    endpoint.end().await;
}

#[tokio::test]
async fn within_tls_the_client_chooses_the_protocol() {
    let certified = certified();
    let endpoint = Endpoint::start(options(PATIENT, Some(certified.tls.clone())));
    let (h2, h1) = (&b"h2"[..], &b"http/1.1"[..]);
    for (offered, agreed, version) in [
        (&[h2, h1][..], Some(h2), Version::HTTP_2),
        (&[h2], Some(h2), Version::HTTP_2),
        (&[h1], Some(h1), Version::HTTP_11),
        (&[], None, Version::HTTP_11),
    ] {
        let stream = certified.connect(&endpoint, offered).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        assert_eq!(said(ask_over(stream, version, request("/")).await), format!("{version:?}"));
    }
    let plain = ask_over(endpoint.connect().await, Version::HTTP_11, request("/")).await;
    assert!(plain.is_err(), "{plain:?}");
    endpoint.end().await;
}

#[tokio::test]
async fn an_endpoint_of_http_2_alone_ends_what_speaks_http_1() {
    let certified = certified();
    let options = options(PATIENT, Some(certified.tls.clone()));
    let endpoint = Endpoint::start(Options { protocols: Protocols::Http2, ..options });
    let stream = certified.connect(&endpoint, &[b"http/1.1"]).await;
    assert!(ask_over(stream, Version::HTTP_11, request("/")).await.is_err());
    let stream = certified.connect(&endpoint, &[b"h2"]).await;
    assert_eq!(said(ask_over(stream, Version::HTTP_2, request("/")).await), "HTTP/2.0");
    endpoint.end().await;
}

#[test]
fn what_is_no_certificate_or_not_its_key_is_named() {
    let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (one, other) = (made(), made());
    let refused = |chain: &str, key: &str| {
        Tls::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err().to_string()
    };
    let (chain, key) = (one.cert.pem(), one.signing_key.serialize_pem());
    assert!(refused(&chain, "no key").contains("the private key cannot be read"));
    assert!(refused("-----BEGIN CERTIFICATE-----\n", &key).contains("the certificates cannot"));
    assert!(refused("", &key).contains("the certificate cannot be served"));
    let of_other = refused(&chain, &other.signing_key.serialize_pem());
    assert!(of_other.contains("the certificate cannot be served"), "{of_other}");
}

#[tokio::test]
async fn calls_in_flight_are_answered_during_the_drain() {
    let certified = certified();
    for tls in [None, Some(certified.tls.clone())] {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let mut endpoint = Endpoint::start(options(PATIENT, tls.clone()));
            let call = if tls.is_none() {
                tokio::spawn(ask_over(endpoint.connect().await, version, request("/wait")))
            } else {
                let offered: &[u8] = if version == Version::HTTP_2 { b"h2" } else { b"http/1.1" };
                let stream = certified.connect(&endpoint, &[offered]).await;
                tokio::spawn(ask_over(stream, version, request("/wait")))
            };
            endpoint.waiting.wait_for(|count| *count == 1).await.unwrap();
            endpoint.end.send(()).unwrap();
            // Nothing listens any more once the drain has begun.
            while TcpStream::connect(endpoint.address).await.is_ok() {}
            endpoint.gate.add_permits(1);
            assert_eq!(said(call.await.unwrap()), format!("{version:?}"));
            endpoint.task.await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_call_that_gets_no_answer_is_cut_at_the_end_of_the_drain() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut endpoint = Endpoint::start(Options { drain: SHORT, ..options(PATIENT, None) });
        let call = tokio::spawn(ask_over(endpoint.connect().await, version, request("/wait")));
        endpoint.waiting.wait_for(|count| *count == 1).await.unwrap();
        endpoint.end().await;
        assert!(call.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_loses_its_connection() {
    let certified = certified();
    let slow_client = SlowClientLimits { head: SHORT, idle: Some(NEVER) };
    for tls in [None, Some(certified.tls)] {
        let endpoint = Endpoint::start(options(slow_client, tls));
        assert!(is_closed(endpoint.connect().await).await);
        // Neither a whole preface nor a whole hello.
        for begun in [&b"PR"[..], b"\x16\x03\x01"] {
            let mut stream = endpoint.connect().await;
            stream.write_all(begun).await.unwrap();
            assert!(is_closed(stream).await);
        }
        endpoint.end().await;
    }
}

#[tokio::test]
async fn only_a_connection_without_calls_is_idle() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut endpoint = Endpoint::start(options(ONE_THAT_IDLES, None));
        let call = tokio::spawn(ask_over(endpoint.connect().await, version, request("/wait")));
        endpoint.waiting.wait_for(|count| *count == 1).await.unwrap();
        let idle = endpoint.connect().await;
        let (mut sender, connection) =
            http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(idle))
                .await
                .unwrap();
        let idle = tokio::spawn(connection);
        assert_eq!(said(read(sender.send_request(request("/")).await).await), "HTTP/2.0");
        // It began later, was idle for as long as is allowed, and is gone; the call is not.
        idle.await.unwrap().unwrap();
        endpoint.gate.add_permits(1);
        assert_eq!(said(call.await.unwrap()), format!("{version:?}"));
        endpoint.end().await;
    }
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused_and_the_next_call_is_served() {
    let endpoint = Endpoint::start(options(PATIENT, None));
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut large = request("/");
        let value = "x".repeat(limits::HEADERS as usize);
        large.headers_mut().insert("x-large", value.parse().unwrap());
        let (status, _) = ask_over(endpoint.connect().await, version, large).await.unwrap();
        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{version:?}");
        let next = ask_over(endpoint.connect().await, version, request("/")).await;
        assert_eq!(said(next), format!("{version:?}"));
    }
    endpoint.end().await;
}
