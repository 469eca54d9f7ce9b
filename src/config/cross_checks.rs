//! What can only be judged when everything is read: ports and sockets that are taken twice, folders
//! too long for the sockets in them.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::PathBuf;

use multiaddr::Protocol;

use super::addresses::SOCKET_PATH_MAX;
use super::capacity;
use super::model::{NodeConfig, Readiness, Service};
use super::problem::{Place, Problem};
use super::report::Report;
use super::sources::HostDefaults;
use super::tree::Table;
use crate::catalog::{INSTANCES, Need};
use crate::units::{InstanceId, ServiceName};

/// The most digits of a `RunId`.
const RUN_DIGITS: usize = 20;

pub(super) fn check(config: &NodeConfig, tree: &Table, host: &HostDefaults, report: &Report) {
    let ports = ports_in_use(config).into_iter();
    no_two_alike(ports, "port", tree, report);
    no_two_alike(udp_ports_in_use(config).into_iter(), "UDP port", tree, report);
    let files = socket_files(config).map(|(name, path)| (path, unix_socket_key(name)));
    no_two_alike(files.map(|(path, key)| (Shown(path), key)), "path", tree, report);
    own_sockets(config, tree, report);
    socket_paths(config, tree, report);
    capacity::check(config, tree, host, report);
}

/// No two of these, each with the path of its key, may be the same `what`.
fn no_two_alike<T: Ord + Display>(
    all: impl Iterator<Item = (T, String)>,
    what: &str,
    tree: &Table,
    report: &Report,
) {
    let mut taken: BTreeMap<T, (String, Place)> = BTreeMap::new();
    for (one, key) in all {
        let place = tree.place(&key.split('.').collect::<Vec<_>>());
        let Some((other, other_place)) = taken.get(&one) else {
            taken.insert(one, (key, place));
            continue;
        };
        if *other == key {
            continue;
        }
        let (key, place, other, other_place) = if (&place, &key) < (other_place, other) {
            (other.clone(), other_place.clone(), &key, &place)
        } else {
            (key, place, other, other_place)
        };
        let same = format!("{other} ({other_place}) has the same {what}");
        let problem = Problem::new(&place, &key, same).value(one);
        report.problem(problem.allowed(format!("a {what} of its own for each")));
    }
}

/// A path as a value is shown.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Shown(PathBuf);

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.display().to_string())
    }
}

/// With the paths of their keys.
fn udp_ports_in_use(config: &NodeConfig) -> Vec<(u16, String)> {
    let enabled = config.services.iter().filter(|(_, service)| service.enabled);
    let of_service = |(name, service): (&ServiceName, &Service)| {
        service.udp_port.map(|port| (port, format!("services.{name}.udp_port")))
    };
    let listening = config.network.listen_addrs.iter().flat_map(|address| address.iter());
    let of_network = listening.filter_map(|part| {
        let Protocol::Udp(port) = part else { return None };
        (port != 0).then(|| (port, "network.listen_addrs".to_owned()))
    });
    enabled.filter_map(of_service).chain(of_network).collect()
}

/// With the paths of their keys.
fn ports_in_use(config: &NodeConfig) -> Vec<(u16, String)> {
    let mut ports = Vec::new();
    for (name, service) in config.services.iter().filter(|(_, service)| service.enabled) {
        if service.needs(Need::Api) {
            let http = (Some(config.api.http_port).filter(|port| *port != 0), "api.http_port");
            let further = [
                (config.api.grpc_port, "api.grpc_port"),
                (config.api.ws_port, "api.ws_port"),
                (config.monitoring.metrics_port, "monitoring.metrics_port"),
            ];
            let all = std::iter::once(http).chain(further);
            ports.extend(all.filter_map(|(port, key)| Some((port?, key.to_owned()))));
        }
        ports.extend(service.port.map(|port| (port, format!("services.{name}.port"))));
        if let Readiness::Port(port) = service.readiness {
            ports.push((port, format!("services.{name}.ready_port")));
        }
    }
    let listening = config.network.listen_addrs.iter().flat_map(|address| address.iter());
    for part in listening {
        if let Protocol::Tcp(port) = part
            && port != 0
        {
            ports.push((port, "network.listen_addrs".to_owned()));
        }
    }
    ports
}

/// The socket files that were given a place.
fn socket_files(config: &NodeConfig) -> impl Iterator<Item = (&ServiceName, PathBuf)> {
    let enabled = config.services.iter().filter(|(_, service)| service.enabled);
    enabled.filter_map(|(name, service)| {
        // Without doubled slashes and single dots.
        let path = service.unix_socket.as_ref()?.components().collect();
        Some((name, path))
    })
}

fn unix_socket_key(name: &ServiceName) -> String {
    format!("services.{name}.unix_socket")
}

/// The node clears its own folder, and may need any name in it.
fn own_sockets(config: &NodeConfig, tree: &Table, report: &Report) {
    for (name, path) in socket_files(config) {
        if path.starts_with(&config.node.runtime_dir) {
            let key = unix_socket_key(name);
            let place = tree.place(&key.split('.').collect::<Vec<_>>());
            let what = "the sockets below runtime_dir are the node's own";
            let problem = Problem::new(&place, &key, what).value(Shown(path));
            report.problem(problem.allowed("a path outside runtime_dir, or no such key"));
        }
    }
}

/// Every socket below `runtime_dir` must have a path that `sockaddr_un` can hold.
fn socket_paths(config: &NodeConfig, tree: &Table, report: &Report) {
    let runtime_dir = &config.node.runtime_dir;
    let run = "0".repeat(RUN_DIGITS);
    let longest = config
        .services
        .iter()
        .filter(|(_, service)| service.enabled)
        // Any service may be scaled while the node runs.
        .map(|(name, _)| InstanceId::new(name.clone(), INSTANCES - 1))
        .flat_map(|instance| {
            [
                runtime_dir.join("sockets").join(format!("{instance}.sock")),
                runtime_dir.join("notify").join(format!("{instance}.{run}.sock")),
            ]
        })
        .max_by_key(|path| path.as_os_str().len());
    let Some(longest) = longest else { return };
    let length = longest.as_os_str().len();
    if length > SOCKET_PATH_MAX {
        let fitting = (runtime_dir.as_os_str().len() + SOCKET_PATH_MAX).saturating_sub(length);
        let what = format!(
            "the socket {} would have a path of {length} bytes, and Linux takes {SOCKET_PATH_MAX}",
            longest.strip_prefix(runtime_dir).unwrap_or(&longest).display()
        );
        let place = tree.place(&["node", "runtime_dir"]);
        let problem = Problem::new(&place, "node.runtime_dir", what);
        let problem = problem.value(format_args!("{:?}", runtime_dir.display().to_string()));
        report.problem(problem.allowed(format!("at most {fitting} bytes with these services")));
    }
}
