//! The log plane: what services and the node itself say, from bytes in a pipe to records on the
//! console and in memory. Knows no process, no supervision state and no configuration file.

pub mod book;
pub mod clock;
pub mod console;
pub mod entry;
pub mod escape;
#[cfg(test)]
pub mod fake_journal;
pub mod intake;
pub mod journal;
pub mod json;
pub mod orchestrator_log;
pub mod rate;
pub mod reader;
pub mod recognise;
pub mod record;
pub mod render;
pub mod ring;
pub mod service_log;
pub mod sink;
pub mod split;
pub mod spool;

pub use book::{BookError, Limits, LogBook, Settings};
pub use clock::{Clock, SystemClock};
pub use reader::{AtEnd, Query, Reader, Scope};
pub use record::{OwnedRecord, Source, Stream};
pub use render::{Colour, Form, Style, is_for_machines};
pub use sink::{Flushed, Sink, SinkError};
pub use split::Rest;
pub use spool::{Spool, SpoolError};
