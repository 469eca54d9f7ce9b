//! What can only be judged when everything is read: ports that are taken twice, folders too long
//! for the sockets in them.

use std::collections::BTreeMap;

use super::model::{Kind, NodeConfig, Readiness};
use super::problem::{Place, Problem};
use super::report::Report;
use super::tree::Table;
use crate::catalog::{Builtin, INSTANCES};
use crate::units::InstanceId;

/// `sun_path` of `sockaddr_un` holds 108 bytes, the last of which is NUL (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
/// The most digits of a `RunId`.
const RUN_DIGITS: usize = 20;

pub(super) fn check(config: &NodeConfig, tree: &Table, report: &Report) {
    ports(config, tree, report);
    socket_paths(config, tree, report);
}

/// No two enabled services may need the same port.
fn ports(config: &NodeConfig, tree: &Table, report: &Report) {
    let mut taken: BTreeMap<u16, (String, Place)> = BTreeMap::new();
    for (port, path) in ports_in_use(config) {
        let keys: Vec<&str> = path.split('.').collect();
        let place = tree.place(&keys);
        let Some((other, other_place)) = taken.get(&port) else {
            taken.insert(port, (path, place));
            continue;
        };
        let (path, place, other, other_place) = if (&place, &path) < (other_place, other) {
            (other.clone(), other_place.clone(), &path, &place)
        } else {
            (path, place, other, other_place)
        };
        let what = format!("{other} ({other_place}) has the same port");
        let problem = Problem::new(&place, &path, what).value(port);
        report.problem(problem.allowed("a port of its own for each"));
    }
}

/// With the paths of their keys.
fn ports_in_use(config: &NodeConfig) -> Vec<(u16, String)> {
    let mut ports = Vec::new();
    for (name, service) in config.services.iter().filter(|(_, service)| service.enabled) {
        if matches!(service.kind, Kind::Builtin(Builtin::Gateway, _)) && config.api.http_port != 0 {
            ports.push((config.api.http_port, "api.http_port".to_owned()));
        }
        if let Readiness::Port(port) = service.readiness {
            ports.push((port, format!("services.{name}.ready_port")));
        }
    }
    ports
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
