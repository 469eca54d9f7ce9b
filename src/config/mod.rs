//! From a file, `--set` and the built-in defaults to a `NodeConfig` that holds no nonsense, or to
//! every error at once, each with its place. Knows no host fact beyond what it is given.

mod model;

pub use model::{
    Api, Command, FileLimits, Foreign, HealthChecks, Kind, LogFormat, Monitoring, NodeConfig,
    NodeSection, NotifyAccess, Readiness, Resources, RestartPolicy, Service, Supervisor,
};
