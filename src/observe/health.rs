//! Health by `grpc.health.v1` on a connection of its own: `Watch` for changes as they happen,
//! `Check` at every interval as the proof of life that a hung process cannot give.
//!
//! Semantics of gRFC A17: a server without the health service counts as healthy.

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

/// The pause before an ended `Watch` is opened again.
const REOPEN: Duration = Duration::from_millis(100);

/// How one instance is checked.
#[derive(Debug, Clone)]
pub struct HealthPlan {
    pub socket: PathBuf,
    /// They may change at any time.
    pub rules: watch::Receiver<HealthChecks>,
}

/// Checks until it is dropped. The first SERVING is told as soon as it comes.
pub async fn watch(mut plan: HealthPlan, clock: Clock, scheduling: Scheduling, reporter: Reporter) {
    let channel = rpc::client::channel_to(&plan.socket);
    let changes = tell_changes(HealthClient::new(channel.clone()), &reporter);
    let checks = check_at_every_beat(
        HealthClient::new(channel),
        &mut plan.rules,
        clock,
        scheduling,
        &reporter,
    );
    tokio::join!(changes, checks);
}

async fn tell_changes(mut client: HealthClient<Channel>, reporter: &Reporter) {
    loop {
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
            // The next check says what is wrong, if something is.
            Err(_) => {}
        }
        sleep(REOPEN).await;
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

/// Waits for the next beat, by the rules as they are then.
async fn next_beat(rules: &mut watch::Receiver<HealthChecks>, clock: Clock) -> HealthChecks {
    loop {
        let now = *rules.borrow_and_update();
        tokio::select! {
            () = sleep_until(clock.next_beat(now.interval)) => return now,
            // The sender outlives every run.
            _ = rules.changed() => {}
        }
    }
}

/// The empty service name asks for the server as a whole.
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
