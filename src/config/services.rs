//! Reads `[services]`: the keys that every service has, and those of the built-in ones.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::addresses::{is_in_shared_folder, port, socket_path};
use super::dependencies::{self, Relation, Wish, written};
use super::foreign;
use super::model::{
    Kind, Monitoring, NotifyAccess, Readiness, Resources, Service, Supervisor, Tier,
};
use super::own_keys;
use super::problem::{Problem, nearest};
use super::report::path;
use super::resources;
use super::sandbox;
use super::section::Section;
use super::spellings::{RESTART_POLICIES, TIERS};
use super::tree::{Entry, Table, Value};
use super::values::{
    NO_OR_SOME_TIME, SOME_TIME, Wrong, choice, duration, flag, log_burst, log_rate, or_none, whole,
};
use crate::catalog::{Builtin, COMING, INSTANCES, KeySection, Need};
use crate::units::ServiceName;

/// So that checking what depends on what stays quick and shallow.
const MAX_SERVICES: usize = 1024;

const NAME_FORM: &str = "lower-case letters, digits and single inner '-', such as my-web";

/// What a service takes from other sections where it says nothing itself.
#[derive(Debug, Clone, Copy)]
struct Defaults<'a> {
    supervisor: &'a Supervisor,
    monitoring: &'a Monitoring,
}

/// Every built-in service and every one that was written, enabled or not.
pub(super) fn read(
    section: Section<'_>,
    supervisor: &Supervisor,
    monitoring: &Monitoring,
) -> BTreeMap<ServiceName, Service> {
    let defaults = Defaults { supervisor, monitoring };
    let mut services = BTreeMap::new();
    let mut wishes = Vec::new();
    for builtin in Builtin::ALL {
        let name = builtin.service_name();
        let section = section_of(&section, builtin.entry().name);
        let service = builtin_service(section, builtin, defaults, &name, &mut wishes);
        services.insert(name, service);
    }
    let written = section.table().entries();
    for (key, entry) in written.filter(|(key, _)| Builtin::from_name(key).is_none()) {
        let one = section_of(&section, key);
        if services.len() == MAX_SERVICES {
            let what = format!("there are more than {MAX_SERVICES} services");
            section.report().problem(Problem::new(&entry.key_place, one.path(), what));
            break;
        }
        if COMING.contains(&key) {
            coming(one);
        } else if let Some(name) = foreign_name(&one, key, entry) {
            services.insert(name.clone(), foreign_service(one, defaults, &name, &mut wishes));
        }
    }
    dependencies::settle(&mut services, wishes, section.table(), section.report());
    services
}

/// The section of one service; an empty one where it is absent or not a section.
fn section_of<'a>(services: &Section<'a>, name: &str) -> Section<'a> {
    static NOTHING: Table = Table::EMPTY;
    let path = path(services.path(), name);
    let report = services.report();
    let Some(entry) = services.table().exact(name) else {
        return Section::of(&NOTHING, services.place().clone(), path, report);
    };
    let node = &entry.node;
    let table = node.table();
    if table.is_none() && node.value != Value::Broken {
        let wrong = Wrong::kind(&node.value, &format!("a section [{path}]"));
        report.problem(wrong.at(&node.place, &path, &node.value));
    }
    Section::of(table.unwrap_or(&NOTHING), node.place.clone(), path, report)
}

/// The name of a foreign service, if this can be one; else the reason is reported.
fn foreign_name(section: &Section<'_>, key: &str, entry: &Entry) -> Option<ServiceName> {
    let problem = |what: &str| Problem::new(&entry.key_place, section.path(), what);
    let name = match key.parse::<ServiceName>() {
        Ok(name) => name,
        Err(error) => {
            let problem = problem(&error.to_string()).allowed(NAME_FORM);
            section.report().problem(problem.meant(near_builtin(key)));
            return None;
        }
    };
    let table = entry.node.table()?;
    if table.get("command").is_none() {
        let names = Builtin::ALL.map(|builtin| builtin.entry().name).join(", ");
        let what = "there is no built-in service of this name, and it has no command";
        let allowed = format!("command = [\"program\", \"argument\"] for a program, or {names}");
        section.report().missing(problem(what).allowed(allowed).meant(near_builtin(key)));
    }
    Some(name)
}

fn near_builtin(name: &str) -> Option<String> {
    let names = Builtin::ALL.map(|builtin| builtin.entry().name);
    nearest(name, names.into_iter()).map(|near| format!("{near:?}"))
}

/// A service of a later version: it may be named as long as it is not wanted.
fn coming(mut section: Section<'_>) {
    let what = "this service is not in this version";
    let problem = Problem::new(section.place(), section.path(), what);
    if section.or("enabled", true, flag()) {
        section.report().problem(problem.allowed("enabled = false, or leave the section out"));
    } else {
        section.report().remark(problem.allowed("nothing else: the section is ignored"));
    }
}

fn builtin_service(
    mut section: Section<'_>,
    builtin: Builtin,
    defaults: Defaults<'_>,
    name: &ServiceName,
    wishes: &mut Vec<Wish>,
) -> Service {
    let entry = builtin.entry();
    let limits = Resources {
        memory: Some(entry.memory),
        max_files: Some(entry.max_files),
        ..Resources::default()
    };
    match written(&mut section, name, Relation::DependsOn) {
        Some(written) => wishes.extend(written),
        None => wishes.extend(entry.depends_on.iter().map(|on| Wish::of_catalog(name, *on))),
    }
    wishes.extend(written(&mut section, name, Relation::RestartWith).unwrap_or_default());
    let (resources, mut sizes) =
        resources::read(section.section("resources"), limits, Some(builtin));
    sizes.extend(own_keys::read(&mut section, KeySection::Service, Some(builtin)));
    own_keys::check(&section, builtin, &sizes);
    let kind = Kind::Builtin(builtin, sizes);
    let mut service = common(&mut section, kind, defaults, resources);
    let instances = section.table().get("instances").map(|entry| &entry.node);
    if let Some(node) = instances.filter(|_| service.instances > service.most_instances()) {
        let what = format!("{} is the only writer of its data", entry.name);
        section.refuse("instances", node, Wrong::new(what, entry.instances.to_string()));
    }
    service.readiness = Readiness::Grpc;
    service.notify_access = NotifyAccess::Main;
    if builtin.needs(Need::Api) {
        section.forbid("port", &format!("the {name}'s ports are those of [api]"));
        section.forbid("unix_socket", &format!("the {name} offers nothing on a socket file"));
    } else {
        service.port = section.or("port", None, or_none(port()));
        service.unix_socket = unix_socket(&mut section);
    }
    for key in foreign::KEYS {
        section.forbid(key, "a built-in service has no such key: it is for foreign programs");
    }
    section.finish();
    service
}

fn foreign_service(
    mut section: Section<'_>,
    defaults: Defaults<'_>,
    name: &ServiceName,
    wishes: &mut Vec<Wish>,
) -> Service {
    wishes.extend(written(&mut section, name, Relation::DependsOn).unwrap_or_default());
    wishes.extend(written(&mut section, name, Relation::RestartWith).unwrap_or_default());
    let (resources, _) = resources::read(section.section("resources"), Resources::default(), None);
    let kind = Kind::Foreign(foreign::program(&mut section));
    let mut service = common(&mut section, kind, defaults, resources);
    service.port = section.or("port", None, or_none(port()));
    service.unix_socket = unix_socket(&mut section);
    foreign::conventions(&mut section, &mut service);
    own_keys::read(&mut section, KeySection::Service, None);
    section.finish();
    service
}

/// The keys of every service; the rest of the value is as for a foreign one that says nothing.
fn common(
    section: &mut Section<'_>,
    kind: Kind,
    defaults: Defaults<'_>,
    resources: Resources,
) -> Service {
    let Defaults { supervisor, monitoring } = defaults;
    let time = || duration(SOME_TIME);
    let mut logs = section.section("logs");
    let (rate, burst) = (
        logs.or("rate", monitoring.log_rate, log_rate()),
        logs.or("burst", monitoring.log_burst, log_burst()),
    );
    logs.finish();
    let sandbox = sandbox::read(section.section("sandbox"));
    let policies = choice(&RESTART_POLICIES);
    Service {
        kind,
        enabled: section.or("enabled", true, flag()),
        instances: section.or("instances", 1, whole(1..=INSTANCES)),
        depends_on: Vec::new(),
        restart_with: Vec::new(),
        restart_policy: section.or("restart_policy", supervisor.restart_policy, policies),
        max_restarts: section.or("max_restarts", supervisor.max_restarts, whole(0..=1000)),
        start_timeout: section.or("start_timeout", supervisor.start_timeout, time()),
        stop_timeout: section.or("stop_timeout", supervisor.stop_timeout, time()),
        drain: section.or("drain", Duration::ZERO, duration(NO_OR_SOME_TIME)),
        readiness: Readiness::Started,
        watchdog: None,
        notify_access: NotifyAccess::All,
        fd_store_max: foreign::FD_STORE_MAX,
        shared_socket: false,
        unix_socket: None,
        port: None,
        udp_port: None,
        tier: section.or("tier", Tier::Standard, choice(&TIERS)),
        resources,
        operator_resources: None,
        log_rate: rate,
        log_burst: burst,
        sandbox,
    }
}

/// Where the shared socket is, if it was said.
fn unix_socket(section: &mut Section<'_>) -> Option<PathBuf> {
    let path = section.get("unix_socket", socket_path())?;
    if is_in_shared_folder(&path) {
        let what = "everybody can make files in this folder: whoever makes this one first keeps \
                    the service from starting, and a clean-up of the folder takes its socket away";
        section.remark("unix_socket", what);
    }
    Some(path)
}
