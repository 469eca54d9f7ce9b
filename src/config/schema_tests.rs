//! The schema and the loader agree on what a key may be.

use jsonschema::Validator;
use serde_json::Value;

use super::seed_tests::seed;
use super::tests::{everything_active, load_named, load_text};
use super::*;

fn validator() -> Validator {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{error}"));
    jsonschema::draft202012::new(&schema).unwrap()
}

fn json(toml: &str) -> Value {
    let table: toml::Table = toml.parse().unwrap_or_else(|error| panic!("{error}\n{toml}"));
    serde_json::to_value(table).unwrap()
}

#[track_caller]
fn is_taken(validator: &Validator, toml: &str) {
    let told: Vec<String> =
        validator.iter_errors(&json(toml)).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[test]
fn the_documented_file_and_the_examples_are_valid() {
    let validator = validator();
    is_taken(&validator, "");
    is_taken(&validator, DEFAULTS);
    is_taken(&validator, &everything_active());
    is_taken(&validator, &show(&load_text(&everything_active()).unwrap()));
    let mut examples = 0;
    for entry in std::fs::read_dir("examples").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            is_taken(&validator, &std::fs::read_to_string(path).unwrap());
            examples += 1;
        }
    }
    assert!(examples > 0);
}

#[test]
fn both_spellings_of_a_key_are_known_and_every_key_is_described() {
    let camel = "api.httpPort = 1\nprocessManagement.healthChecks.unhealthyThreshold = 2\n\
                 services.web = { command = ['x'], readyPort = 5, resources.cpuCores = 0.5 }\n\
                 network.listenAddrs = []\napi.rateLimit.requestsPerMinute = 5\n";
    is_taken(&validator(), camel);
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    let mut without = Vec::new();
    undescribed(&schema, "", &mut without);
    // These sections are what their names and their keys say.
    let tiers = ["tiers.best_effort", "tiers.production", "tiers.standard"];
    without.retain(|path| path.contains('.') && !tiers.contains(&path.as_str()));
    without.retain(|path| path.matches('.').count() != 1 || !path.starts_with("services."));
    assert_eq!(without, Vec::<String>::new());
}

fn undescribed(schema: &Value, section: &str, into: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (key, inner) in properties.iter().filter(|(_, inner)| inner.get("$ref").is_none()) {
        let path = report::path(section, key);
        if inner.get("description").is_none() {
            into.push(path.clone());
        }
        undescribed(inner, &path, into);
    }
}

const MISTAKES: &[&str] = &[
    "api.http_port = 70000",
    "api.http_port = '80'",
    "api.http_port = 0.5",
    "api.http_port = true",
    "api.http_prot = 80",
    "api = 5",
    "colour = 'red'",
    "api.address = 'localhost'",
    "api.grpc_port = 0",
    "api.rate_limit.requests_per_minute = 0",
    "node.name = 'has space'",
    "node.name = ''",
    "node.data_dir = 'relative'",
    "node.data_dir = '/a/../b'",
    "process_management.supervisor.restart_policy = 'sometimes'",
    "process_management.supervisor.backoff = 'linear'",
    "process_management.supervisor.max_restarts = -1",
    "process_management.health_checks.interval = 5",
    "process_management.health_checks.interval = '5'",
    "process_management.health_checks.interval = '-5s'",
    "process_management.health_checks.interval = '5 parsecs'",
    "process_management.health_checks.interval = ''",
    "monitoring.log_level = 'loud'",
    "monitoring.tracing_endpoint = 'jaeger:14268'",
    "monitoring.log_aggregation.enabled = 'yes'",
    "network.listen_addrs = '/ip4/0.0.0.0/tcp/1'",
    "network.listen_addrs = ['4001']",
    "tiers.standard.cpu_weight = 0",
    "tiers.gold.cpu_weight = 5",
    "resources.memory = 'lots'",
    "services.storage.enabled = 'yes'",
    "services.storage.instances = 0",
    "services.storage.port = 'any'",
    "services.storage.tier = 'first'",
    "services.storage.unix_socket = 'x.sock'",
    "services.storage.command = ['x']",
    "services.storage.max_block = '4 apples'",
    "services.storage.max_entry = '1MiB'",
    "services.storage.depends_on = 'identity'",
    "services.storage.depends_on = ['Not A Name']",
    "services.storage.resources.memory = 'many'",
    "services.storage.resources.memory = 5",
    "services.storage.resources.cpu_cores = 0",
    "services.storage.resources.cpu_cores = 'half'",
    "services.storage.resources.cpu_seconds = 0",
    "services.storage.resources.max_files = 1",
    "services.storage.resources.memory_high = -1",
    "services.storage.resources.oom_group = 'yes'",
    "services.storage.resources.cpu_weight = 0",
    "services.storage.resources.io_weight = 10001",
    "node.resource_limits = 'some'",
    "services.storage.logs.rate = -1",
    "services.ledger.resources.disk = '1GB'",
    "services.gateway.port = 5",
    "services.analytics.enabled = true",
    "services.analytics.port = 5",
    "services.web.enabled = true",
    "services.'memory.max'.command = ['x']",
    "services.supervisor.command = ['x']",
    "services.'.control'.command = ['x']",
    "services.'../x'.command = ['x']",
    "services.web-1.command = ['x']",
    "services.'ü'.command = ['x']",
    "services.web.command = 'x'",
    "services.web.command = []",
    "services.web.command = [5]",
];

/// Beside the command of a foreign program.
const MISTAKES_OF_PROGRAMS: &[&str] = &[
    "readiness = 'soon'",
    "ready_port = 0",
    "fd_store_max = 65",
    "notify_access = 'some'",
    "working_directory = 'x'",
    "shared_socket = 1",
    "max_block = '1MiB'",
    "environment = { '1A' = 'x' }",
    "environment = { LISTEN_FDS = 'x' }",
    "environment = { A = 5 }",
];

/// Reliability 80: what is wrong in its form is wrong for both.
#[test]
fn what_the_loader_refuses_for_its_form_the_schema_refuses() {
    let web = "services.web = { command = ['x'], ";
    let validator = validator();
    let all = MISTAKES.iter().map(ToString::to_string);
    for text in all.chain(MISTAKES_OF_PROGRAMS.iter().map(|key| format!("{web}{key} }}"))) {
        assert!(load_text(&text).is_err(), "the loader takes {text}");
        assert!(!validator.is_valid(&json(&text)), "the schema takes {text}");
    }
}

#[test]
fn the_schema_takes_the_seeds_own_file_once_it_is_mended() {
    let Some(text) = seed() else { return };
    let mended =
        text.replace("/quic/4001", "/udp/4001/quic-v1").replace("wsPort: 8081", "wsPort: 1");
    let loaded = load_named("seed.yaml", &mended).unwrap();
    is_taken(&validator(), &show(&loaded));
}
