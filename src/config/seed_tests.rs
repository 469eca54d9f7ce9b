//! The keys of the seed's own configuration, each with its meaning, and that configuration itself.

use std::path::Path;

use super::tests::{load_named, load_text};
use super::*;

const SEED: &str = "../shared/seed/node-core-architecture.md";

/// The YAML block of the seed's page; none where the page is not there.
pub(super) fn seed() -> Option<String> {
    let Ok(page) = std::fs::read_to_string(SEED) else {
        eprintln!("skipped: there is no {SEED}");
        return None;
    };
    let start = page.find("# blackhole.yaml").unwrap();
    let block = &page[start..];
    Some(block[..block.find("```").unwrap()].to_owned())
}

#[track_caller]
fn loaded(text: &str) -> Loaded {
    load_text(text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn remarks(loaded: &Loaded) -> Vec<String> {
    loaded.remarks.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn refusal(text: &str) -> String {
    load_text(text).expect_err("this has to be refused").to_string()
}

/// Reliability 80: the sample of the seed has 8081 twice.
#[test]
fn the_seeds_own_file_has_exactly_its_real_mistakes() {
    let Some(text) = seed() else { return };
    let refused = load_named("seed.yaml", &text).unwrap_err().to_string();
    let expected = [
        "seed.yaml:22:7: network.listen_addrs = \"/ip4/0.0.0.0/quic/4001\": this is not a \
         multiaddr; allowed: /ip4/ADDRESS/tcp/PORT or /ip4/ADDRESS/udp/PORT/quic-v1, or the same \
         with ip6; did you mean \"/ip4/0.0.0.0/udp/4001/quic-v1\"?",
        "seed.yaml:74:11: api.ws_port = 8081: services.identity.port (seed.yaml:29:11) has the \
         same port; allowed: a port of its own for each",
    ];
    assert_eq!(refused.lines().collect::<Vec<_>>(), expected);
    // Wanted, a service of a later version is the third.
    let wanted = text.replace("enabled: false  # Optional", "enabled: true  # Optional");
    let refused = load_named("seed.yaml", &wanted).unwrap_err().to_string();
    assert_eq!(refused.lines().count(), 3, "{refused}");
    let analytics = "services.analytics: this service is not in this version";
    assert!(refused.contains(analytics), "{refused}");
}

#[test]
fn the_seeds_own_file_means_what_it_says_once_it_is_mended() {
    let Some(text) = seed() else { return };
    let mended =
        text.replace("/quic/4001", "/udp/4001/quic-v1").replace("wsPort: 8081", "wsPort: 9092");
    let loaded = load_named("seed.yaml", &mended).unwrap_or_else(|errors| panic!("{errors}"));
    let config = &loaded.config;
    assert_eq!(config.supervisor.restart_policy, RestartPolicy::Always);
    assert_eq!(config.supervisor.backoff, Backoff::Exponential);
    assert_eq!((config.api.grpc_port, config.api.ws_port), (Some(9090), Some(9092)));
    assert_eq!(config.monitoring.metrics_port, Some(9091));
    assert_eq!(config.network.bootstrap_peers.len(), 1);
    assert_eq!(config.api.rate_limit.requests_per_minute, Some(1000));
    let ledger = &config.services[&"ledger".parse().unwrap()];
    assert_eq!((ledger.port, ledger.restart_policy), (Some(8083), RestartPolicy::OnFailure));
    assert_eq!(ledger.resources.cpu_seconds, Some(3600));
    assert_eq!(ledger.unix_socket.as_deref(), Some(Path::new("/tmp/blackhole-ledger.sock")));
    assert!(config.services.keys().all(|name| name.as_str() != "analytics"));
    let told = remarks(&loaded);
    let keys: Vec<&str> = told.iter().filter_map(|remark| remark.split(": ").nth(1)).collect();
    let expected = [
        "process_management.supervisor.check_interval",
        "network.listen_addrs",
        "network.bootstrap_peers",
        "services.identity.unix_socket",
        "services.identity.resources.cpu_seconds",
        "services.storage.unix_socket",
        "services.storage.resources.cpu_seconds",
        "services.ledger.unix_socket",
        "services.ledger.resources.cpu_seconds",
        "services.analytics",
        "api.rate_limit.enabled",
        "api.rate_limit.requests_per_minute",
        "monitoring.tracing_endpoint",
    ];
    assert_eq!(keys, expected, "{told:#?}");
}

#[test]
fn what_is_read_and_not_in_force_is_told_where_it_was_written_and_only_there() {
    let text = "[process_management.supervisor]\ncheckInterval = '5s'\n[network]\n\
                listenAddrs = ['/ip4/0.0.0.0/tcp/0']\n[api.rateLimit]\nrequestsPerMinute = 5\n";
    let expected = [
        "node.toml:2:1: process_management.supervisor.check_interval: has no effect: the kernel \
         tells at once when a process ends, and nothing is polled",
        "node.toml:4:1: network.listen_addrs: is not in force in this version",
        "node.toml:6:1: api.rate_limit.requests_per_minute: is not in force in this version",
    ];
    assert_eq!(remarks(&loaded(text)), expected);
    assert!(refusal(&text.replace("'5s'", "'0s'")).contains(":2:17: "));
}

#[test]
fn the_back_off_has_a_key_of_its_own_which_the_seed_writes_as_a_policy() {
    let of = |text: &str| {
        let loaded = loaded(&format!("[process_management.supervisor]\n{text}\n"));
        let Supervisor { restart_policy, backoff, .. } = loaded.config.supervisor;
        (restart_policy, backoff, remarks(&loaded).len())
    };
    let (always, exponential) = (RestartPolicy::Always, Backoff::Exponential);
    assert_eq!(of(""), (always, exponential, 0));
    assert_eq!(of("restart_policy = 'exponential_backoff'"), (always, exponential, 0));
    let both = "restart_policy = 'exponential_backoff'\nbackoff = 'exponential'";
    assert_eq!(of(both), (always, exponential, 0));
    let constant = "restart_policy = 'on_failure'\nbackoff = 'constant'\nbackoff_initial = '2m'";
    assert_eq!(of(constant), (RestartPolicy::OnFailure, Backoff::Constant, 0));
    assert_eq!(of("backoff = 'constant'\nbackoff_max = '9s'"), (always, Backoff::Constant, 1));
    let clash = "[process_management.supervisor]\nrestart_policy = 'exponential_backoff'\n\
                 backoff = 'constant'\n";
    assert!(refusal(clash).starts_with("node.toml:3:11: process_management.supervisor.backoff: "));
}

#[test]
fn the_size_of_the_log_buffer_has_two_names_and_one_value() {
    let lines = |text: &str| loaded(&format!("[monitoring]\n{text}\n")).config.monitoring;
    assert_eq!(lines("logAggregation.bufferSize = 500").kept_lines(), 500);
    assert_eq!(
        lines("log_aggregation.buffer_size = 500\nlog_buffer_lines = 500").kept_lines(),
        500
    );
    assert_eq!(lines("log_aggregation.enabled = false").kept_lines(), 0);
    let shown = show(&loaded("[monitoring]\nlog_aggregation.buffer_size = 500\n"));
    assert!(shown.contains("log_buffer_lines = 500  # node.toml:2:17\n"), "{shown}");
    let two = "[monitoring]\nlog_aggregation.buffer_size = 500\nlog_buffer_lines = 600\n";
    let expected = "node.toml:3:20: monitoring.log_buffer_lines: log_buffer_lines is 600 and \
                    log_aggregation.buffer_size 500; allowed: one of the two";
    assert_eq!(refusal(two), expected);
    assert!(refusal("[monitoring.log_aggregation]\nbuffer_size = 99\n").contains("out of range"));
}

#[test]
fn the_gateway_has_its_ports_and_no_other_service_key_for_them() {
    let text = "[services.gateway]\nport = 1\nunix_socket = '/x'\n";
    let expected = [
        "node.toml:2:1: services.gateway.port: the gateway's ports are those of [api]",
        "node.toml:3:1: services.gateway.unix_socket: the gateway offers nothing on a socket file",
    ];
    assert_eq!(refusal(text).lines().collect::<Vec<_>>(), expected);
    for key in ["api.grpc_port", "api.ws_port", "monitoring.metrics_port", "services.ledger.port"] {
        assert!(refusal(&format!("{key} = 0\n")).contains("from 1 to 65535"), "{key}");
        loaded(&format!("{key} = 'none'\n"));
    }
}

#[test]
fn a_place_for_the_shared_socket_of_a_foreign_program_implies_the_socket() {
    let with = |more: &str| format!("[services.a]\ncommand = ['x']\n{more}\n");
    let shared = |more: &str| {
        let config = loaded(&with(more)).config;
        config.services[&"a".parse().unwrap()].shared_socket
    };
    assert!(!shared("") && shared("unix_socket = '/run/a.sock'"));
    let clash = with("unix_socket = '/run/a.sock'\nshared_socket = false");
    assert!(refusal(&clash).starts_with("node.toml:4:17: services.a.shared_socket: unix_socket"));
}

#[test]
fn a_socket_where_everybody_can_make_files_is_taken_with_a_remark() {
    let told = |path: &str| {
        remarks(&loaded(&format!("[services.storage]\nunix_socket = '{path}'\n"))).join("\n")
    };
    for shared in ["/tmp/a.sock", "/var/tmp/a.sock", "/dev/shm/a/b.sock"] {
        let told = told(shared);
        assert!(
            told.starts_with("node.toml:2:1: services.storage.unix_socket: everybody"),
            "{told}"
        );
    }
    assert_eq!(told("/srv/tmp/a.sock"), "");
}

#[test]
fn a_limit_of_processor_time_is_taken_with_what_it_means() {
    let told = |name: &str| {
        let text = format!(
            "[services.{name}]\n{}resources.cpu_seconds = 3600\n",
            if name == "web" { "command = ['x']\n" } else { "" }
        );
        remarks(&loaded(&text)).join("\n")
    };
    assert!(told("storage").contains("finishes what it is doing, ends, and is started again"));
    assert!(told("web").contains("sent SIGXCPU, of which it dies unless it catches it"));
    assert!(refusal("[services.storage.resources]\ncpu_seconds = 0\n").contains("out of range"));
}

#[test]
fn a_tier_has_a_weight_and_a_service_a_tier() {
    let text = "[tiers.bestEffort]\ncpuWeight = 3\n[services.storage]\ntier = 'best_effort'\n";
    let config = loaded(text).config;
    let tier = |name: &str| config.services[&name.parse().unwrap()].tier;
    let weight = |name| config.tiers.rules(tier(name)).cpu_weight;
    assert_eq!((weight("storage"), weight("ledger")), (3, 100));
    assert!(refusal("[tiers.standard]\ncpu_weight = 0\n").contains("from 1 to 10000"));
    assert!(refusal("[tiers.standart]\ncpu_weight = 1\n").contains("did you mean \"standard\"?"));
}

/// Reliability 79: a file with ten different mistakes reports ten.
#[test]
fn ten_mistakes_in_the_seeds_keys_are_ten_problems() {
    let text = "\
network:
  listenAddrs: [\"/ip4/0.0.0.0/quic/4001\"]
  bootstrapPeers: [nobody]
process_management:
  supervisor: {restart_policy: exponential, check_interval: -5s}
services:
  identity: {port: 8081, unix_socket: relative.sock}
  storage: {resources: {cpu_seconds: 0, memory: lots}}
api: {wsPort: 8081, rateLimit: {requestsPerMinute: 0}}
monitoring: {tracingEndpoint: jaeger}
";
    let refused = load_named("ten.yaml", text).unwrap_err();
    let places: Vec<String> = refused.problems().iter().map(|p| p.place.to_string()).collect();
    let expected =
        ["2:17", "3:20", "5:32", "5:61", "7:39", "8:38", "8:49", "9:15", "9:52", "10:31"];
    let expected: Vec<String> = expected.iter().map(|at| format!("ten.yaml:{at}")).collect();
    assert_eq!(places, expected, "{refused}");
}
