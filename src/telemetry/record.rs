//! Log records: where a line came from, which part of a line a record is, and the owned form that
//! readers are given. Knows neither pipes nor how records are kept.

use std::collections::BTreeMap;

use crate::rpc::pb::node::LogRecord;
use crate::units::{InstanceId, Level, Pid, RunId};

/// The service name under which the orchestrator's own lines are kept. No service can have it:
/// `ServiceName` reserves it.
pub const NODE: &str = "node";

/// What wrote a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub service: Box<str>,
    pub instance: Box<str>,
    pub run: RunId,
    pub pid: Pid,
}

impl Source {
    pub fn instance(id: &InstanceId, run: RunId, pid: Pid) -> Self {
        let (service, instance) = (id.service.as_str().into(), id.to_string().into());
        Self { service, instance, run, pid }
    }

    /// The orchestrator itself. Its run is 0.
    pub fn node(pid: Pid) -> Self {
        Self { service: NODE.into(), instance: NODE.into(), run: RunId(0), pid }
    }
}

/// How a line reached the log store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
    /// Written by the orchestrator itself.
    Node,
}

impl Stream {
    /// The name in records; empty for the orchestrator's own lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Node => "",
        }
    }
}

/// Which part of a line a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// From 1 on in a line that was too long for one record; 0: the record is a whole line.
    pub number: u32,
    /// Whether another part follows.
    pub continues: bool,
}

impl Part {
    pub const WHOLE: Self = Self { number: 0, continues: false };
}

/// A record with its structure recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// When the line was read, in microseconds since 1970.
    pub unix_us: i64,
    pub service: String,
    pub instance: String,
    pub run: RunId,
    pub pid: Pid,
    pub stream: Stream,
    pub level: Level,
    pub message: String,
    /// Values are JSON texts.
    pub fields: BTreeMap<String, String>,
    /// How many records between this one and the one before were not given.
    pub skipped: u64,
}

impl From<OwnedRecord> for LogRecord {
    fn from(record: OwnedRecord) -> Self {
        Self {
            unix_us: record.unix_us,
            service: record.service,
            instance: record.instance,
            run: record.run.0,
            pid: record.pid.0,
            level: record.level.as_str().to_owned(),
            stream: record.stream.as_str().to_owned(),
            message: record.message,
            fields: record.fields,
            skipped: record.skipped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_goes_onto_the_wire_field_by_field() {
        let id: InstanceId = "storage-1".parse().unwrap();
        let source = Source::instance(&id, RunId(7), Pid(1003));
        let wire = LogRecord::from(OwnedRecord {
            unix_us: 5,
            service: source.service.into(),
            instance: source.instance.into(),
            run: source.run,
            pid: source.pid,
            stream: Stream::Stderr,
            level: Level::Warn,
            message: "m".to_owned(),
            fields: BTreeMap::from([("size".to_owned(), "1024".to_owned())]),
            skipped: 3,
        });
        assert_eq!((wire.service.as_str(), wire.instance.as_str()), ("storage", "storage-1"));
        assert_eq!((wire.run, wire.pid, wire.unix_us, wire.skipped), (7, 1003, 5, 3));
        assert_eq!((wire.level.as_str(), wire.stream.as_str()), ("warn", "stderr"));
        assert_eq!((wire.message.as_str(), wire.fields["size"].as_str()), ("m", "1024"));
    }
}
