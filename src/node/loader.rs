//! The configuration loader that `main` gives to the node. Knows no file.

use std::fmt;
use std::sync::Arc;

use crate::config::NodeConfig;
use crate::observe::clock::Clock;

/// The node's settings from the command line.
#[derive(Debug)]
pub struct Settings {
    pub loader: Loader,
    pub clock: Clock,
}

/// A configuration that was loaded.
#[derive(Debug)]
pub struct Configured {
    pub config: NodeConfig,
    /// A text that gives the same configuration.
    pub text: String,
    /// Where it came from, in words for the log.
    pub origin: String,
    /// Its warnings, one a line.
    pub remarks: Vec<String>,
}

/// Loads the configuration, or returns all its errors. May block on a disk.
#[derive(Clone)]
pub struct Loader {
    read: Arc<Read>,
    read_text: Arc<ReadText>,
}

type Read = dyn Fn() -> Result<Configured, String> + Send + Sync;
type ReadText = dyn Fn(&str) -> Result<Configured, String> + Send + Sync;

impl Loader {
    /// `read` loads what the command line names; `read_text` loads the `Configured::text` of an
    /// earlier one.
    pub fn new(
        read: impl Fn() -> Result<Configured, String> + Send + Sync + 'static,
        read_text: impl Fn(&str) -> Result<Configured, String> + Send + Sync + 'static,
    ) -> Self {
        Self { read: Arc::new(read), read_text: Arc::new(read_text) }
    }

    pub(super) fn load(&self) -> Result<Configured, String> {
        (self.read)()
    }

    pub(super) fn load_text(&self, text: &str) -> Result<Configured, String> {
        (self.read_text)(text)
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loader")
    }
}
