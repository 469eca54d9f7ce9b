//! The interface of a built-in service: its settings, and how it is opened. Knows no particular
//! one.

use tokio::task::{JoinError, JoinSet};
use tonic::service::Routes;

use super::error::ServiceError;
use super::launch::{Launch, LaunchError};
use crate::rpc::Ending;

/// A service of the catalog. Its folder implements this; `service::live` names it.
pub(super) trait BuiltinService {
    /// The settings of the launch that only this service has.
    type Settings;

    /// Checks the settings before anything is opened.
    fn settings(launch: &Launch) -> Result<Self::Settings, LaunchError>;

    /// Opens what the service keeps, and starts its work beside gRPC. Listeners and brokers that
    /// only it is passed are taken out of `launch`.
    async fn open(
        launch: &mut Launch,
        settings: Self::Settings,
        beside: &mut Beside,
    ) -> Result<Routes, ServiceError>;
}

/// The tasks of a service beside answering gRPC.
#[derive(Debug)]
pub(super) struct Beside {
    tasks: JoinSet<Result<(), ServiceError>>,
    ending: Ending,
}

impl Beside {
    pub(super) fn new(ending: Ending) -> Self {
        Self { tasks: JoinSet::new(), ending }
    }

    /// Starts a task. It has to end when the shutdown has begun, or when its callers are gone, and
    /// not before.
    pub(super) fn spawn<W>(&mut self, work: W)
    where
        W: Future<Output = Result<(), ServiceError>> + Send + 'static,
    {
        self.tasks.spawn(work);
    }

    /// A handle that tells when the shutdown has begun.
    pub(super) fn ending(&self) -> Ending {
        self.ending.clone()
    }

    /// The next error of a task, or the end of one that should go on; pending while all goes well.
    /// Cancel safe.
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

    /// Waits until all tasks have ended.
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
