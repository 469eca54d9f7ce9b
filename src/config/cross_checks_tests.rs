//! What can only be judged of the whole: ports, sockets, names, and what the host has.

use std::path::Path;

use super::tests::{host, load_text};
use super::*;
use crate::units::ByteSize;

fn on(host: &HostDefaults, text: &str) -> Result<Loaded, String> {
    let given = Sources { file: Some((Path::new("node.toml"), text)), ..Sources::default() };
    load(&given, host).map_err(|errors| errors.to_string())
}

#[track_caller]
fn refusal(text: &str) -> String {
    load_text(text).expect_err("this has to be refused").to_string()
}

/// Reliability 80: duplicate ports, over everything that listens.
#[test]
fn every_port_is_used_once_whatever_listens_on_it() {
    let keys = [
        "api.http_port",
        "api.grpc_port",
        "api.ws_port",
        "monitoring.metrics_port",
        "services.identity.port",
        "services.storage.port",
        "services.web.ready_port",
    ];
    let web = "services.web = { command = ['x'], readiness = 'port', ready_port = ";
    for (index, first) in keys.iter().enumerate() {
        for second in &keys[index + 1..] {
            let line = |key: &str| match key {
                "services.web.ready_port" => format!("{web}7000 }}\n"),
                key => format!("{key} = 7000\n"),
            };
            let refused = refusal(&format!("{}{}", line(first), line(second)));
            assert_eq!(refused.lines().count(), 1, "{refused}");
            let both = format!("{second} = 7000: {first} (node.toml:1:");
            assert!(refused.contains(&both), "{refused}");
        }
    }
    let listen = "network.listen_addrs = ['/ip4/0.0.0.0/tcp/8080', '/ip6/::/tcp/8080', \
                  '/ip4/0.0.0.0/udp/8081/quic-v1']\nservices.identity.port = 8081\n";
    let refused = refusal(listen);
    assert!(refused.contains("network.listen_addrs = 8080: api.http_port (default)"), "{refused}");
    assert_eq!(refused.lines().count(), 1, "{refused}");
    let disabled = "services.identity = { port = 8080, enabled = false }\n";
    assert!(load_text(disabled).is_ok());
}

#[test]
fn a_port_of_udp_is_another_than_the_same_of_tcp() {
    let web = "[services.web]\ncommand = ['x']\nport = 7000\nudp_port = 7000\n";
    assert!(load_text(web).is_ok());
    let other = format!("{web}[services.other]\ncommand = ['x']\nudp_port = 7000\n");
    let refused = refusal(&other);
    let said = "services.other.udp_port = 7000: services.web.udp_port (node.toml:4:12) has the \
                same UDP port";
    assert!(refused.contains(said), "{refused}");
    let listen = format!("network.listen_addrs = ['/ip4/0.0.0.0/udp/7000/quic-v1']\n{web}");
    assert!(refusal(&listen).contains("same UDP port"));
}

/// Reliability 80: duplicate sockets.
#[test]
fn every_socket_file_is_used_once_and_the_nodes_own_are_left_to_it() {
    let two = "services.identity.unix_socket = '/srv/a.sock'\n\
               services.storage.unix_socket = '/srv//./a.sock'\n";
    let expected = "node.toml:2:32: services.storage.unix_socket = \"/srv/a.sock\": \
                    services.identity.unix_socket (node.toml:1:33) has the same path; \
                    allowed: a path of its own for each";
    assert_eq!(refusal(two), expected);
    for own in ["control.sock", "sockets/identity.sock", "x"] {
        let refused = refusal(&format!("services.identity.unix_socket = '/run/blackhole/{own}'\n"));
        assert!(refused.contains("the sockets below runtime_dir are the node's own"), "{refused}");
    }
    let long = format!("services.identity.unix_socket = '/{}'\n", "x".repeat(107));
    assert!(refusal(&long).contains("the path has 108 bytes; allowed: at most 107 bytes"));
}

/// Reliability 80: each name that cannot be one is refused for its own reason, at its place.
#[test]
fn reserved_and_unsafe_names_of_services_are_refused_each_for_its_reason() {
    let cases = [
        ("memory.max", "not '.'"),
        ("cgroup.procs", "not '.'"),
        ("supervisor", "\"supervisor\" is reserved"),
        ("orchestrator", "\"orchestrator\" is reserved"),
        (".control", "begins with a lower-case letter, not with '.'"),
        ("../x", "begins with a lower-case letter, not with '.'"),
        ("übel", "begins with a lower-case letter, not with 'ü'"),
        ("naïve", "not 'ï'"),
        ("Web", "begins with a lower-case letter, not with 'W'"),
        ("web-1", "may not end with '-' and a number"),
        ("", "may not be empty"),
    ];
    for (name, reason) in cases {
        let refused = refusal(&format!("[services.\"{name}\"]\ncommand = ['x']\n"));
        assert_eq!(refused.lines().count(), 1, "{refused}");
        assert!(refused.starts_with("node.toml:1:11: services."), "{refused}");
        assert!(refused.contains(reason), "{refused}");
    }
    let refused = refusal(&format!("[services.{}]\ncommand = ['x']\n", "a".repeat(300)));
    assert!(refused.contains("at most 48 bytes, this one has 300"), "{refused}");
}

/// Reliability 80: durations that are none, each told why.
#[test]
fn durations_of_nothing_below_nothing_and_beyond_everything_are_refused() {
    let cases = [
        ("0s", "the duration is out of range"),
        ("-1s", "a duration is not negative"),
        ("99999999999999999999s", "the duration is out of range"),
        ("366days", "the duration is out of range"),
        ("5", "this is not a duration"),
        ("soon", "this is not a duration"),
    ];
    for (value, reason) in cases {
        let refused = refusal(&format!("services.storage.stop_timeout = '{value}'\n"));
        let start =
            format!("node.toml:1:33: services.storage.stop_timeout = \"{value}\": {reason};");
        assert!(refused.starts_with(&start), "{refused}");
    }
}

/// Reliability 80: more memory than there is.
#[test]
fn what_is_written_comes_to_no_more_memory_than_the_host_has() {
    let small = HostDefaults { memory: Some(ByteSize::gib(4)), ..host() };
    let web = "services.web = { command = ['x'], instances = 3, resources.memory = '1GiB' }\n";
    let storage = "services.storage.resources.memory = '2GiB'\n";
    let expected = "node.toml:2:37: services.storage.resources.memory = 2GiB: the memory limits \
                    that are written come to 5GiB (storage 2GiB, web 3 x 1GiB), and the host has \
                    4GiB; allowed: at most 4GiB in all";
    assert_eq!(on(&small, &format!("{web}{storage}")).unwrap_err(), expected);
    assert!(on(&host(), &format!("{web}{storage}")).is_ok());
    let budget =
        format!("resources.memory = '3GiB'\n{web}services.ledger.resources.memory = '1MiB'\n");
    let refused = on(&host(), &budget).unwrap_err();
    assert!(
        refused
            .contains("come to 3.0GiB (ledger 1MiB, web 3 x 1GiB), and resources.memory is 3GiB"),
        "{refused}"
    );
    let single = on(&small, "services.ledger.resources.memory = '5GiB'\n").unwrap_err();
    let expected = "node.toml:1:36: services.ledger.resources.memory = 5GiB: the host has 4GiB of \
                    memory; allowed: at most 4GiB";
    assert_eq!(single, expected);
    assert!(
        on(&small, "resources.memory = '5GiB'\n").unwrap_err().contains("1:20: resources.memory")
    );
    assert!(
        on(&small, "services.ledger = { enabled = false, resources.memory = '5GiB' }\n").is_ok()
    );
}

/// Reliability 80: the defaults alone run on a host of any size.
#[test]
fn defaults_beyond_a_small_host_are_a_remark() {
    let small = HostDefaults { memory: Some(ByteSize::gib(1)), ..host() };
    let loaded = on(&small, "").unwrap();
    let told: Vec<String> = loaded.remarks.iter().map(ToString::to_string).collect();
    let expected = "default: services: the memory limits of all services come to 4GiB, defaults \
                    among them, and the host has 1GiB: they cannot all be used up";
    assert_eq!(told, [expected]);
    // The documented file, which an install puts in place, is no other than they.
    let documented = on(&small, DEFAULTS).unwrap();
    assert_eq!(documented.config, loaded.config);
    assert!(on(&host(), "").unwrap().remarks.is_empty());
    // Nor does it become a demand when the node goes on from what was in force.
    let one = "services.ledger.logs.rate = 7\n";
    let again = on(&small, &show_written(&on(&small, one).unwrap())).unwrap();
    assert_eq!(again.config, on(&small, one).unwrap().config);
    let unknown = HostDefaults { memory: None, processors: None, ..host() };
    assert!(on(&unknown, "services.ledger.resources.memory = '1TiB'\n").is_ok());
}

#[test]
fn more_processors_than_there_are_limit_nothing() {
    let small = HostDefaults { processors: Some(1), ..host() };
    let loaded = on(&small, "services.storage.resources.cpu_cores = 2\n").unwrap();
    let told: Vec<String> = loaded.remarks.iter().map(ToString::to_string).collect();
    let expected = "node.toml:1:40: services.storage.resources.cpu_cores = 2: the host has 1 \
                    processors, so that this limits nothing";
    assert_eq!(told, [expected]);
    assert!(on(&host(), "services.storage.resources.cpu_cores = 4\n").unwrap().remarks.is_empty());
}

#[test]
fn what_is_protected_is_within_what_is_allowed() {
    let refused = |resources: &str| {
        let text = format!("services.ledger.resources = {{ {resources} }}\n");
        on(&host(), &text).map(|_| ()).unwrap_err()
    };
    let order = "; allowed: memory_min <= memory_low <= memory_high <= memory";
    let expected = format!(
        "node.toml:1:45: services.ledger.resources.memory_high: memory_high (2GiB) is more than \
         memory (1GiB){order}"
    );
    assert_eq!(refused("memory_high = '2GiB'"), expected);
    assert!(refused("memory_min = '2MiB', memory_low = '1MiB'").contains("memory_min (2MiB) is"));
    assert!(refused("memory_min = '2GiB', memory_low = '1GiB'").lines().count() == 1);
    assert!(refused("memory_min = '2MiB', memory_high = '1MiB'").contains("memory_high (1MiB)"));
    let fine = "services.ledger.resources = { memory_min = '1MiB', memory_high = '1MiB' }\n";
    assert!(on(&host(), fine).is_ok());
    let without_limit = "services.ledger.resources = { memory = 'none', memory_high = '2GiB' }\n";
    assert!(on(&host(), without_limit).is_ok());
}

#[test]
fn what_is_never_reclaimed_is_there_for_all() {
    let small = HostDefaults { memory: Some(ByteSize::gib(4)), ..host() };
    let web = "services.web = { command = ['x'], instances = 3, resources.memory_min = '2GiB' }\n";
    let refused = on(&small, web).unwrap_err();
    assert!(
        refused.contains("memory_min of all services comes to 6GiB, and the host has 4GiB"),
        "{refused}"
    );
    assert!(on(&small, &web.replace("2GiB", "1GiB")).is_ok());
}
