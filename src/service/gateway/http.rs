//! The response to an HTTP request: pages, methods, headers. Knows no socket.

use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use serde::Serialize;

use super::health;
use super::metrics::{self, Requests};
use super::status_feed::StatusCache;

const JSON: &str = "application/json";
/// The most characters of an unknown path or method that a response repeats.
const SAID_BACK: usize = 256;

type Body = Full<Bytes>;

/// The pages.
#[derive(Debug, Clone, Copy)]
enum Page {
    Health,
    Metrics,
    Unknown,
}

impl Page {
    fn at(path: &str) -> Self {
        match path {
            "/health" => Self::Health,
            "/metrics" => Self::Metrics,
            _ => Self::Unknown,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Health => "/health",
            Self::Metrics => "/metrics",
            Self::Unknown => "other",
        }
    }
}

/// The state that all connections share.
#[derive(Debug)]
pub struct Site {
    feed: StatusCache,
    requests: Requests,
}

impl Site {
    pub fn new(feed: StatusCache) -> Self {
        Self { feed, requests: Requests::default() }
    }

    /// Asks the orchestrator for the first time.
    pub async fn greet(&self) {
        self.feed.greet().await;
    }

    /// hyper leaves the body of an answer to HEAD away. A request's body is never read; in HTTP/1.1
    /// its connection is closed after the answer, and in HTTP/2 its stream is.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let page = Page::at(request.uri().path());
        let may_read = [Method::GET, Method::HEAD].contains(request.method());
        let mut response = match page {
            Page::Unknown => not_found(request.uri().path()),
            Page::Health | Page::Metrics if !may_read => not_allowed(request.method()),
            Page::Health => self.health().await,
            Page::Metrics => self.metrics().await,
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if request.version() < Version::HTTP_2 && !request.body().is_end_stream() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.requests.count(page.label(), response.status().as_u16());
        response
    }

    async fn health(&self) -> Response<Body> {
        match self.feed.latest().await {
            Ok(snapshot) => response(StatusCode::OK, JSON, health::known(&snapshot)),
            Err(error) => response(StatusCode::SERVICE_UNAVAILABLE, JSON, health::unknown(&error)),
        }
    }

    async fn metrics(&self) -> Response<Body> {
        let snapshot = self.feed.latest().await.ok();
        let code =
            if snapshot.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response(code, metrics::CONTENT_TYPE, metrics::page(snapshot, &self.requests))
    }
}

#[derive(Serialize)]
struct NotFound {
    error: &'static str,
    path: String,
    see: [&'static str; 2],
}

fn not_found(path: &str) -> Response<Body> {
    let path = path.chars().take(SAID_BACK).collect();
    let error = NotFound { error: "not found", path, see: ["/health", "/metrics"] };
    response(StatusCode::NOT_FOUND, JSON, line(&error))
}

#[derive(Serialize)]
struct NotAllowed {
    error: &'static str,
    method: String,
    allow: [&'static str; 2],
}

fn not_allowed(method: &Method) -> Response<Body> {
    let method = method.as_str().chars().take(SAID_BACK).collect();
    let error = NotAllowed { error: "method not allowed", method, allow: ["GET", "HEAD"] };
    let mut response = response(StatusCode::METHOD_NOT_ALLOWED, JSON, line(&error));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn line<T: Serialize>(object: &T) -> String {
    serde_json::to_string(object).expect("strings and lists of them are always JSON") + "\n"
}

fn response(code: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
