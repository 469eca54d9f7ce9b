//! The gateway as its clients meet it: over TCP, with an orchestrator behind it.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::testing::{Orchestrator, ready, snapshot};
use super::*;
use crate::rpc::pb::node::NodeStatus;
use crate::rpc::testing::channel_over;

const NEVER: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(20);
/// Whatever comes once is kept, and nothing runs out of time.
const PATIENT: Times = Times {
    slow_client: SlowClientLimits { head: NEVER, idle: Some(NEVER) },
    freshness: Freshness { answer: NEVER, good: NEVER, failed: NEVER },
    drain: NEVER,
};

/// Every request asks the orchestrator anew.
const ASKING: Times =
    Times { freshness: Freshness { good: Duration::ZERO, ..PATIENT.freshness }, ..PATIENT };

fn asks(freshness: Freshness) -> Times {
    Times { freshness, ..PATIENT }
}

struct Running {
    address: SocketAddr,
    end: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    fn start(times: Times, status: UnixStream) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (end, told) = oneshot::channel::<()>();
        let told = async { told.await.unwrap_or(()) };
        let status = channel_over(status).unwrap();
        let task = tokio::spawn(serve_with(times, vec![listener], status, told));
        Self { address, end, task }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(&format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n\r\n")).await;
        client.rest().await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).await
    }

    /// A client whose request `orchestrator` was asked about and does not answer.
    async fn in_flight(&self, orchestrator: &mut Orchestrator) -> Client {
        assert_eq!(self.get("/health").await.code, 200);
        orchestrator.shut();
        let asked = orchestrator.asked();
        let mut client = self.connect().await;
        client.send("GET /health HTTP/1.1\r\n\r\n").await;
        orchestrator.until_asked(asked + 1).await;
        client
    }

    async fn end(self) {
        self.end.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// One answer on a connection that stays open.
    async fn answer(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let mut answer = Answer::parse(head);
        let mut body = vec![0; answer.header("content-length").unwrap().parse().unwrap()];
        self.0.read_exact(&mut body).await.unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// The answer that ends with the connection.
    async fn rest(mut self) -> Answer {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).await.unwrap();
        Answer::parse(bytes)
    }

    async fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]).await, Ok(0) | Err(_))
    }
}

#[derive(Debug)]
struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(bytes: Vec<u8>) -> Self {
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect(&text);
        let code = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        Self { code, head: head.to_owned(), body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn a_node() -> NodeStatus {
    snapshot(vec![ready("storage-0")], &[]).into()
}

#[tokio::test]
async fn health_is_json_of_the_node() {
    let (_orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(PATIENT, status);
    let answer = running.get("/health?verbose").await;
    assert_eq!(answer.code, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.body, health::known(&snapshot(vec![ready("storage-0")], &[])));
    running.end().await;
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let (_orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(PATIENT, status);
    let (get, head) = (running.get("/health").await, running.ask("HEAD", "/health").await);
    assert_eq!((head.code, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()));
    running.end().await;
}

#[tokio::test]
async fn metrics_are_openmetrics_and_count_what_was_answered() {
    let (_orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(PATIENT, status);
    running.get("/no/such/page").await;
    let answer = running.get("/metrics").await;
    assert_eq!(answer.code, 200);
    assert_eq!(answer.header("content-type"), Some(metrics::CONTENT_TYPE));
    metrics::tests::assert_well_formed(&answer.body);
    let counted = r#"blackhole_gateway_http_requests_total{path="other",code="404"} 1"#;
    assert!(answer.body.contains(counted), "{}", answer.body);
    running.end().await;
}

#[tokio::test]
async fn a_silent_orchestrator_is_503_on_both_pages() {
    let (_orchestrator, status) = Orchestrator::silent(a_node());
    let freshness = Freshness { answer: SHORT, ..PATIENT.freshness };
    let running = Running::start(asks(freshness), status);
    let health = running.get("/health").await;
    assert_eq!((health.code, health.header("content-type")), (503, Some("application/json")));
    assert!(health.body.contains("did not answer within 20ms"), "{}", health.body);
    let metrics = running.get("/metrics").await;
    assert_eq!(metrics.code, 503);
    assert!(metrics.body.contains("blackhole_gateway_up_to_date 0.0\n"), "{}", metrics.body);
    running.end().await;
}

#[tokio::test]
async fn a_lost_orchestrator_is_503_at_once() {
    let (orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(ASKING, status);
    assert_eq!(running.get("/health").await.code, 200);
    orchestrator.die().await;
    let answer = running.get("/health").await;
    assert_eq!(answer.code, 503);
    assert!(answer.body.contains("cannot be asked"), "{}", answer.body);
    running.end().await;
}

#[tokio::test]
async fn the_orchestrator_is_asked_before_anybody_asks_the_gateway() {
    let (mut orchestrator, status) = Orchestrator::silent(a_node());
    let running = Running::start(PATIENT, status);
    orchestrator.until_asked(1).await;
    running.end().await;
}

#[tokio::test]
async fn what_was_told_before_anybody_asked_is_given_to_nobody() {
    let (mut orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(PATIENT, status);
    orchestrator.until_asked(1).await;
    assert_eq!(running.get("/health").await.code, 200);
    assert_eq!(orchestrator.asked(), 2);
    running.end().await;
}

#[tokio::test]
async fn an_answer_without_a_node_is_503() {
    let (_orchestrator, status) = Orchestrator::telling(NodeStatus::default());
    let running = Running::start(PATIENT, status);
    let answer = running.get("/health").await;
    assert_eq!(answer.code, 503);
    assert!(answer.body.contains("does not say which node"), "{}", answer.body);
    running.end().await;
}

#[tokio::test]
async fn a_hundred_requests_at_once_ask_the_orchestrator_once() {
    let (mut orchestrator, status) = Orchestrator::silent(a_node());
    let running = Running::start(PATIENT, status);
    orchestrator.until_asked(1).await;
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        let mut client = running.connect().await;
        client.send("GET /health HTTP/1.1\r\nConnection: close\r\n\r\n").await;
        clients.spawn(client.rest());
    }
    orchestrator.until_asked(2).await;
    orchestrator.open();
    while let Some(answer) = clients.join_next().await {
        assert_eq!(answer.unwrap().code, 200);
    }
    assert_eq!(orchestrator.asked(), 2);
    running.end().await;
}

#[tokio::test]
async fn an_answer_is_given_again_while_it_is_fresh_and_no_longer() {
    for (good, asked) in [(NEVER, 2), (Duration::ZERO, 4)] {
        let (mut orchestrator, status) = Orchestrator::telling(a_node());
        let running = Running::start(asks(Freshness { good, ..PATIENT.freshness }), status);
        orchestrator.until_asked(1).await;
        for page in ["/health", "/metrics", "/health"] {
            assert_eq!(running.get(page).await.code, 200);
        }
        assert_eq!(orchestrator.asked(), asked);
        running.end().await;
    }
}

#[tokio::test]
async fn a_change_that_is_told_of_makes_an_answer_old() {
    let changes = tokio::sync::watch::Sender::new(0);
    let (mut orchestrator, status) = Orchestrator::changing(a_node(), changes.subscribe());
    let running = Running::start(PATIENT, status);
    orchestrator.until_asked(1).await;
    assert_eq!(running.get("/health").await.code, 200);
    // The status with which the watch begins may be newer than the answer. Each change after it is
    // noticed at some time, and asked about once.
    for asked in [3, 4, 5] {
        while orchestrator.asked() < asked {
            assert_eq!(running.get("/health").await.code, 200);
        }
        assert_eq!(running.get("/health").await.code, 200);
        assert_eq!(orchestrator.asked(), asked);
        changes.send_modify(|count| *count += 1);
    }
    running.end().await;
}

#[tokio::test]
async fn a_failure_is_given_again_while_it_is_fresh_and_no_longer() {
    for (failed, code) in [(NEVER, 503), (Duration::ZERO, 200)] {
        let (mut orchestrator, status) = Orchestrator::failing(a_node(), 2);
        let running = Running::start(asks(Freshness { failed, ..PATIENT.freshness }), status);
        orchestrator.until_asked(1).await;
        assert_eq!(running.get("/health").await.code, 503);
        assert_eq!(running.get("/health").await.code, code);
        running.end().await;
    }
}

#[tokio::test]
async fn an_unknown_path_is_said_back_escaped_and_cut() {
    let (_orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(PATIENT, status);
    let answer = running.get("/a\"b/health").await;
    assert_eq!((answer.code, answer.header("content-type")), (404, Some("application/json")));
    let expected = r#"{"error":"not found","path":"/a\"b/health","see":["/health","/metrics"]}"#;
    assert_eq!(answer.body, format!("{expected}\n"));
    let answer = running.get(&format!("/{}", "x".repeat(9_000))).await;
    assert_eq!(answer.code, 404);
    assert!(answer.body.len() < 400, "{}", answer.body);
    running.end().await;
}

#[tokio::test]
async fn other_methods_are_405_on_pages_and_404_elsewhere() {
    let (_orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(PATIENT, status);
    for method in ["POST", "DELETE", "OPTIONS", "BREW"] {
        let answer = running.ask(method, "/metrics").await;
        assert_eq!((answer.code, answer.header("allow")), (405, Some("GET, HEAD")));
        let expected = r#"{"error":"method not allowed","method":"BREW","allow":["GET","HEAD"]}"#;
        assert_eq!(answer.body, expected.replace("BREW", method) + "\n");
        assert_eq!(running.ask(method, "/other").await.code, 404);
    }
    running.end().await;
}

#[tokio::test]
async fn a_request_with_a_body_is_answered_and_its_connection_closed() {
    let (_orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(PATIENT, status);
    for sent in [1, 1 << 20] {
        let mut client = running.connect().await;
        client.send(&format!("GET /health HTTP/1.1\r\nContent-Length: {sent}\r\n\r\n")).await;
        // The gateway may close before it was sent all of it.
        let _ = client.0.write_all(&vec![b'x'; sent]).await;
        let answer = client.answer().await;
        assert_eq!((answer.code, answer.header("connection")), (200, Some("close")));
        assert!(client.is_closed().await);
    }
    running.end().await;
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let (_orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(PATIENT, status);
    let mut client = running.connect().await;
    client.send("GET /health HTTP/1.1\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.answer().await.header("content-type"), Some("application/json"));
    assert_eq!(client.answer().await.header("content-type"), Some(metrics::CONTENT_TYPE));
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.answer().await.code, 404);
    running.end().await;
}

#[tokio::test]
async fn garbage_is_refused_and_the_gateway_lives_on() {
    let (_orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(PATIENT, status);
    let header = format!("GET /health HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(16 << 10));
    let endless = "x: y\r\n".repeat(100_000);
    let cases = [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n"[..], 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400),
        (header.as_bytes(), 431),
        (&[b"GET /health HTTP/1.1\r\n", endless.as_bytes()].concat(), 431),
    ];
    for (bytes, code) in cases {
        let mut client = running.connect().await;
        // The gateway may close before it was sent all of it.
        let _ = client.0.write_all(bytes).await;
        assert_eq!(client.answer().await.code, code, "{}", bytes.escape_ascii());
        assert_eq!(running.get("/health").await.code, 200);
    }
    running.end().await;
}

#[tokio::test]
async fn a_client_that_breaks_off_does_not_hold_up_the_next() {
    let (mut orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(ASKING, status);
    drop(running.in_flight(&mut orchestrator).await);
    let asked = orchestrator.asked();
    let next = async {
        orchestrator.until_asked(asked + 1).await;
        orchestrator.open();
    };
    assert_eq!(tokio::join!(running.get("/health"), next).0.code, 200);
    running.end().await;
}

#[tokio::test]
async fn a_client_that_is_too_slow_loses_its_connection() {
    let (_orchestrator, status) = Orchestrator::telling(a_node());
    let slow_client = SlowClientLimits { head: SHORT, idle: Some(NEVER) };
    let running = Running::start(Times { slow_client, ..PATIENT }, status);
    let mut silent = running.connect().await;
    assert!(silent.is_closed().await);
    let mut slow = running.connect().await;
    slow.send("GET /health HTTP/1.1\r\n").await;
    assert!(slow.is_closed().await);
    running.end().await;
}

#[tokio::test]
async fn idle_and_silent_connections_do_not_hold_the_drain() {
    let (_orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(PATIENT, status);
    let mut silent = running.connect().await;
    let mut idle = running.connect().await;
    idle.send("GET /health HTTP/1.1\r\n\r\n").await;
    assert_eq!(idle.answer().await.code, 200);
    running.end().await;
    assert!(idle.is_closed().await);
    assert!(silent.is_closed().await);
}

#[tokio::test]
async fn a_request_in_flight_is_answered_during_the_drain() {
    let (mut orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(ASKING, status);
    let client = running.in_flight(&mut orchestrator).await;
    running.end.send(()).unwrap();
    // Nothing listens any more once the drain has begun.
    while TcpStream::connect(running.address).await.is_ok() {}
    orchestrator.open();
    let answer = client.rest().await;
    assert_eq!((answer.code, answer.header("connection")), (200, Some("close")));
    running.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_gets_no_answer_is_cut_at_the_end_of_the_drain() {
    let (mut orchestrator, status) = Orchestrator::telling(a_node());
    let running = Running::start(Times { drain: SHORT, ..ASKING }, status);
    let mut client = running.in_flight(&mut orchestrator).await;
    running.end().await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_client_that_takes_no_answer_is_cut_at_the_end_of_the_drain() {
    // Each of these characters is six in JSON: 12 MiB are more than sockets buffer.
    let name = "\u{1}".repeat(2 << 20);
    let (_orchestrator, status) = Orchestrator::telling(snapshot(vec![], &[&name]));
    let running = Running::start(Times { drain: SHORT, ..PATIENT }, status);
    let mut client = running.connect().await;
    client.send("GET /health HTTP/1.1\r\n\r\n").await;
    client.0.readable().await.unwrap();
    running.end().await;
    let mut taken = Vec::new();
    let _ = client.0.read_to_end(&mut taken).await;
    assert!(taken.len() < 12 << 20, "{}", taken.len());
}
