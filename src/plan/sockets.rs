//! Which listeners there are, and where the configuration has them stand.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::config::NodeConfig;
use crate::units::{InstanceId, ServiceName};

/// Which listener: an instance's own, one that all instances of a service share, or the API's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SocketId {
    Instance(InstanceId),
    Shared(ServiceName),
    /// A TCP port of the loopback interface.
    Port(ServiceName),
    /// A UDP port of the loopback interface.
    UdpPort(ServiceName),
    Api,
    FurtherApi(ApiPort),
}

/// A port of the API beside its first, which serves the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiPort {
    Grpc,
    WebSocket,
    Metrics,
}

impl ApiPort {
    pub(super) const ALL: [Self; 3] = [Self::Grpc, Self::WebSocket, Self::Metrics];

    pub(super) fn of(self, config: &NodeConfig) -> Option<u16> {
        match self {
            Self::Grpc => config.api.grpc_port,
            Self::WebSocket => config.api.ws_port,
            Self::Metrics => config.monitoring.metrics_port,
        }
    }
}

impl SocketId {
    /// The key of the configuration that says where it is, if one does.
    pub fn key(&self) -> Option<String> {
        match self {
            Self::Instance(_) => None,
            Self::Shared(service) => Some(format!("services.{service}.unix_socket")),
            Self::Port(service) => Some(format!("services.{service}.port")),
            Self::UdpPort(service) => Some(format!("services.{service}.udp_port")),
            Self::Api => Some("api.http_port".to_owned()),
            Self::FurtherApi(ApiPort::Grpc) => Some("api.grpc_port".to_owned()),
            Self::FurtherApi(ApiPort::WebSocket) => Some("api.ws_port".to_owned()),
            Self::FurtherApi(ApiPort::Metrics) => Some("monitoring.metrics_port".to_owned()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SocketPlace {
    Unix(PathBuf),
    Tcp(SocketAddr),
    /// Bound, and connected to nobody.
    Udp(SocketAddr),
}

/// None: the configuration has no such listener.
pub(super) fn place(config: &NodeConfig, id: &SocketId) -> Option<SocketPlace> {
    let unix = |name: &str| SocketPlace::Unix(socket_path(&config.node.runtime_dir, name));
    let api = |port| SocketPlace::Tcp(SocketAddr::new(config.api.address, port));
    Some(match id {
        SocketId::Instance(instance) => unix(&instance.to_string()),
        SocketId::Shared(service) => match &config.services.get(service)?.unix_socket {
            Some(path) => SocketPlace::Unix(path.clone()),
            None => unix(service.as_str()),
        },
        SocketId::Port(service) => {
            let port = config.services.get(service)?.port?;
            SocketPlace::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        }
        SocketId::UdpPort(service) => {
            let port = config.services.get(service)?.udp_port?;
            SocketPlace::Udp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        }
        SocketId::Api => api(config.api.http_port),
        SocketId::FurtherApi(further) => api(further.of(config)?),
    })
}

/// Of a socket that has no path of its own in the configuration.
pub(super) fn socket_path(runtime_dir: &Path, name: &str) -> PathBuf {
    runtime_dir.join("sockets").join(format!("{name}.sock"))
}
