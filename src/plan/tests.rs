//! From keys of the configuration to what is to be run.

use std::path::Path;

use super::*;
use crate::config::{HostDefaults, Sources, load};
use crate::units::InstanceId;

fn plan(text: &str) -> Plan {
    let host = HostDefaults {
        node_name: "host-1".to_owned(),
        data_dir: "/var/lib/blackhole".into(),
        runtime_dir: "/run/blackhole".into(),
        memory: None,
        processors: None,
    };
    let given = Sources { file: Some((Path::new("node.toml"), text)), ..Sources::default() };
    Plan::of(&load(&given, &host).unwrap_or_else(|errors| panic!("{errors}")).config)
}

fn one<'p>(plan: &'p Plan, instance: &str) -> &'p InstancePlan {
    &plan.instances[&instance.parse::<InstanceId>().unwrap()]
}

fn names(plan: &Plan, instance: &str) -> Vec<&'static str> {
    one(plan, instance).launch.passed.iter().map(|passed| passed.name).collect()
}

#[test]
fn the_weight_of_a_group_is_that_of_its_tier() {
    let plan = plan(
        "tiers.best_effort.cpu_weight = 3\nservices.storage.tier = 'best_effort'\n\
         services.identity = { tier = 'best_effort', resources.cpu_weight = 5 }\n",
    );
    let weight = |instance| one(&plan, instance).limits.in_force().cpu_weight;
    assert_eq!((weight("storage-0"), weight("ledger-0")), (3, 100));
    assert_eq!(weight("identity-0"), 5, "its own takes the place of its tier's");
}

#[test]
fn a_constant_back_off_never_grows() {
    let text = "[process_management.supervisor]\nbackoff = 'constant'\nbackoff_initial = '7s'\n";
    let plan = plan(text);
    let rules = &one(&plan, "storage-0").rules.restart;
    assert_eq!(rules.backoff_initial, rules.backoff_max);
    assert_eq!(rules.backoff_max.as_secs(), 7);
}

#[test]
fn processor_time_is_limited_softly_and_open_files_are_limited_hard() {
    let plan = plan("services.storage.resources.cpu_seconds = 60\n");
    let limits = &one(&plan, "storage-0").launch.limits;
    assert_eq!(
        *limits,
        [
            Limit { kind: LimitKind::CpuTime, value: 60, hard: HardLimit::None },
            Limit { kind: LimitKind::Files, value: 4096, hard: HardLimit::Same },
        ]
    );
}

#[test]
fn further_listeners_are_passed_only_where_they_were_written() {
    let written = plan(
        "services.identity = { port = 8081, unix_socket = '/srv/identity.sock' }\n\
         services.web = { command = ['x'], port = 8082, udp_port = 8082, instances = 2 }\n\
         api = { grpc_port = 9090, ws_port = 9091 }\nmonitoring.metrics_port = 9092\n",
    );
    assert_eq!(names(&written, "identity-0"), ["grpc", "shared", "port", "sheet"]);
    assert_eq!(names(&written, "web-1"), ["socket", "port", "udp-port"]);
    let api = ["grpc", "shared", "http", "http-grpc", "http-ws", "http-metrics", "status", "sheet"];
    assert_eq!(names(&written, "gateway-0"), api);
    let identity = "identity".parse().unwrap();
    let at = |id: &SocketId| written.sockets[id].clone();
    let file = SocketPlace::Unix("/srv/identity.sock".into());
    assert_eq!(at(&SocketId::Shared(identity)), file);
    let port = SocketPlace::Tcp("127.0.0.1:8082".parse().unwrap());
    assert_eq!(at(&SocketId::Port("web".parse().unwrap())), port);
    let udp = SocketPlace::Udp("127.0.0.1:8082".parse().unwrap());
    assert_eq!(at(&SocketId::UdpPort("web".parse().unwrap())), udp);
    let metrics = SocketPlace::Tcp("127.0.0.1:9092".parse().unwrap());
    assert_eq!(at(&SocketId::FurtherApi(ApiPort::Metrics)), metrics);
    let plain = plan("");
    assert_eq!(names(&plain, "identity-0"), ["grpc", "shared", "sheet"]);
    assert_eq!(names(&plain, "gateway-0"), ["grpc", "shared", "http", "status", "sheet"]);
}
