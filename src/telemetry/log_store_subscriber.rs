//! Events that libraries in the orchestrator emit through `tracing` become lines of the node. Knows
//! no library in particular.

use std::fmt::Debug;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::subscriber::SetGlobalDefaultError;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::log_store::LogStore;
use crate::units::Level;

/// Sends the events of this process to the log store, which drops those below its level; of
/// libraries, only warnings and errors. Fails if the process already has a subscriber.
pub fn install(log_store: LogStore) -> Result<(), SetGlobalDefaultError> {
    tracing::subscriber::set_global_default(subscriber(log_store))
}

fn subscriber(log_store: LogStore) -> impl Subscriber + Send + Sync {
    let filter = Targets::new()
        .with_default(tracing::Level::WARN)
        .with_target("blackhole_node", tracing::Level::TRACE);
    tracing_subscriber::registry().with(LogStoreLayer { log_store }.with_filter(filter))
}

struct LogStoreLayer {
    log_store: LogStore,
}

impl<S: Subscriber> Layer<S> for LogStoreLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let metadata = event.metadata();
        line.fields.push(("target", metadata.target().into()));
        self.log_store.node_line(node_level(*metadata.level()), &line.message, &line.fields);
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Line {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

fn node_level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::TRACE => Level::Trace,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::INFO => Level::Info,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::ERROR => Level::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::fixed::FixedClock;
    use super::super::log_store::tests::{ALL, log_store};
    use super::*;

    #[test]
    fn events_of_libraries_become_lines_of_the_node_from_warn_on() {
        let log_store = log_store(&FixedClock::new());
        tracing::subscriber::with_default(subscriber(log_store.clone()), || {
            tracing::info!(target: "h2", "noise");
            tracing::warn!(target: "h2", peer = 7, open = true, "connection {}", "lost");
            tracing::info!(target: "blackhole_node::node", name = "x\"y", "ready");
            tracing::debug!(target: "blackhole_node::node", "too fine");
        });
        let seen = log_store.query(ALL);
        let shown: Vec<_> = seen.iter().map(|r| (r.level, r.message.as_str())).collect();
        assert_eq!(shown, [(Level::Warn, "connection lost"), (Level::Info, "ready")]);
        let fields = &seen[0].fields;
        assert_eq!((fields["peer"].as_str(), fields["open"].as_str()), ("7", "true"));
        assert_eq!(fields["target"], "\"h2\"");
        assert_eq!(seen[1].fields["name"], r#""x\"y""#);
    }
}
