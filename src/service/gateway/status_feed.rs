//! A cache of the orchestrator's status: one request for all who want it at about the same time,
//! and a new one after the orchestrator told of a change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::transport::Channel;

use crate::rpc::pb::node::status_feed_client::StatusFeedClient;
use crate::rpc::pb::node::{InstanceStatus, NodeInfo, NodeStatus, StatusFeedRequest};
use crate::units::human_duration;

/// How long answers are waited for and given again.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// From a request for the status to giving up.
    pub answer: Duration,
    /// How long an answer is given again while nothing has changed.
    pub good: Duration,
    /// How long a failure is given again.
    pub failed: Duration,
}

impl Freshness {
    pub const USUAL: Self = Self {
        answer: Duration::from_secs(2),
        good: Duration::from_secs(1),
        failed: Duration::from_millis(200),
    };
}

/// Why the status is not available.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FeedError {
    #[error("the orchestrator did not answer within {}", human_duration(*.0))]
    Silent(Duration),
    #[error("the orchestrator cannot be asked: {}: {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    #[error("the orchestrator's answer does not say which node it is about")]
    NoNode,
}

/// A complete status.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub node: NodeInfo,
    pub instances: Vec<InstanceStatus>,
    /// Services that the configuration names but leaves off.
    pub disabled: Vec<String>,
}

impl TryFrom<NodeStatus> for Snapshot {
    type Error = FeedError;

    fn try_from(status: NodeStatus) -> Result<Self, FeedError> {
        let NodeStatus { node, instances, disabled } = status;
        Ok(Self { node: node.ok_or(FeedError::NoNode)?, instances, disabled })
    }
}

type Fetched = Result<Arc<Snapshot>, FeedError>;

#[derive(Debug)]
struct Answer {
    at: Instant,
    /// How many changes were told of before this answer was asked for.
    changes: u64,
    fetched: Fetched,
}

#[derive(Debug)]
pub struct StatusCache {
    orchestrator: StatusFeedClient<Channel>,
    freshness: Freshness,
    /// Locked while the orchestrator is asked, so that all requests in that time get the same
    /// answer.
    last: Mutex<Option<Answer>>,
    /// How many changes orchestrators have told of.
    changes: Arc<AtomicU64>,
    /// The task that counts them while one orchestrator answers; ends with the cache.
    watch: StdMutex<JoinSet<()>>,
}

impl StatusCache {
    pub fn new(orchestrator: Channel, freshness: Freshness) -> Self {
        let orchestrator = StatusFeedClient::new(orchestrator);
        Self {
            orchestrator,
            freshness,
            last: Mutex::new(None),
            changes: Arc::default(),
            watch: StdMutex::default(),
        }
    }

    /// A status that is fresh enough, or why there is none.
    pub async fn latest(&self) -> Fetched {
        let deadline = Instant::now() + self.freshness.answer;
        let silent = |_| FeedError::Silent(self.freshness.answer);
        let mut last = timeout_at(deadline, self.last.lock()).await.map_err(silent)?;
        if let Some(answer) = last.as_ref().filter(|answer| self.is_fresh(answer)) {
            return answer.fetched.clone();
        }
        let changes = self.changes.load(Ordering::Acquire);
        let fetched = self.ask_by(deadline).await;
        if fetched.is_ok() {
            self.watch_for_changes();
        }
        log_change(last.as_ref().is_none_or(|answer| answer.fetched.is_ok()), &fetched);
        *last = Some(Answer { at: Instant::now(), changes, fetched: fetched.clone() });
        fetched
    }

    /// Asks once before the gateway is ready, and gives the answer to nobody: it says that the
    /// gateway is starting.
    pub async fn greet(&self) {
        log_change(true, &self.ask_by(Instant::now() + self.freshness.answer).await);
    }

    fn is_fresh(&self, answer: &Answer) -> bool {
        let keep = if answer.fetched.is_ok() { self.freshness.good } else { self.freshness.failed };
        answer.changes == self.changes.load(Ordering::Acquire) && answer.at.elapsed() < keep
    }

    /// Starts the task that counts changes, if it does not run. Called after an answer and not by a
    /// timer, so that an orchestrator that is absent, or of a version without `Watch`, is not asked
    /// again and again.
    fn watch_for_changes(&self) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        while watch.try_join_next().is_some() {}
        if watch.is_empty() {
            watch.spawn(count_changes(self.orchestrator.clone(), Arc::clone(&self.changes)));
        }
    }

    async fn ask_by(&self, deadline: Instant) -> Fetched {
        let fetched = timeout_at(deadline, self.ask()).await;
        fetched.map_err(|_| FeedError::Silent(self.freshness.answer)).flatten()
    }

    async fn ask(&self) -> Fetched {
        let answer = self.orchestrator.clone().get(StatusFeedRequest {}).await;
        let status = answer.map_err(|status| FeedError::Refused(Box::new(status)))?.into_inner();
        Snapshot::try_from(status).map(Arc::new)
    }
}

/// Counts changes until the orchestrator ends. The first status counts too: something may have
/// changed since the answer before it.
async fn count_changes(mut orchestrator: StatusFeedClient<Channel>, changes: Arc<AtomicU64>) {
    let Ok(statuses) = orchestrator.watch(StatusFeedRequest {}).await else { return };
    let mut statuses = statuses.into_inner();
    while let Ok(Some(_)) = statuses.message().await {
        changes.fetch_add(1, Ordering::Release);
    }
    changes.fetch_add(1, Ordering::Release);
}

fn log_change(answered_before: bool, fetched: &Fetched) {
    match fetched {
        Err(error) if answered_before => tracing::warn!(%error, "the status is not known"),
        Ok(_) if !answered_before => tracing::info!("the orchestrator answers again"),
        Ok(_) | Err(_) => {}
    }
}
