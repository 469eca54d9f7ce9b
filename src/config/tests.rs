//! The whole way from sources to a configuration or to what an operator reads about it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::catalog::Builtin;
use crate::units::{ByteSize, ServiceName};

const FILE: &str = "node.toml";

pub(super) fn host() -> HostDefaults {
    HostDefaults {
        node_name: "host-1".to_owned(),
        data_dir: "/var/lib/blackhole".into(),
        runtime_dir: "/run/blackhole".into(),
        memory: Some(ByteSize::gib(8)),
        processors: Some(4),
    }
}

pub(super) fn defaults() -> NodeConfig {
    config("")
}

fn sources<'a>(text: &'a str, sets: &'a [String]) -> Sources<'a> {
    Sources { file: Some((Path::new(FILE), text)), sets, ..Sources::default() }
}

pub(super) fn load_text(text: &str) -> Result<Loaded, ConfigErrors> {
    load_named(FILE, text)
}

pub(super) fn load_named(name: &str, text: &str) -> Result<Loaded, ConfigErrors> {
    load(&Sources { file: Some((Path::new(name), text)), ..Sources::default() }, &host())
}

#[track_caller]
fn config(text: &str) -> NodeConfig {
    load_text(text).unwrap_or_else(|errors| panic!("{errors}")).config
}

fn service(config: &NodeConfig, name: &str) -> Service {
    config.services[&name.parse::<ServiceName>().unwrap()].clone()
}

/// What is wrong with the text, one problem a line.
#[track_caller]
fn refusal(text: &str) -> String {
    load_text(text).expect_err("this has to be refused").to_string()
}

#[track_caller]
fn refusal_of_set(text: &str, sets: &[&str]) -> String {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    load(&sources(text, &sets), &host()).expect_err("this has to be refused").to_string()
}

/// `DEFAULTS` with its examples made active.
pub(super) fn everything_active() -> String {
    let activate = |line: &'static str| {
        let example = line.strip_prefix('#').filter(|rest| !rest.is_empty());
        example.filter(|rest| !rest.starts_with([' ', '#'])).unwrap_or(line)
    };
    DEFAULTS.lines().map(activate).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_documented_file_says_what_holds_anyway() {
    let empty = load(&Sources::default(), &host()).unwrap();
    let documented = load_text(DEFAULTS).unwrap();
    assert_eq!(documented.config, empty.config);
    assert!(empty.remarks.is_empty());
}

#[test]
fn the_defaults_are_those_that_are_promised() {
    let config = config("");
    assert_eq!(config.node.name, "host-1");
    assert_eq!(config.supervisor.max_restarts, 5);
    assert_eq!(config.supervisor.backoff_max, Duration::from_secs(60));
    assert_eq!(config.api.http_port, 8080);
    assert_eq!(config.services.len(), Builtin::ALL.len());
    let storage = service(&config, "storage");
    assert_eq!(storage.resources.memory, Some(ByteSize::gib(2)));
    let sizes = Sizes::from([("max_block", ByteSize::mib(4))]);
    assert_eq!(storage.kind, Kind::Builtin(Builtin::Storage, sizes));
    assert_eq!(storage.depends_on, ["identity".parse().unwrap()]);
}

#[test]
fn every_known_key_is_documented_and_its_example_holds() {
    let text = everything_active();
    let report = Report::default();
    let tree = layers::tree(&sources(&text, &[]), &host(), &report);
    read(&sources(&text, &[]), &host(), &report);
    let general = |path: &str| {
        let parts: Vec<&str> = path.split('.').collect();
        match parts.as_slice() {
            ["services", _, rest @ ..] if !rest.is_empty() => {
                format!("services.NAME.{}", rest.join("."))
            }
            _ => path.to_owned(),
        }
    };
    let mut documented = BTreeSet::new();
    collect_keys(&tree, "", &mut documented);
    let documented: BTreeSet<String> = documented.iter().map(|path| general(path)).collect();
    let known: BTreeSet<String> = report.known().keys().map(|path| general(path)).collect();
    assert_eq!(known.difference(&documented).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(known.contains("services.NAME.watchdog") && known.contains("services.NAME.logs.burst"));
    report.close().unwrap_or_else(|errors| panic!("{errors}"));
}

fn collect_keys(table: &tree::Table, section: &str, into: &mut BTreeSet<String>) {
    for (key, entry) in table.entries() {
        let path = report::path(section, key);
        if let Some(inner) = entry.node.table() {
            collect_keys(inner, &path, into);
        }
        into.insert(path);
    }
}

#[test]
fn the_keys_that_built_in_services_refuse_are_those_of_foreign_programs() {
    let known_with = |text: &str| {
        let report = Report::default();
        read(&sources(text, &[]), &host(), &report);
        report.known().into_keys().collect::<BTreeSet<String>>()
    };
    let foreign = known_with("[services.web]\ncommand = [\"x\"]\n");
    let keys = |name: &str| -> BTreeSet<String> {
        let below = format!("services.{name}.");
        foreign.iter().filter_map(|path| path.strip_prefix(&below)).map(str::to_owned).collect()
    };
    let web = keys("web");
    let identity = keys("identity");
    let only: BTreeSet<&str> = web.difference(&identity).map(String::as_str).collect();
    assert_eq!(only, foreign::KEYS.into_iter().collect());
}

#[test]
fn what_is_shown_loads_to_an_equal_configuration() {
    let other_host = HostDefaults {
        node_name: "x".to_owned(),
        data_dir: "/a".into(),
        runtime_dir: "/b".into(),
        ..host()
    };
    let rich = r#"
        node.resource_limits = "required"
        [process_management.supervisor]
        restart_policy = "on_failure"
        backoff_initial = "1500us"
        [monitoring]
        log_target = "journald"
        log_format = "json"
        [services.identity]
        enabled = false
        restart_policy = "never"
        [services.storage.resources]
        memory = "none"
        disk = 7654321
        cpu_cores = 0.125
        memory_high = "1GiB"
        memory_low = 5
        memory_min = "1B"
        memory_swap = "0B"
        oom_group = false
        cpu_weight = 10000
        io_weight = 1
        [services.web]
        command = ["/bin/x", "a \"b\"\n\u0007ü", '']
        instances = 64
        readiness = "port"
        ready_port = 81
        notify_access = "main"
        working_directory = "/srv/ü"
        environment = { A = "x=y\\", B_2 = "'''" }
        [services.quiet]
        command = ["x"]
        enabled = false
        depends_on = ["identity", "web"]
        watchdog = "1ns 2s"
        readiness = "notify"
        shared_socket = true
    "#;
    for text in [DEFAULTS, &everything_active(), rich] {
        let loaded = load_text(text).unwrap_or_else(|errors| panic!("{errors}"));
        for shown in [show(&loaded), show_written(&loaded)] {
            let again = load(&sources(&shown, &[]), &other_host);
            assert_eq!(
                again.unwrap_or_else(|errors| panic!("{errors}\n{shown}")).config,
                loaded.config
            );
        }
    }
}

#[test]
fn each_value_is_shown_with_the_place_it_comes_from() {
    let file = "[process_management.supervisor]\nmaxRestarts = 7\n[services.web]\n\
                command = ['x']\nenvironment = { dataDir = 'x' }\nlogs.burst = 5\n";
    let sets = ["api.httpPort=9000", "services.ledger.max_restarts=1"].map(str::to_owned);
    let given = Sources { data_dir: Some(Path::new("/d")), ..sources(file, &sets) };
    let loaded = load(&given, &host()).unwrap();
    let shown = show(&loaded);
    for line in [
        "name = \"host-1\"  # default",
        "data_dir = \"/d\"  # --data-dir",
        "http_port = 9000  # --set api.httpPort",
        "command = [\"x\"]  # node.toml:4:1",
        "dataDir = \"x\"  # node.toml:5:17",
        "burst = 5  # node.toml:6:6",
        "max_restarts = 1  # --set services.ledger.max_restarts",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    // The supervisor's own, and every service that takes it from there.
    let inherited = shown.lines().filter(|line| *line == "max_restarts = 7  # node.toml:2:1");
    assert_eq!(inherited.count(), 5, "{shown}");
    let shown: serde_json::Value = serde_json::from_str(&show_json(&loaded)).unwrap();
    let of = |key: &str| (shown[key]["value"].clone(), shown[key]["source"].clone());
    assert_eq!(of("api.http_port"), (9000.into(), "--set api.httpPort".into()));
    assert_eq!(of("services.web.command"), (vec!["x"].into(), "node.toml:4:1".into()));
    assert_eq!(of("services.web.enabled"), (true.into(), "default".into()));
    assert_eq!(of("services.web.resources.memory"), ("none".into(), "default".into()));
}

#[test]
fn a_service_shows_the_place_of_every_value_that_it_takes_from_another_section() {
    let file = "[process_management.supervisor]\nrestart_policy = 'never'\nmax_restarts = 9\n\
                start_timeout = '9s'\nstop_timeout = '9s'\n[monitoring]\nlog_rate = 9\n\
                log_burst = 9\n";
    let loaded = load_text(file).unwrap();
    let plain = load_text("").unwrap();
    let values = |loaded: &Loaded| -> serde_json::Value {
        serde_json::from_str(&show_json(loaded)).unwrap()
    };
    let (loaded, plain) = (values(&loaded), values(&plain));
    for (key, plain) in plain.as_object().unwrap() {
        let is_other = loaded[key]["value"] != plain["value"];
        assert_eq!(is_other, loaded[key]["source"] != "default", "{key}: {}", loaded[key]);
    }
}

#[test]
fn the_name_of_the_file_cannot_end_a_comment() {
    let name = Path::new("a\n[b].toml");
    let file = Some((name, "api.http_port = 1\n"));
    let shown = show(&load(&Sources { file, ..Sources::default() }, &host()).unwrap());
    assert!(shown.contains("http_port = 1  # a\u{fffd}[b].toml:1:5\n"), "{shown}");
    assert_eq!(config(&shown).api.http_port, 1);
}

#[test]
fn ten_mistakes_are_ten_problems_each_at_its_place() {
    let text = r#"[node]
name = "has space"
[process_management.health_checks]
interval = 10
timeout = "5s"
[api]
http_port = 70000
  address = "localhost"
[monitoring]
log_level = "verbose"
[services.storage]
instances = 65
depends_on = ["identty"]
[services.web]
readiness = "notify"
[services.api]
command = ["bin/relative"]
[services.site.environment]
LISTEN_FDS = "3"
"#;
    let errors = load_text(&format!("{text}[services.site]\ncommand = ['x']\n")).unwrap_err();
    let places: Vec<(usize, usize)> = errors
        .problems()
        .iter()
        .map(|problem| match &problem.place {
            Place::File { line, column, .. } => (*line, *column),
            Place::Default | Place::Set { .. } | Place::Option(_) => panic!("{problem}"),
        })
        .collect();
    let expected = [
        (2, 8),
        (4, 12),
        (7, 13),
        (8, 13),
        (10, 13),
        (12, 13),
        (13, 15),
        (14, 11),
        (17, 11),
        (19, 1),
    ];
    assert_eq!(places, expected, "{errors}");
}

/// A text, and what an operator reads about it.
const GOLDEN: [(&str, &str); 11] = [
    (
        "[api]\nhttp_prot = 80\n",
        "node.toml:2:1: api.http_prot: unknown key in [api]; \
         allowed: address, grpc_port, http_port, rate_limit, ws_port; did you mean \"http_port\"?",
    ),
    (
        "log_level = \"debug\"\n",
        "node.toml:1:1: log_level: unknown key at the top of the file; \
         allowed: api, monitoring, network, node, process_management, resources, services, tiers; \
         did you mean \"monitoring.log_level\"?",
    ),
    (
        "[api]\nhttp_port = \"80\"\n",
        "node.toml:2:13: api.http_port = \"80\": a text is not what belongs here; \
         allowed: a whole number from 0 to 65535",
    ),
    (
        "[api]\nhttp_port = 70000\n",
        "node.toml:2:13: api.http_port = 70000: the number is out of range; \
         allowed: a whole number from 0 to 65535",
    ),
    (
        "[services.web]\ncommand = ['x']\nrestart_policy = \"exponential_backoff\"\n",
        "node.toml:3:18: services.web.restart_policy = \"exponential_backoff\": \
         there is no such choice; allowed: \"always\", \"on_failure\", \"never\"",
    ),
    (
        "[process_management.health_checks]\ninterval = 5s\n",
        "node.toml:2:12: this is not TOML: \
         string values must be quoted, expected literal string",
    ),
    (
        "[services.stroage]\nenabled = true\n",
        "node.toml:1:11: services.stroage: \
         there is no built-in service of this name, and it has no command; \
         allowed: command = [\"program\", \"argument\"] for a program, \
         or identity, storage, ledger, gateway; did you mean \"storage\"?",
    ),
    (
        "[services.storage]\ncommand = [\"x\"]\n",
        "node.toml:2:1: services.storage.command: \
         a built-in service has no such key: it is for foreign programs",
    ),
    (
        "[services.analytics]\nenabled = true\n",
        "node.toml:1:1: services.analytics: this service is not in this version; \
         allowed: enabled = false, or leave the section out",
    ),
    (
        "[services.ledger.resources]\ndisk = \"1GB\"\n",
        "node.toml:2:1: services.ledger.resources.disk: \
         only services.storage has this key",
    ),
    (
        "[node]\ndata_dir = \"data\"\n",
        "node.toml:2:12: node.data_dir = \"data\": the path is not absolute; \
         allowed: an absolute path of at most 1024 bytes without \"..\"",
    ),
];

#[test]
fn common_mistakes_read_like_this() {
    for (text, expected) in GOLDEN {
        assert_eq!(refusal(text), expected);
    }
}

#[test]
fn values_that_do_not_go_together_are_refused_where_the_later_one_stands() {
    let health = "[process_management.health_checks]\ntimeout = \"10s\"\n";
    assert!(refusal(health).starts_with(
        "node.toml:2:11: process_management.health_checks.timeout: timeout (10s) is not shorter"
    ));
    let backoff = "[process_management.supervisor]\nbackoff_initial = \"2m\"\n";
    assert!(refusal(backoff).contains("2:19: process_management.supervisor.backoff_initial: "));
    let folders = "[node]\nruntime_dir = \"/x\"\ndata_dir = \"/x/\"\n";
    assert!(
        refusal(folders).contains("3:12: node.data_dir: data_dir and runtime_dir are the same")
    );
    let port = "[services.a]\ncommand = ['x']\nready_port = 5\n";
    assert!(refusal(port).contains("3:14: services.a.ready_port: ready_port means nothing"));
    let watchdog = "[services.a]\ncommand = ['x']\nwatchdog = '5s'\n";
    assert!(refusal(watchdog).contains("3:12: services.a.watchdog: only a service that speaks"));
    let disk = "[services.storage]\nmax_block = '8MiB'\nresources.disk = '7MiB'\n";
    assert!(refusal(disk).contains("resources.disk is less than one of max_block (8MiB)"));
    let missing = "[services.a]\ncommand = ['x']\nreadiness = 'port'\n";
    assert!(refusal(missing).contains("services.a.ready_port: readiness = \"port\" needs"));
}

#[test]
fn a_refused_value_has_no_consequences() {
    let text = "[process_management.health_checks]\ninterval = 3\ntimeout = \"9999s\"\n";
    assert_eq!(refusal(text).lines().count(), 1);
    let text = "[services.a]\ncommand = 5\n[services.b]\ncommand = ['x']\ndepends_on = ['a']\n";
    assert_eq!(refusal(text).lines().count(), 1);
    let text = "[services.web]\ncommand = [\"x\"\n[services.b]\ncommand = ['x']\n";
    assert!(refusal(text).lines().all(|line| line.contains("not TOML")), "{}", refusal(text));
}

#[test]
fn services_that_wait_for_each_other_are_named_as_a_circle() {
    let text = "[services]\na = {command=['x'], depends_on=['b']}\n\
                b = {command=['x'], depends_on=['c']}\nc = {command=['x'], depends_on=['a']}\n";
    let expected = "node.toml:2:33: services.a.depends_on: the services wait for each other: \
                    a -> b -> c -> a; allowed: dependencies without a circle";
    assert_eq!(refusal(text), expected);
    let itself = refusal("[services.a]\ncommand = ['x']\ndepends_on = ['a']\n");
    assert!(
        itself.contains("3:15: services.a.depends_on = \"a\": a service cannot depend on itself")
    );
    let leaders = "[services.a]\ncommand = ['x']\nrestart_with = ['b']\n\
                   [services.b]\ncommand = ['x']\ndepends_on = ['a']\n";
    let expected = "node.toml:3:17: services.a.restart_with: the services wait for each other: \
                    a -> b -> a; allowed: dependencies without a circle";
    assert_eq!(refusal(leaders), expected);
    let through_catalog = refusal("[services.identity]\ndepends_on = ['storage']\n");
    assert!(through_catalog.contains("identity -> storage -> identity"), "{through_catalog}");
}

#[test]
fn dependencies_must_exist_and_be_in_this_version() {
    let text =
        "[services.a]\ncommand = ['x']\ndepends_on = ['storag', 'social', 5, 'ledger', 'ledger']\n";
    let refused = refusal(text);
    let lines: Vec<&str> = refused.lines().collect();
    assert_eq!(lines.len(), 4, "{refused}");
    assert!(
        lines[0].contains("no such service") && lines[0].ends_with("did you mean \"storage\"?")
    );
    assert!(lines[1].contains("= \"social\": this service is not in this version"));
    assert!(lines[2].contains("3:35: services.a.depends_on = 5: a whole number is not"));
    assert!(
        lines[3].contains("3:48: services.a.depends_on = \"ledger\": the service is named twice")
    );
}

#[test]
fn a_dependency_on_a_disabled_service_is_dropped_with_a_remark() {
    let text = "[services.ledger]\nenabled = false\n[services.analytics]\nenabled = false\n";
    let loaded = load_text(text).unwrap();
    let remarks: Vec<String> = loaded.remarks.iter().map(ToString::to_string).collect();
    assert_eq!(
        remarks,
        [
            "node.toml:2:11: services.gateway.depends_on = \"ledger\": ledger is disabled, so that \
             gateway starts without it",
            "node.toml:3:1: services.analytics: this service is not in this version; allowed: \
             nothing else: the section is ignored",
        ]
    );
    let gateway = service(&loaded.config, "gateway");
    assert!(!gateway.depends_on.contains(&"ledger".parse().unwrap()));
    assert!(!loaded.config.services.keys().any(|name| name.as_str() == "analytics"));
}

#[test]
fn a_port_that_two_need_is_refused_with_both_places() {
    let site = "[services.site]\ncommand = ['x']\nreadiness = 'port'\nready_port = 8080\n";
    let expected = "node.toml:4:14: services.site.ready_port = 8080: api.http_port (default) \
                    has the same port; allowed: a port of its own for each";
    assert_eq!(refusal(site), expected);
    let written = format!("{site}[api]\nhttp_port = 8080\n");
    let expected = "node.toml:6:13: api.http_port = 8080: services.site.ready_port \
                    (node.toml:4:14) has the same port; allowed: a port of its own for each";
    assert_eq!(refusal(&written), expected);
    config(&format!("{site}[services.gateway]\nenabled = false\n"));
    config(&format!("{site}[api]\nhttp_port = 0\n"));
}

#[test]
fn a_runtime_dir_is_refused_from_the_first_byte_that_no_socket_fits() {
    // "/notify/" + "identity-63" + "." + 20 digits + ".sock" are 45 bytes.
    let with = |bytes: usize| format!("[node]\nruntime_dir = \"/{}\"\n", "r".repeat(bytes - 1));
    config(&with(107 - 45));
    let refused = refusal(&with(107 - 44));
    assert!(refused.contains("2:15: node.runtime_dir"), "{refused}");
    assert!(refused.contains("108 bytes, and Linux takes 107"), "{refused}");
    assert!(refused.ends_with("allowed: at most 62 bytes with these services"), "{refused}");
}

#[test]
fn set_lies_over_the_file_and_options_over_both() {
    let sets = [
        "api.httpPort=9000",
        "monitoring.log_level=debug",
        "services.web.command=[\"a\",\"b\"]",
        "services.storage.resources.cpu_cores=0.5",
        "node.data_dir=/from/set",
    ]
    .map(str::to_owned);
    let file = "[api]\nhttp_port = 1\n[node]\ndataDir = \"/from/file\"\n";
    let given = Sources { data_dir: Some(Path::new("/from/option")), ..sources(file, &sets) };
    let config = load(&given, &host()).unwrap().config;
    assert_eq!(config.api.http_port, 9000);
    assert_eq!(config.monitoring.log_level, crate::units::Level::Debug);
    assert_eq!(config.node.data_dir, Path::new("/from/option"));
    let Kind::Foreign(web) = service(&config, "web").kind else { panic!("web is foreign") };
    assert_eq!(web.command.arguments, ["b"]);
}

#[test]
fn what_is_wrong_with_a_set_is_told_with_its_key() {
    let refused = refusal_of_set("", &["api.http_port=x", "nonsense", "a..b=1", "api.x.y=1"]);
    let expected = [
        "--set api.http_port: api.http_port = \"x\": a text is not what belongs here; allowed: a \
         whole number from 0 to 65535",
        "--set nonsense: there is no \"=\"; allowed: KEY=VALUE, such as api.http_port=8080",
        "--set a..b: this is not a key; allowed: KEY=VALUE, such as api.http_port=8080",
        "--set api.x.y: api.x: unknown key in [api]; allowed: address, \
         grpc_port, http_port, rate_limit, ws_port",
    ];
    assert_eq!(refused.lines().collect::<Vec<_>>(), expected);
    let refused = refusal_of_set("api = 5\n", &["api.http_port=1"]);
    assert!(refused.contains("--set api.http_port: api.http_port: api is a whole number and has"));
    let deep = format!("{}=1", ["a"; 5000].join("."));
    assert!(refusal_of_set("", &[&deep]).contains("too long"));
}

#[test]
fn both_spellings_of_a_key_are_the_same_key_and_so_not_both_given() {
    let seed = "[node]\ndataDir = \"/d\"\n[api]\nhttpPort = 1\n[monitoring]\nlogLevel = \"warn\"\n";
    let config = config(seed);
    assert_eq!((config.api.http_port, config.node.data_dir.as_path()), (1, Path::new("/d")));
    let expected = "node.toml:3:1: api.httpPort: is given a second time, as \"http_port\"; \
                    allowed: one spelling, best \"http_port\"";
    assert_eq!(refusal("[api]\nhttp_port = 1\nhttpPort = 2\n"), expected);
}

#[test]
fn a_host_that_gives_nonsense_is_told_so() {
    let bad = HostDefaults { node_name: "a b".to_owned(), ..host() };
    let refused = load(&Sources::default(), &bad).unwrap_err().to_string();
    assert!(refused.starts_with("default: node.name = \"a b\": "), "{refused}");
    let relative = Sources { runtime_dir: Some(Path::new("run")), ..Sources::default() };
    let refused = load(&relative, &host()).unwrap_err().to_string();
    assert!(refused.starts_with("--runtime-dir: node.runtime_dir = \"run\": the path is not"));
}

#[test]
fn a_foreign_program_is_held_to_what_can_be_executed() {
    let with = |line: &str| format!("[services.a]\ncommand = ['x']\n{line}\n");
    for wrong in ["[]", "['']", "['bin/x']", "'x'", "['x', 5]", "[\"x\\u0000\"]"] {
        let refused = refusal(&format!("[services.a]\ncommand = {wrong}\n"));
        assert!(refused.starts_with("node.toml:2:11: services.a.command = "), "{refused}");
    }
    for wrong in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "BLACKHOLE_RUN", "1A", "'A=B'", "''"] {
        let refused = refusal(&with(&format!("[services.a.environment]\n{wrong} = 'secret'")));
        assert!(refused.starts_with("node.toml:4:1: services.a.environment."), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
    }
    for wrong in ["fd_store_max = 65", "max_block = '1MiB'", "instances = 65", "ready_port = 0"] {
        let refused = refusal(&with(wrong));
        assert_eq!(refused.lines().count(), 1, "{refused}");
        assert!(refused.starts_with("node.toml:3:"), "{refused}");
    }
}

#[test]
fn a_file_is_read_up_to_its_bound_and_not_beyond() {
    for name in ["node.toml", "node.yaml"] {
        assert!(load_named(name, &"\n".repeat(1 << 20)).is_ok());
        let refused = load_named(name, &"\n".repeat((1 << 20) + 1)).unwrap_err().to_string();
        let what = "the file has 1048577 bytes; allowed: at most 1MiB";
        assert_eq!(refused, format!("{name}:1:1: {what}"));
    }
}

#[test]
fn the_number_of_services_is_bounded() {
    let many = |count: usize| -> String {
        (0..count).map(|n| format!("[services.s{n}]\ncommand = ['x']\n")).collect()
    };
    config(&many(1020));
    assert!(refusal(&many(1021)).contains("more than 1024 services"));
}
