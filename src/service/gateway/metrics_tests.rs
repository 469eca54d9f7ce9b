//! The lines of `/metrics`.

use super::super::testing::{failed, ready, snapshot};
use super::*;

/// Every line is a comment or `name{label="value",...} number`; the last is `# EOF`.
pub fn assert_well_formed(page: &str) {
    assert!(page.ends_with("\n# EOF\n"), "{page}");
    for line in page.lines().filter(|line| !line.starts_with("# ")) {
        let (series, value) = line.rsplit_once(' ').expect(line);
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(name.starts_with("blackhole_"), "{line}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b)));
        assert_eq!(unlabelled(labels), "}", "{line}");
    }
}

/// What is left behind the last of `key="value",...`.
fn unlabelled(mut labels: &str) -> &str {
    while let Some((key, rest)) = labels.split_once("=\"") {
        assert!(key.bytes().all(|b| b.is_ascii_lowercase()), "{key}");
        let mut escaped = false;
        let end = rest.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        labels = &rest[end.expect(rest) + 1..];
        labels = labels.strip_prefix(',').unwrap_or(labels);
    }
    labels
}

fn full_page() -> String {
    let requests = Requests::default();
    requests.count("/health", 200);
    requests.count("/health", 200);
    requests.count("other", 404);
    let snapshot = snapshot(vec![ready("storage-0"), failed("web-0")], &[]);
    page(Some(Arc::new(snapshot)), &requests)
}

#[test]
fn every_promised_metric_is_there() {
    let page = full_page();
    assert_well_formed(&page);
    let storage = r#"{service="storage",instance="storage-0"}"#;
    let web = r#"{service="web",instance="web-0"}"#;
    let expected = [
        r#"blackhole_node_info{version="0.1.0",name="alpha"} 1"#.to_owned(),
        "blackhole_node_uptime_seconds 88500.7".to_owned(),
        "blackhole_node_ready 1.0".to_owned(),
        "blackhole_gateway_up_to_date 1.0".to_owned(),
        r#"blackhole_gateway_http_requests_total{path="/health",code="200"} 2"#.to_owned(),
        r#"blackhole_gateway_http_requests_total{path="other",code="404"} 1"#.to_owned(),
        format!("blackhole_instance_up{storage} 1.0"),
        format!("blackhole_instance_up{web} 0.0"),
        format!("blackhole_instance_restarts_total{storage} 1"),
        format!("blackhole_instance_memory_bytes{storage} 256901120.0"),
        format!("blackhole_instance_memory_limit_bytes{storage} 536870912.0"),
        format!("blackhole_instance_cpu_percent{storage} 5.04"),
        format!("blackhole_instance_uptime_seconds{storage} 60.5"),
        format!("blackhole_instance_tasks{storage} 12.0"),
        format!("blackhole_instance_log_lines_dropped_total{storage} 3"),
        format!("blackhole_instance_oom_kills_total{storage} 2"),
        format!("blackhole_instance_memory_max_events_total{storage} 7"),
        format!("blackhole_instance_memory_high_events_total{storage} 5"),
        format!("blackhole_instance_tasks_max_events_total{storage} 4"),
        format!("blackhole_instance_cpu_throttled_periods_total{storage} 31"),
        format!("blackhole_instance_cpu_throttled_seconds_total{storage} 1.5"),
    ];
    for line in expected {
        assert!(page.lines().any(|has| has == line), "{line} is not in\n{page}");
    }
}

#[test]
fn a_limit_is_told_only_where_there_is_one() {
    let page = full_page();
    let limits = page.lines().filter(|l| l.starts_with("blackhole_instance_memory_limit_bytes{"));
    assert_eq!(limits.count(), 1);
}

#[test]
fn exactly_one_phase_of_an_instance_is_1() {
    let page = full_page();
    let phases = page.lines().filter(|line| line.starts_with("blackhole_instance_phase{"));
    let (on, off): (Vec<_>, Vec<_>) = phases.partition(|line| line.ends_with(" 1.0"));
    assert_eq!(off.len(), 12);
    let expected = [
        r#"blackhole_instance_phase{service="storage",instance="storage-0",phase="ready"} 1.0"#,
        r#"blackhole_instance_phase{service="web",instance="web-0",phase="failed"} 1.0"#,
    ];
    assert_eq!(on, expected);
}

#[test]
fn every_metric_is_described_once_before_its_lines() {
    let page = full_page();
    let types: Vec<_> = page.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let expected = [
        "# TYPE blackhole_node info",
        "# TYPE blackhole_node_uptime_seconds gauge",
        "# TYPE blackhole_node_ready gauge",
        "# TYPE blackhole_instance_restarts counter",
        "# TYPE blackhole_instance_log_lines_dropped counter",
        "# TYPE blackhole_instance_oom_kills counter",
        "# TYPE blackhole_instance_memory_max_events counter",
        "# TYPE blackhole_instance_memory_high_events counter",
        "# TYPE blackhole_instance_tasks_max_events counter",
        "# TYPE blackhole_instance_cpu_throttled_periods counter",
        "# TYPE blackhole_instance_cpu_throttled_seconds counter",
        "# TYPE blackhole_instance_up gauge",
        "# TYPE blackhole_instance_memory_bytes gauge",
        "# TYPE blackhole_instance_memory_limit_bytes gauge",
        "# TYPE blackhole_instance_cpu_percent gauge",
        "# TYPE blackhole_instance_uptime_seconds gauge",
        "# TYPE blackhole_instance_tasks gauge",
        "# TYPE blackhole_instance_phase gauge",
        "# TYPE blackhole_gateway_up_to_date gauge",
        "# TYPE blackhole_gateway_http_requests counter",
    ];
    assert_eq!(types, expected);
}

#[test]
fn a_name_cannot_break_out_of_its_label() {
    let mut snapshot = snapshot(vec![], &[]);
    snapshot.node.name = "a\"} 1\nevil\\".into();
    let page = page(Some(Arc::new(snapshot)), &Requests::default());
    assert_well_formed(&page);
    assert!(page.contains(r#"name="a\"} 1\nevil\\"} 1"#), "{page}");
}

#[test]
fn without_a_snapshot_only_the_gateway_is_described() {
    let page = page(None, &Requests::default());
    assert_well_formed(&page);
    assert!(page.contains("\nblackhole_gateway_up_to_date 0.0\n"), "{page}");
    assert!(!page.contains("blackhole_node"), "{page}");
}
