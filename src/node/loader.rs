//! How the configuration is read: by whoever started the node, each time anew. Knows no file.

use std::fmt;
use std::sync::Arc;

use crate::config::NodeConfig;
use crate::observe::clock::Clock;

/// What the command line and the configuration ask for.
#[derive(Debug)]
pub struct Settings {
    pub loader: Loader,
    pub clock: Clock,
}

/// A configuration that was read.
#[derive(Debug)]
pub struct Configured {
    pub config: NodeConfig,
    /// All of it, as text that gives the same again.
    pub text: String,
    /// Where it came from, in words.
    pub origin: String,
    /// Its warnings, one a line.
    pub remarks: Vec<String>,
}

/// Reads the configuration, or says everything that is wrong with it. May take its time.
#[derive(Clone)]
pub struct Loader {
    read: Arc<Read>,
    read_text: Arc<ReadText>,
}

type Read = dyn Fn() -> Result<Configured, String> + Send + Sync;
type ReadText = dyn Fn(&str) -> Result<Configured, String> + Send + Sync;

impl Loader {
    /// `read` reads what the command line asks for, each time anew; `read_text` reads what is
    /// `Configured::text` of an earlier one.
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
