//! Health checks by `grpc.health.v1`, over a connection of their own: `Watch` tells changes as they
//! happen, and `Check` at every interval proves that the process still answers.
//!
//! After gRFC A17 a server without the health service counts as healthy.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::clock::Clock;
use super::news::Reporter;
use super::starvation::Scheduling;
use crate::decide::{Check, News};
use crate::plan::HealthChecks;
use crate::rpc;

/// The first pause before an ended `Watch` is opened again.
const REOPEN: Duration = Duration::from_millis(100);

/// The checks of one instance.
#[derive(Debug, Clone)]
pub struct HealthPlan {
    pub socket: PathBuf,
    /// Interval, timeout and so on; a reload may change them at any time.
    pub rules: watch::Receiver<HealthChecks>,
}

/// Runs the checks until it is dropped. The first SERVING is reported as soon as it comes.
pub async fn watch(mut plan: HealthPlan, clock: Clock, scheduling: Scheduling, reporter: Reporter) {
    let channel = rpc::client::channel_to(&plan.socket);
    let client = HealthClient::new(channel.clone());
    let changes = tell_changes(client, plan.rules.clone(), clock, &reporter);
    let checks = check_at_every_beat(
        HealthClient::new(channel),
        &mut plan.rules,
        clock,
        scheduling,
        &reporter,
    );
    tokio::join!(changes, checks);
}

async fn tell_changes(
    mut client: HealthClient<Channel>,
    rules: watch::Receiver<HealthChecks>,
    clock: Clock,
    reporter: &Reporter,
) {
    let mut former = None;
    loop {
        let opened = clock.now();
        match client.watch(everything()).await {
            Ok(changes) => {
                let mut changes = changes.into_inner();
                while let Ok(Some(change)) = changes.message().await {
                    reporter.report(News::Checked(verdict(change.status()))).await;
                }
            }
            Err(status) if status.code() == Code::Unimplemented => {
                return reporter.report(News::Checked(Check::Healthy)).await;
            }
            // If something is wrong, the next check says what.
            Err(_) => {}
        }
        let interval = rules.borrow().interval;
        let pause = reopen_after(former, clock.now().since(opened), interval);
        former = Some(pause);
        if pause < interval {
            sleep(pause).await;
        } else {
            sleep_until(clock.next_beat(interval)).await;
        }
    }
}

/// The pause before a `Watch` that lasted `lasted` is opened again. `former`: the pause before it.
/// Twice the former one, at most the interval of the checks, which then tell a change as soon; the
/// first one again, after a `Watch` that lasted for an interval.
fn reopen_after(former: Option<Duration>, lasted: Duration, interval: Duration) -> Duration {
    match former {
        Some(former) if lasted < interval => former.saturating_mul(2).min(interval),
        Some(_) | None => REOPEN.min(interval),
    }
}

async fn check_at_every_beat(
    mut client: HealthClient<Channel>,
    rules: &mut watch::Receiver<HealthChecks>,
    clock: Clock,
    mut scheduling: Scheduling,
    reporter: &Reporter,
) {
    loop {
        let HealthChecks { timeout, .. } = next_beat(rules, clock).await;
        let began = clock.now();
        let soon = clock.instant(scheduling.begin(began, timeout));
        let deadline = clock.instant(began + timeout);
        let mut answer = pin!(client.check(everything()));
        let in_time = match timeout_at(soon, &mut answer).await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                scheduling.look(clock.now());
                timeout_at(deadline, answer).await
            }
        };
        let check = match in_time {
            Ok(Ok(answer)) => verdict(answer.into_inner().status()),
            Ok(Err(status)) => failure(&status),
            Err(_) if scheduling.was_starved(clock.now(), timeout) => Check::Starved,
            Err(_) => {
                let patience = crate::units::human_duration(timeout);
                Check::Failed(format!("no answer within {patience}"))
            }
        };
        reporter.report(News::Checked(check)).await;
    }
}

/// Waits for the next check, by the interval as it is then.
async fn next_beat(rules: &mut watch::Receiver<HealthChecks>, clock: Clock) -> HealthChecks {
    loop {
        let now = *rules.borrow_and_update();
        tokio::select! {
            () = sleep_until(clock.next_beat(now.interval)) => return now,
            // The sender outlives all runs.
            _ = rules.changed() => {}
        }
    }
}

/// The empty service name stands for the whole server.
fn everything() -> HealthCheckRequest {
    HealthCheckRequest { service: String::new() }
}

fn verdict(status: ServingStatus) -> Check {
    match status {
        ServingStatus::Serving => Check::Healthy,
        ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
            Check::Failed(format!("it reports {}", status.as_str_name()))
        }
    }
}

fn failure(status: &Status) -> Check {
    if status.code() == Code::Unimplemented {
        return Check::Healthy;
    }
    Check::Failed(format!("{:?}: {}", status.code(), status.message()))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::{mpsc, oneshot};
    use tokio_stream::Stream;
    use tonic::{Request, Response};
    use tonic_health::pb::HealthCheckResponse;
    use tonic_health::pb::health_server::{Health, HealthServer};

    use super::*;
    use crate::linux::fds::{self, SocketAccess};
    use crate::linux::members::{Marks, Members};
    use crate::observe::news::QUEUE;
    use crate::units::RunId;

    const SECOND: Duration = Duration::from_secs(1);

    fn pauses(lasted: Duration, interval: Duration) -> impl Iterator<Item = Duration> {
        let next = move |former: &Option<Duration>| Some(reopen_after(*former, lasted, interval));
        std::iter::successors(next(&None), move |former| next(&Some(*former)))
    }

    #[test]
    fn a_watch_that_ends_at_once_comes_down_to_one_in_each_interval() {
        let first: Vec<u128> =
            pauses(Duration::ZERO, SECOND * 10).take(9).map(|pause| pause.as_millis()).collect();
        assert_eq!(first, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        // Intervals shorter than the first pause bound it too.
        let short = Duration::from_millis(30);
        assert!(pauses(Duration::ZERO, short).take(9).all(|pause| pause == short));
    }

    #[test]
    fn a_watch_that_lasted_begins_the_series_anew() {
        assert_eq!(reopen_after(Some(SECOND * 8), SECOND * 10, SECOND * 10), REOPEN);
        assert_eq!(reopen_after(Some(SECOND * 8), SECOND * 9, SECOND * 10), SECOND * 10);
        assert!(pauses(SECOND * 60, SECOND * 10).take(9).all(|pause| pause == REOPEN));
    }

    /// A server whose every `Watch` is over at once.
    #[derive(Debug, Default)]
    struct Brief {
        watches: Arc<AtomicU32>,
    }

    fn serving() -> HealthCheckResponse {
        HealthCheckResponse { status: ServingStatus::Serving.into() }
    }

    #[tonic::async_trait]
    impl Health for Brief {
        type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

        async fn check(
            &self,
            _: Request<HealthCheckRequest>,
        ) -> Result<Response<HealthCheckResponse>, Status> {
            Ok(Response::new(serving()))
        }

        async fn watch(
            &self,
            _: Request<HealthCheckRequest>,
        ) -> Result<Response<Self::WatchStream>, Status> {
            self.watches.fetch_add(1, Ordering::SeqCst);
            Ok(Response::new(Box::pin(tokio_stream::once(Ok(serving())))))
        }
    }

    /// A sleep is never too short: so many openings cannot have come sooner than their pauses.
    #[tokio::test]
    async fn a_server_whose_watch_ends_at_once_is_left_alone_in_between() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = fds::unix_listener(&socket, SocketAccess::Owner).unwrap();
        let (end, told) = oneshot::channel::<()>();
        let brief = Brief::default();
        let watches = Arc::clone(&brief.watches);
        let sockets = rpc::Sockets { listeners: vec![listener], ..rpc::Sockets::default() };
        let routes = tonic::service::Routes::new(HealthServer::new(brief));
        let told = async {
            let _ended = told.await;
        };
        let server = tokio::spawn(rpc::serve(sockets, routes, rpc::Peers::Anyone, SECOND, told));
        let interval = Duration::from_millis(400);
        let checks = HealthChecks { interval, timeout: SECOND, unhealthy_threshold: 3 };
        let (_rules, rules) = watch::channel(checks);
        let (to_node, mut observations) = mpsc::channel(QUEUE);
        let clock = Clock::start();
        let members =
            Members::Marked(Marks { all: ["NO=one".to_owned()].into(), ..Marks::default() });
        let reporter = Reporter::new(RunId(1), to_node);
        let plan = HealthPlan { socket, rules };
        let watching = tokio::spawn(super::watch(plan, clock, Scheduling::of(members), reporter));
        while watches.load(Ordering::SeqCst) < 6 {
            observations.recv().await.unwrap();
        }
        // 100 ms, 200 ms, up to the next beat, and two whole intervals.
        assert!(clock.now().0 >= Duration::from_millis(300) + interval * 2, "{:?}", clock.now());
        watching.abort();
        let _aborted = watching.await;
        drop(end);
        server.await.unwrap().unwrap();
    }
}
