//! The page `/metrics` in the OpenMetrics text format, which Prometheus reads since 2.5. Names of
//! metrics and labels are stable.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::instance_health::InstanceHealth;
use super::status_feed::Snapshot;
use crate::rpc::pb::node::{InstancePhase, InstanceStatus, NodePhase};

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The number of responses, by page and status code.
type Counts = BTreeMap<(&'static str, u16), u64>;

/// The gateway's own metrics.
#[derive(Debug, Default)]
pub struct Requests(Mutex<Counts>);

impl Requests {
    /// `page` is one of a few names, never a client's text: each value becomes a time series.
    pub fn count(&self, page: &'static str, code: u16) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((page, code)).or_default() +=
            1;
    }

    fn so_far(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The page. Without a snapshot it has the gateway's own metrics only.
pub fn page(snapshot: Option<Arc<Snapshot>>, requests: &Requests) -> String {
    let mut registry = Registry::with_prefix("blackhole");
    registry.register_collector(Box::new(Scrape { snapshot, requests: requests.so_far() }));
    let mut page = String::new();
    text::encode(&mut page, &registry).expect("a String takes every text");
    page
}

#[derive(Debug)]
struct Scrape {
    snapshot: Option<Arc<Snapshot>>,
    requests: Counts,
}

/// A metric of each instance for which `value` gives one.
struct PerInstance<T> {
    name: &'static str,
    help: &'static str,
    value: fn(&InstanceStatus) -> Option<T>,
}

/// The encoder adds `_total` to these names.
const COUNTERS: [PerInstance<u64>; 7] = [
    PerInstance {
        name: "instance_restarts",
        help: "Restarts of the instance since the node started",
        value: |instance| Some(instance.restarts),
    },
    PerInstance {
        name: "instance_log_lines_dropped",
        help: "Log lines of the service dropped since the node started",
        value: |instance| Some(instance.log_lines_dropped),
    },
    PerInstance {
        name: "instance_oom_kills",
        help: "Times that the instance was killed for want of memory since the node started",
        value: |instance| Some(instance.limit_events?.oom_kills),
    },
    PerInstance {
        name: "instance_memory_max_events",
        help: "Times the memory of the instance was about to go over its limit",
        value: |instance| Some(instance.limit_events?.memory_max),
    },
    PerInstance {
        name: "instance_memory_high_events",
        help: "Times the instance was slowed down for being over memory_high",
        value: |instance| Some(instance.limit_events?.memory_high),
    },
    PerInstance {
        name: "instance_tasks_max_events",
        help: "Forks of the instance that max_tasks refused",
        value: |instance| Some(instance.limit_events?.tasks_max),
    },
    PerInstance {
        name: "instance_cpu_throttled_periods",
        help: "Periods in which the instance had used up its cpu_cores before the end",
        value: |instance| Some(instance.limit_events?.cpu_throttled_periods),
    },
];

/// Counters that are no whole numbers.
const TIMES: [PerInstance<f64>; 1] = [PerInstance {
    name: "instance_cpu_throttled_seconds",
    help: "Time for which cpu_cores held the instance back since the node started",
    value: |instance| Some(instance.limit_events?.cpu_throttled_seconds),
}];

const GAUGES: [PerInstance<f64>; 6] = [
    PerInstance {
        name: "instance_up",
        help: "1 while the instance is ready and its health checks do not fail",
        value: |instance| Some(one_if(InstanceHealth::of(instance).serves())),
    },
    PerInstance {
        name: "instance_memory_bytes",
        help: "Memory that the instance uses",
        value: |instance| Some(instance.memory_bytes as f64),
    },
    PerInstance {
        name: "instance_memory_limit_bytes",
        help: "Memory that the instance may use, where it is limited",
        value: |instance| match instance.memory_limit_bytes {
            0 => None,
            limit => Some(limit as f64),
        },
    },
    PerInstance {
        name: "instance_cpu_percent",
        help: "Processor time that the instance uses, in percent of one processor",
        value: |instance| Some(instance.cpu_percent),
    },
    PerInstance {
        name: "instance_uptime_seconds",
        help: "Time since the process of the instance started",
        value: |instance| Some(instance.uptime_seconds),
    },
    PerInstance {
        name: "instance_tasks",
        help: "Processes and threads of the instance",
        value: |instance| Some(instance.tasks as f64),
    },
];

fn one_if(fact: bool) -> f64 {
    f64::from(u8::from(fact))
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut lines = Lines(encoder);
        if let Some(snapshot) = &self.snapshot {
            node(&mut lines, snapshot)?;
            instances(&mut lines, &snapshot.instances)?;
        }
        let up_to_date = ConstGauge::new(one_if(self.snapshot.is_some()));
        let help = "1 when the orchestrator answered for this page";
        lines.one("gateway_up_to_date", help, up_to_date)?;
        let help = "HTTP requests answered, by page and status code";
        let answered = self.requests.iter().map(|((page, code), count)| {
            ([("path", (*page).to_owned()), ("code", code.to_string())], ConstCounter::new(*count))
        });
        lines.family("gateway_http_requests", help, MetricType::Counter, answered)
    }
}

/// Writes one metric after the other.
struct Lines<'a>(DescriptorEncoder<'a>);

impl Lines<'_> {
    fn one(&mut self, name: &str, help: &str, value: impl EncodeMetric) -> fmt::Result {
        value.encode(self.0.encode_descriptor(name, help, None, value.metric_type())?)
    }

    fn family<L: EncodeLabelSet, V: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl Iterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            value.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn node(lines: &mut Lines<'_>, snapshot: &Snapshot) -> fmt::Result {
    let node = &snapshot.node;
    let labels = [("version", node.version.as_str()), ("name", node.name.as_str())];
    let help = "The node's version and name";
    // The encoder adds `_info`.
    let mut info = lines.0.encode_descriptor("node", help, None, MetricType::Info)?;
    info.encode_info(&labels)?;
    let help = "Time since the node started";
    lines.one("node_uptime_seconds", help, ConstGauge::new(node.uptime_seconds))?;
    let help = "1 while the node is in its phase ready";
    lines.one(
        "node_ready",
        help,
        ConstGauge::new(one_if(node.known_phase() == Some(NodePhase::Ready))),
    )
}

fn instances(lines: &mut Lines<'_>, instances: &[InstanceStatus]) -> fmt::Result {
    for PerInstance { name, help, value } in COUNTERS {
        let values =
            instances.iter().filter_map(|i| Some((labels(i), ConstCounter::new(value(i)?))));
        lines.family(name, help, MetricType::Counter, values)?;
    }
    for PerInstance { name, help, value } in TIMES {
        let values =
            instances.iter().filter_map(|i| Some((labels(i), ConstCounter::new(value(i)?))));
        lines.family(name, help, MetricType::Counter, values)?;
    }
    for PerInstance { name, help, value } in GAUGES {
        let values = instances.iter().filter_map(|i| Some((labels(i), ConstGauge::new(value(i)?))));
        lines.family(name, help, MetricType::Gauge, values)?;
    }
    let phases = instances.iter().flat_map(|instance| {
        InstancePhase::ALL.map(|phase| {
            let [service, name] = labels(instance);
            let is = instance.known_phase() == Some(phase);
            ([service, name, ("phase", phase.word())], ConstGauge::new(one_if(is)))
        })
    });
    let help = "1 for the phase that the instance is in, 0 for every other";
    lines.family("instance_phase", help, MetricType::Gauge, phases)
}

fn labels(instance: &InstanceStatus) -> [(&str, &str); 2] {
    [("service", &instance.service), ("instance", &instance.instance)]
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
pub mod tests;
