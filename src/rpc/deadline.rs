//! The caller's `grpc-timeout`, as the gRPC wire protocol writes it: 1 to 8 digits and a unit.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::service::Routes;
use tower::Service;

const HEADER: &str = "grpc-timeout";

/// Each call ends with DEADLINE_EXCEEDED when it has no answer within its caller's timeout.
#[derive(Debug, Clone)]
pub struct Deadlines(Routes);

impl Deadlines {
    pub fn of(routes: Routes) -> Self {
        Self(routes)
    }
}

impl Service<Request<Incoming>> for Deadlines {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Incoming>>::poll_ready(&mut self.0, context)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let limit = from_headers(request.headers());
        let answering = self.0.call(request);
        let Some(limit) = limit else { return Box::pin(answering) };
        Box::pin(async move {
            match tokio::time::timeout(limit, answering).await {
                Ok(answered) => answered,
                Err(_) => {
                    let status = Status::deadline_exceeded("the caller's deadline has passed");
                    Ok(status.into_http())
                }
            }
        })
    }
}

/// None: the caller set no deadline, or wrote one that cannot be read (it is then not honoured,
/// which is what other gRPC servers do).
fn from_headers(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get(HEADER)?.to_str().ok()?)
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_the_wire_protocol_is_read() {
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("7u"), Some(Duration::from_micros(7)));
        assert_eq!(parse("1n"), Some(Duration::from_nanos(1)));
    }

    #[test]
    fn what_is_not_a_timeout_is_none() {
        for wrong in ["", "S", "5", "123456789S", "-1S", "+1S", "5s", "5µ", "é"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
