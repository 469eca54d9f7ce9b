//! The log plane: lines of services and of the node itself, from bytes in a pipe to records in
//! memory, on the console or in the journal. Knows no process, no supervision state and no
//! configuration file.

pub mod clock;
pub mod console;
mod delivery_cursor;
pub mod entry;
pub mod escape;
#[cfg(test)]
pub mod fake_journal;
pub mod journal;
pub mod json;
pub mod json_subscriber;
pub mod log_store;
pub mod log_store_subscriber;
pub mod rate;
pub mod reader;
pub mod recognise;
pub mod record;
pub mod render;
pub mod ring;
pub mod sink;
pub mod split;
pub mod spool;
#[cfg(test)]
mod spool_golden;
pub mod stream_writer;

pub use clock::{Clock, SystemClock};
pub use log_store::{Limits, LogStore, LogStoreError, Settings};
pub use reader::{AtEnd, Query, Reader, Scope};
pub use record::{OwnedRecord, Source, Stream};
pub use render::{Colour, Form, Style, is_for_machines};
pub use sink::{Flushed, Sink, SinkError};
pub use split::Rest;
pub use spool::{Spool, SpoolError};
