//! The log of a built-in service: one JSON object a line on stderr, where the node reads it.
//!
//! `timestamp` (RFC 3339, UTC, microseconds), `level` (lower case), `target`, `message`, then the
//! event's fields at the top level; a field of one of those names gets a `_` behind it.

use std::fmt::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::units::Level;

/// Installs the subscriber for events of at least `level`; of libraries, only warnings and errors.
/// From then on a panic is logged as an error line. An error: the process has a subscriber already.
pub fn install(level: Level) -> Result<(), TryInitError> {
    subscriber(level, std::io::stderr).try_init()?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn subscriber<W>(level: Level, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let own = filter(level);
    let libraries = own.min(LevelFilter::WARN);
    let targets = Targets::new().with_target("blackhole_node", own).with_default(libraries);
    // A failed write to stderr cannot be reported anywhere: printing it there would panic.
    let lines = tracing_subscriber::fmt::layer()
        .event_format(JsonLines)
        .log_internal_errors(false)
        .with_writer(writer);
    tracing_subscriber::registry().with(targets).with(lines)
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Trace => LevelFilter::TRACE,
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    }
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let payload = info.payload();
    let formatted = payload.downcast_ref::<String>().map(String::as_str);
    let message = formatted.or_else(|| payload.downcast_ref::<&str>().copied());
    let message = message.unwrap_or("without a text");
    tracing::error!(location, "panic: {message}");
}

struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writeln!(writer, "{}", line(event, SystemTime::now()))
    }
}

fn line(event: &Event<'_>, now: SystemTime) -> Value {
    let mut fields = Fields(head(event.metadata(), now));
    event.record(&mut fields);
    Value::Object(fields.0)
}

fn head(about: &Metadata<'_>, now: SystemTime) -> Map<String, Value> {
    let mut head = Map::new();
    let time = humantime::format_rfc3339_micros(now).to_string();
    head.insert("timestamp".to_owned(), time.into());
    head.insert("level".to_owned(), about.level().as_str().to_ascii_lowercase().into());
    head.insert("target".to_owned(), about.target().into());
    head
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = match field.name() {
            taken @ ("timestamp" | "level" | "target") => format!("{taken}_"),
            name => name.to_owned(),
        };
        self.0.insert(name, value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let shown = write!(text, "{value:?}");
        self.put(field, if shown.is_ok() { text.into() } else { Value::Null });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: Level, events: impl FnOnce()) -> Vec<Value> {
        let kept = Kept::default();
        let writer = kept.clone();
        tracing::subscriber::with_default(subscriber(level, move || writer.clone()), events);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn an_event_is_one_json_line_with_its_fields_at_the_top() {
        let error = io::Error::other("disk \"a\"\nfull");
        let lines = logged(Level::Info, || {
            tracing::warn!(bytes = 7_u64, ratio = 0.5, ok = true, %error, level = "x", "no\nroom");
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(line["level"], "warn");
        assert_eq!(line["level_"], "x");
        assert_eq!(line["message"], "no\nroom");
        assert_eq!(line["bytes"], 7);
        assert_eq!((&line["ratio"], &line["ok"]), (&Value::from(0.5), &Value::from(true)));
        assert_eq!(line["error"], "disk \"a\"\nfull");
        assert_eq!(line["target"], "blackhole_node::telemetry::json_subscriber::tests");
        let time = line["timestamp"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok() && time.len() == 27, "{time}");
    }

    #[test]
    fn libraries_are_heard_only_when_they_warn() {
        let lines = logged(Level::Trace, || {
            tracing::trace!("own");
            tracing::info!(target: "h2::frame", "chatter");
            tracing::warn!(target: "h2::frame", "trouble");
        });
        let messages: Vec<_> = lines.iter().map(|line| line["message"].clone()).collect();
        assert_eq!(messages, ["own", "trouble"]);
    }
}
