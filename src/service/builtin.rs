//! What a built-in service is made of: its settings, and what it opens. Knows none of them.

use tokio::task::{JoinError, JoinSet};
use tonic::service::Routes;

use super::error::ServiceError;
use super::launch::{Launch, LaunchError};
use crate::rpc::Ending;

/// A service of the catalog. Its folder implements this; `service::live` names it.
pub(super) trait BuiltinService {
    /// What the launch says for it alone.
    type Settings;

    /// Checks the settings before anything is opened.
    fn settings(launch: &Launch) -> Result<Self::Settings, LaunchError>;

    /// Opens what the service keeps, and begins its work beside gRPC. What it is handed beside its
    /// gRPC sockets it takes out of `launch`.
    async fn open(
        launch: &mut Launch,
        settings: Self::Settings,
        beside: &mut Beside,
    ) -> Result<Routes, ServiceError>;
}

/// What a service does beside answering gRPC.
#[derive(Debug)]
pub(super) struct Beside {
    tasks: JoinSet<Result<(), ServiceError>>,
    ending: Ending,
}

impl Beside {
    pub(super) fn new(ending: Ending) -> Self {
        Self { tasks: JoinSet::new(), ending }
    }

    /// Begins `work`. It ends when the end has begun, or when its callers are gone; never before.
    pub(super) fn spawn<W>(&mut self, work: W)
    where
        W: Future<Output = Result<(), ServiceError>> + Send + 'static,
    {
        self.tasks.spawn(work);
    }

    /// Tells when the end has begun.
    pub(super) fn ending(&self) -> Ending {
        self.ending.clone()
    }

    /// The next error, or an end that nobody asked for; waits while all goes well. Cancel safe.
    pub(super) async fn failed(&mut self) -> ServiceError {
        while let Some(ended) = self.tasks.join_next().await {
            match outcome(ended) {
                Err(error) => return error,
                Ok(()) if !self.ending.has_begun() => return ServiceError::PartEnded,
                Ok(()) => {}
            }
        }
        std::future::pending().await
    }

    /// Returns when all of it has ended.
    pub(super) async fn ended(mut self) -> Result<(), ServiceError> {
        while let Some(ended) = self.tasks.join_next().await {
            outcome(ended)?;
        }
        Ok(())
    }
}

fn outcome(ended: Result<Result<(), ServiceError>, JoinError>) -> Result<(), ServiceError> {
    // A panic ends the process, so what is left of a JoinError is that the task was aborted.
    ended.map_err(|_| ServiceError::PartEnded)?
}
