//! From a launch plan to a process.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use super::environment::of_run;
use super::error::ActError;
use super::fd_names::{FdName, RunFd};
use super::run::{GroupUse, MainProcess, Pipe, RunOrigin, StartedRun};
use super::sandbox::user_of;
use super::{Act, folders, limits as group_limits};
use crate::decide::SpawnFailure;
use crate::linux::cgroupfs::Group;
use crate::linux::chown::{self, Owner};
use crate::linux::connection_broker::ConnectionBroker;
use crate::linux::fds::{self, SocketAccess};
use crate::linux::notify::NotifySocket;
use crate::linux::sandbox::Sandbox;
use crate::linux::shared_memory;
use crate::linux::spawn::{self as kernel, Launch, Limit, Resource};
use crate::plan::{Channel, GroupLimits, HardLimit, LaunchPlan, LimitKind, Program, SEARCH_PATH};
use crate::rpc::pb::node as pb;
use crate::rpc::pb::node::setting::Value;
use crate::units::{ByteSize, InstanceId, Pid, RunId};

impl Act {
    /// Starts a run in its group, with `limits` set before the process exists.
    pub fn spawn(
        &mut self,
        id: &InstanceId,
        run: RunId,
        limits: &GroupLimits,
    ) -> Result<StartedRun, SpawnFailure> {
        spawn(self, id, run, limits).map_err(|error| SpawnFailure(error.to_string()))
    }
}

fn spawn(
    act: &mut Act,
    id: &InstanceId,
    run: RunId,
    limits: &GroupLimits,
) -> Result<StartedRun, ActError> {
    let plan = act.plan.instances.get(id).ok_or_else(|| ActError::Unplanned(id.clone()))?.clone();
    let launch = &plan.launch;
    let user = user_of(launch)?;
    let owner = user.as_ref().map_or_else(Owner::us, Owner::from);
    folders::make(&act.plan, launch, id, run, owner)?;
    bind_listeners(act, launch)?;
    let group = act.group_of(id)?;
    let mut intruders = Vec::new();
    if let Some(group) = &group {
        intruders = kill_intruders(group)?;
        group_limits::set(group, limits)?;
    }
    let cpu_before = group.as_deref().map(cpu_used).unwrap_or_default();
    let oom_kills_before = group.as_deref().map(oom_kills).unwrap_or_default();
    let sandbox = act.sandboxes.prepare(launch, user)?;
    let passed_fds = PassedFds::prepare(act, launch, id, run)?;
    let stdio = Stdio::make(act, launch, (id, run), owner)?;
    keep(act, (id, run), &stdio, &passed_fds);
    let given = (&stdio, &passed_fds, sandbox.sandbox());
    let child = match execute(act, launch, (id, run), group.as_deref(), given) {
        Ok(child) => child,
        Err(error) => {
            act.release_all_fds(id, run);
            if let Some((_, path)) = &stdio.notify {
                let _gone_already = fs::remove_file(path);
            }
            return Err(error);
        }
    };
    let pidfd = FdName::Run(RunFd::Pidfd, id.clone(), run);
    act.service_manager.store_fd(pidfd, child.pidfd.as_fd());
    let Stdio { stdout: (stdout, _), stderr: (stderr, _), notify } = stdio;
    let (notify, notify_path) = notify.unzip();
    let notify = notify.map(Arc::new);
    let status = passed_fds.status.map(|(ours, _)| Arc::new(ours));
    let pid = child.pid;
    let first = MainProcess {
        pid,
        pidfd: child.pidfd,
        cpu_before,
        oom_kills_before,
        binary: launch.program.is_own().then(|| Arc::clone(&act.binary)),
        notify_path,
        notify: notify.clone(),
        status: status.clone(),
        group: GroupUse::Fresh,
    };
    let (pidfd, members) = act.register_run((id, run), first, group);
    Ok(StartedRun {
        pid,
        pidfd,
        members,
        origin: RunOrigin::Spawned(child.exec),
        oom_kills_before,
        stdout,
        stderr,
        notify,
        status,
        intruders,
    })
}

/// Standard output, standard error and the notify socket: of each pipe the orchestrator's end and
/// the service's.
struct Stdio {
    stdout: (Pipe, OwnedFd),
    stderr: (Pipe, OwnedFd),
    notify: Option<(NotifySocket, PathBuf)>,
}

impl Stdio {
    fn make(
        act: &Act,
        launch: &LaunchPlan,
        (id, run): (&InstanceId, RunId),
        owner: Owner,
    ) -> Result<Self, ActError> {
        let pipe = || log_pipe(act).map_err(ActError::Channel);
        let (stdout, stderr) = (pipe()?, pipe()?);
        // It makes a file, so it comes last.
        let notify = notify_socket(act, launch, id, run, owner)?;
        Ok(Self { stdout, stderr, notify })
    }
}

/// With a spool if there is a service manager to keep it.
fn log_pipe(act: &Act) -> Result<(Pipe, OwnedFd), crate::linux::Error> {
    let (ours, theirs) = fds::pipe()?;
    let spool = act
        .service_manager
        .is_connected()
        .then(|| shared_memory::memory("blackhole-log"))
        .transpose()?;
    Ok((Pipe { spool, ..ours.into() }, theirs))
}

/// Stores the descriptors before the process exists: no process can be adopted without its stdio.
fn keep(act: &mut Act, (id, run): (&InstanceId, RunId), stdio: &Stdio, passed_fds: &PassedFds) {
    let parts = [
        (RunFd::Stdout, Some(stdio.stdout.0.fd.as_fd())),
        (RunFd::Stderr, Some(stdio.stderr.0.fd.as_fd())),
        (RunFd::StdoutSpool, stdio.stdout.0.spool.as_ref().map(AsFd::as_fd)),
        (RunFd::StderrSpool, stdio.stderr.0.spool.as_ref().map(AsFd::as_fd)),
        (RunFd::Notify, stdio.notify.as_ref().map(|(socket, _)| socket.as_fd())),
        (RunFd::StatusBroker, passed_fds.status.as_ref().map(|(ours, _)| ours.as_fd())),
    ];
    let name = |part| FdName::Run(part, id.clone(), run);
    let there = parts.into_iter().filter(|(_, fd)| fd.is_some());
    let there = there.map(|(part, fd)| (name(part), fd));
    act.service_manager.store_fds(there.chain([(name(RunFd::Pidfd), None)]));
}

fn execute(
    act: &Act,
    launch: &LaunchPlan,
    (id, run): (&InstanceId, RunId),
    group: Option<&Group>,
    (stdio, passed_fds, sandbox): (&Stdio, &PassedFds, Sandbox<'_>),
) -> Result<kernel::Child, ActError> {
    let (names, passed) = passed_fds.descriptors(act, launch, id);
    let notify = stdio.notify.as_ref().map(|(_, path)| path.as_path());
    let environment = of_run(launch, run, notify, &names)?;
    let (program, arguments) = program(act, launch, id)?;
    kernel::spawn(&Launch {
        program,
        arguments,
        environment,
        pid_variables: pid_variables(launch),
        working_directory: Some(c_string(&launch.working_directory, "its working directory")?),
        stdout: stdio.stdout.1.as_fd(),
        stderr: stdio.stderr.1.as_fd(),
        passed,
        limits: launch.limits.iter().map(rlimit).collect(),
        group,
        sandbox,
    })
    .map_err(ActError::Spawn)
}

/// Kills processes in the group before the run begins. A group outlives its runs, and whoever is in
/// it counts as a member of the run and could send notify messages for it.
fn kill_intruders(group: &Group) -> Result<Vec<Pid>, ActError> {
    if !group.populated().map_err(ActError::Group)? {
        return Ok(Vec::new());
    }
    group.kill_one_by_one().map_err(ActError::Kill)
}

/// Descriptors that are made for one run; listeners and stored descriptors are not.
struct PassedFds {
    /// The orchestrator's end and the service's.
    status: Option<(ConnectionBroker, ConnectionBroker)>,
    sheet: Option<OwnedFd>,
}

impl PassedFds {
    fn prepare(
        act: &Act,
        launch: &LaunchPlan,
        id: &InstanceId,
        run: RunId,
    ) -> Result<Self, ActError> {
        let wants = |channel: &Channel| launch.passed.iter().any(|p| p.channel == *channel);
        let status = wants(&Channel::Status).then(ConnectionBroker::pair);
        let sheet = wants(&Channel::Sheet).then(|| {
            let sheet = sheet(act, launch, id, run);
            fds::sealed_memory("launch-sheet", &sheet.encode_to_vec())
        });
        Ok(Self {
            status: status.transpose().map_err(ActError::Channel)?,
            sheet: sheet.transpose().map_err(ActError::Channel)?,
        })
    }

    /// Names and descriptors in the order of the plan, then those that the instance has stored.
    fn descriptors<'a>(
        &'a self,
        act: &'a Act,
        launch: &'a LaunchPlan,
        id: &InstanceId,
    ) -> (Vec<&'a str>, Vec<BorrowedFd<'a>>) {
        let mut names = Vec::new();
        let mut all = Vec::new();
        for passed in &launch.passed {
            let fd = match &passed.channel {
                Channel::Listener(socket) => {
                    act.plan.sockets.get(socket).and_then(|place| act.sockets.get(place))
                }
                Channel::Status => self.status.as_ref().map(|(_, theirs)| theirs.as_fd()),
                Channel::Sheet => self.sheet.as_ref().map(AsFd::as_fd),
            };
            if let Some(fd) = fd {
                names.push(passed.name);
                all.push(fd);
            }
        }
        for (name, fd) in act.stores.get(id).map(|store| store.all()).unwrap_or_default() {
            names.push(name.as_str());
            all.push(fd.as_fd());
        }
        (names, all)
    }
}

/// Binds the listeners that could not be bound before; most are bound when the node starts.
fn bind_listeners(act: &mut Act, launch: &LaunchPlan) -> Result<(), ActError> {
    for id in launch.listeners() {
        if let Some(place) = act.plan.sockets.get(id) {
            act.sockets.bind(id, place, &mut act.service_manager)?;
        }
    }
    Ok(())
}

fn sheet(act: &Act, launch: &LaunchPlan, id: &InstanceId, run: RunId) -> pb::LaunchSheet {
    let Program::Own(settings) = &launch.program else {
        return pb::LaunchSheet::default();
    };
    let setting = |(key, size): (&&str, &ByteSize)| pb::Setting {
        key: (*key).to_owned(),
        value: Some(Value::Size(size.0)),
    };
    pb::LaunchSheet {
        service: id.service.to_string(),
        instance: id.to_string(),
        run: run.0,
        node_name: act.node_name.clone(),
        node_version: env!("CARGO_PKG_VERSION").to_owned(),
        data_dir: launch.data_dir.to_string_lossy().into_owned(),
        log_level: settings.log_level.to_owned(),
        drain_ms: u64::try_from(settings.drain.as_millis()).unwrap_or(u64::MAX),
        fd_names: launch.passed.iter().map(|passed| passed.name.to_owned()).collect(),
        settings: settings.sizes.iter().map(setting).collect(),
    }
}

fn program<'a>(
    act: &'a Act,
    launch: &LaunchPlan,
    id: &InstanceId,
) -> Result<(kernel::Program<'a>, Vec<CString>), ActError> {
    match &launch.program {
        Program::Own(_) => {
            let arguments = ["blackhole-node", "service", id.service.as_str()];
            let arguments = arguments.into_iter().map(|a| c_string(a, "its arguments"));
            let arguments = arguments.collect::<Result<_, _>>()?;
            Ok((kernel::Program::Fd(act.executable.as_fd()), arguments))
        }
        Program::Foreign { program, arguments } => {
            let path = find(program, launch)?;
            let words = std::iter::once(program).chain(arguments);
            let words =
                words.map(|word| c_string(word, "its arguments")).collect::<Result<_, _>>()?;
            Ok((kernel::Program::Path(c_string(&path, "its program")?), words))
        }
    }
}

/// A name without '/' is looked up in the PATH the service is given, as execvp(3) does.
fn find(program: &str, launch: &LaunchPlan) -> Result<PathBuf, ActError> {
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    let path = launch.environment.get("PATH").map_or(SEARCH_PATH, String::as_str);
    let candidates = path.split(':').map(|folder| Path::new(folder).join(program));
    let executable = |file: &PathBuf| {
        fs::metadata(file)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let found = candidates.into_iter().find(executable);
    let not_found = || ActError::NotInPath { program: program.to_owned(), path: path.to_owned() };
    found.ok_or_else(not_found)
}

fn pid_variables(launch: &LaunchPlan) -> Vec<&'static str> {
    let mut names = vec!["LISTEN_PID"];
    if launch.notify.is_some_and(|notify| notify.watchdog.is_some()) {
        names.push("WATCHDOG_PID");
    }
    names
}

fn rlimit(limit: &crate::plan::Limit) -> Limit {
    let resource = match limit.kind {
        LimitKind::CpuTime => Resource::CpuTime,
        LimitKind::Files => Resource::OpenFiles,
        LimitKind::Core => Resource::Core,
        LimitKind::FileSize => Resource::FileSize,
        LimitKind::Stack => Resource::Stack,
    };
    let hard = match limit.hard {
        HardLimit::Same => limit.value,
        HardLimit::None => u64::MAX,
    };
    Limit { resource, soft: limit.value, hard }
}

pub(super) fn oom_kills(group: &Group) -> u64 {
    group.oom_kills().ok().flatten().unwrap_or_default()
}

/// Processor time that the group has used; it goes on counting over the runs.
fn cpu_used(group: &Group) -> Duration {
    group.cpu_usage().ok().flatten().unwrap_or_default()
}

fn notify_socket(
    act: &Act,
    launch: &LaunchPlan,
    id: &InstanceId,
    run: RunId,
    owner: Owner,
) -> Result<Option<(NotifySocket, PathBuf)>, ActError> {
    if launch.notify.is_none() {
        return Ok(None);
    }
    let path = notify_path(&act.plan.runtime_dir, id, run);
    if owner != Owner::us() {
        chown::make_searchable(path.parent().unwrap_or(&path)).map_err(ActError::Owner)?;
    }
    let bound = NotifySocket::bind(&path, SocketAccess::Owner).map_err(ActError::Channel);
    let given = bound.and_then(|socket| {
        if owner != Owner::us() {
            chown::chown(&path, owner).map_err(ActError::Owner)?;
        }
        Ok(socket)
    });
    match given {
        Ok(socket) => Ok(Some((socket, path))),
        Err(error) => {
            let _was_not_made = fs::remove_file(&path);
            Err(error)
        }
    }
}

/// The path of the run's notify socket.
pub(super) fn notify_path(runtime_dir: &Path, id: &InstanceId, run: RunId) -> PathBuf {
    runtime_dir.join("notify").join(format!("{id}.{run}.sock"))
}

pub(super) fn c_string(
    text: impl AsRef<std::ffi::OsStr>,
    what: &'static str,
) -> Result<CString, ActError> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(text.as_ref().as_bytes()).map_err(|_| ActError::Nul { what })
}
