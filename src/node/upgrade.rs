//! The upgrade in place: the process becomes another program by exec and keeps its children. The
//! new program shows in a rehearsal that it can take over.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tokio::task::JoinError;
use tokio::time::timeout;
use tonic::Status;

use super::observers::{PumpEnded, Pumps};
use super::reload_queue::ReloadRequest;
use super::supervise::LAST_WORDS;
use super::supervisor::{End, Supervisor};
use super::upgrade_request::{Rehearsed, Upgrade, UpgradeRequest};
use crate::act::{ActError, Pipe, RehearsalFailure, RunFd};
use crate::control::server::Responder;
use crate::decide::Goal;
use crate::linux::{exec_handover, fds};
use crate::rpc::pb::node as pb;
use crate::units::{InstanceId, Level, Pid, RunId};

impl Supervisor {
    pub(super) fn upgrade(
        &mut self,
        request: &pb::UpgradeRequest,
        reply: Responder<pb::UpgradeReply>,
    ) {
        let program = match request.program.as_str() {
            "" => fds::own_path().map_err(|error| error.to_string()),
            given if given.starts_with('/') => Ok(PathBuf::from(given)),
            given => Err(format!("{given:?} is not the absolute path of a program")),
        };
        match program {
            Ok(program) => self.begin_upgrade(program, UpgradeRequest::Upgrade(reply)),
            Err(why) => UpgradeRequest::Upgrade(reply).refuse(&Status::invalid_argument(why)),
        }
    }

    /// A reload after the file of the running program was replaced is an upgrade to the new file,
    /// which then reads the configuration.
    pub(super) fn upgrades_for(&mut self, asked: ReloadRequest) -> Option<ReloadRequest> {
        let program = match fds::replaced_executable() {
            Ok(Some(program)) => program,
            Ok(None) => return Some(asked),
            Err(error) => {
                self.say(Level::Warn, &error.to_string());
                return Some(asked);
            }
        };
        let request = match asked {
            ReloadRequest::Signal => UpgradeRequest::Signal,
            ReloadRequest::Operator { reply, .. } => UpgradeRequest::Reload(reply),
        };
        self.begin_upgrade(program, request);
        None
    }

    fn begin_upgrade(&mut self, program: PathBuf, request: UpgradeRequest) {
        if self.node.goal() == Goal::Shutdown {
            return request.refuse(&Status::failed_precondition("the node is stopping"));
        }
        if let Some(upgrade) = &mut self.pending.upgrade {
            if upgrade.program == program {
                return upgrade.requests.push(request);
            }
            return request.refuse(&Status::failed_precondition("an upgrade is under way"));
        }
        let state = self.state();
        match self.act.rehearse(&program, state) {
            Ok(rehearsal) => {
                self.act.service_manager.reloading();
                self.pending.upgrade = Some(Upgrade::new(program, rehearsal, request));
            }
            Err(error) => {
                self.say(Level::Error, &format!("not upgraded: {error}"));
                request.refuse(&Status::failed_precondition(error.to_string()));
            }
        }
    }

    /// The rehearsal is over: the loop ends for the exec handover, or goes on.
    pub(super) fn take_rehearsed(&mut self, rehearsed: Rehearsed) {
        self.act.end_rehearsal();
        let Some(upgrade) = self.pending.upgrade.take() else { return };
        let Upgrade { program, requests, .. } = upgrade;
        let lost = |error: JoinError| Err(RehearsalFailure::Otherwise(error.to_string()));
        match rehearsed.unwrap_or_else(lost) {
            Ok(version) => {
                let reply = pb::UpgradeReply {
                    from_version: env!("CARGO_PKG_VERSION").to_owned(),
                    to_version: version,
                    generation: self.facts.generation,
                };
                let to = &reply.to_version;
                self.say(Level::Info, &format!("becoming {} ({to})", program.display()));
                for request in requests {
                    request.tell(reply.clone());
                }
                self.end = Some(End::HandOver(program));
            }
            Err(unfit) => {
                let status = refusal(&program, unfit);
                self.say(Level::Error, &format!("not upgraded: {}", status.message()));
                for request in requests {
                    request.refuse(&status);
                }
                self.end_reload();
            }
        }
    }

    /// Becomes `program`. Returns only if that failed; then everything goes on as before.
    pub(super) async fn hand_over(&mut self, program: &Path, control: &UnixListener) {
        self.observers.context.stop_pumps.send_replace(Pumps::Stop);
        let mut pipes = Vec::new();
        while let Some(ended) = self.observers.pumps.join_next().await {
            match ended {
                Ok(PumpEnded { instance, run, pid, part, unread: Some(pipe) }) => {
                    pipes.push(UnreadPipe { instance, run, pid, part, pipe });
                }
                ended => self.end_pump(ended),
            }
        }
        if let Some(sink) = self.observers.context.log_store.sink() {
            // Lines that are not written in time are in the spools, where there are any.
            let _written = sink.flush(LAST_WORDS).await;
        }
        let _told_or_not = timeout(LAST_WORDS, self.act.service_manager.flush()).await;
        let why = match self.execute(program, control, &pipes) {
            Ok(never) => match never {},
            Err(why) => why,
        };
        self.say(Level::Error, &format!("not upgraded: {why}"));
        self.end_reload();
        self.observers.context.stop_pumps.send_replace(Pumps::Run);
        for UnreadPipe { instance, run, pid, part, pipe } in pipes {
            self.observers.read_on((&instance, run, pid), (pipe, part));
        }
    }

    fn execute(
        &mut self,
        program: &Path,
        control: &UnixListener,
        pipes: &[UnreadPipe],
    ) -> Result<std::convert::Infallible, ActError> {
        let state = self.state();
        let pipes = pipes.iter().map(|left| (left.part, &left.instance, left.run, &left.pipe));
        let mut adoption = self.act.handed_fds(state, pipes)?;
        let control = control.as_fd().try_clone_to_owned().map_err(ActError::Duplicate)?;
        adoption.push(("control".to_owned(), control));
        let arguments: Vec<OsString> = std::env::args_os().collect();
        exec_handover::exec(program, &arguments, &adoption).map_err(ActError::Spawn)
    }
}

/// A log pipe whose pump was stopped before its end.
struct UnreadPipe {
    instance: InstanceId,
    run: RunId,
    pid: Pid,
    part: RunFd,
    pipe: Pipe,
}

fn refusal(program: &Path, unfit: RehearsalFailure) -> Status {
    match unfit {
        RehearsalFailure::Configuration(why) => Status::invalid_argument(why),
        RehearsalFailure::Otherwise(why) => {
            let program = program.display();
            Status::failed_precondition(format!("{program} cannot take our place: {why}"))
        }
    }
}
