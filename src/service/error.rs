//! Why a service cannot start, or has failed.

use std::error::Error;
use std::io;

use super::durable_file::FileError;
use super::launch::LaunchError;
use crate::rpc::ServeError;

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("cannot begin to log: {0}")]
    Log(#[from] tracing_subscriber::util::TryInitError),
    #[error("cannot {doing}: {source}")]
    System { doing: &'static str, source: io::Error },
    #[error("the reflection service cannot be made: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    File(#[from] FileError),
    /// An error of one service, made in its folder.
    #[error(transparent)]
    Own(Box<dyn Error + Send + Sync>),
    #[error("a part of the service ended although nobody told it to")]
    PartEnded,
}
