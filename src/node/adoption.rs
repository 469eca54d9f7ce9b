//! Adoption of what a former orchestrator left: descriptors and its checkpoint are found and
//! judged, and the node goes on with its runs as if this process had run all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::error::BootError;
use super::host::Arrival;
use super::in_force::{ConfigFile, InForce};
use super::loader::{Configured, Loader};
use crate::act::{Act, Former, InheritedFds, Known, Spared, StartedRun, Unread};
use crate::config::{NodeConfig, RuntimeOverrides};
use crate::decide::{AdoptedRun, Effect, Node, resume};
use crate::linux::{exec_handover, listen_fds};
use crate::rpc::pb::node::{Degradation, HistoryRecord};
use crate::telemetry::LogStore;
use crate::units::{InstanceId, Level, RunId, Tick};

/// The degradation for a checkpoint of which something was missing or not understood.
const CHECKPOINT: &str = "checkpoint";
/// How many remarks about the checkpoint a degradation shows.
const REMARKS_MOST: usize = 8;

/// What was inherited, before it is adopted.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    pub(super) arrival: Arrival,
    pub(super) inherited_fds: InheritedFds,
    /// The former orchestrator's state; `None`: the node starts from nothing.
    pub(super) former: Option<Former>,
    /// Why something inherited cannot be used, in words for the log.
    remarks: Vec<String>,
}

/// Takes the descriptors that the service manager stored, or those of an exec handover. To be
/// called before anything else opens descriptors.
pub(super) fn take() -> Result<Adoption, BootError> {
    let (arrival, kept) = match exec_handover::take()? {
        Some(handed_over) => (Arrival::InPlace, handed_over),
        None => (Arrival::Started, listen_fds::take_stored()?),
    };
    let inherited_fds = InheritedFds::sort(kept);
    let mut remarks: Vec<String> = inherited_fds
        .unknown
        .iter()
        .map(|name| format!("a descriptor named {name:?} was passed to us and is closed"))
        .collect();
    let former = match inherited_fds.former() {
        // Its orderly shutdown had begun: none of its services is to go on.
        Ok(former) => former.filter(|former| !former.node.is_ending()),
        Err(error) => {
            remarks.push(format!(
                "the former orchestrator's state: {error}; its services are ended and started anew"
            ));
            None
        }
    };
    Ok(Adoption { arrival, inherited_fds, former, remarks })
}

impl Adoption {
    /// The configuration that the former orchestrator had in force, or else the file.
    pub(super) fn configuration(&mut self, loader: &Loader) -> Result<Configured, BootError> {
        let Some(text) = self.former.as_ref().and_then(|former| former.config.as_ref()) else {
            return loader.load().map_err(BootError::Configuration);
        };
        match loader.load_text(text) {
            Ok(configured) => Ok(configured),
            Err(why) => {
                self.remarks.push(format!("the configuration that was in force: {why}"));
                loader.load().map_err(BootError::Configuration)
            }
        }
    }

    /// The configuration with the former orchestrator's overrides, as far as they still fit.
    pub(super) fn in_force(&mut self, configured: &Configured) -> Result<InForce, BootError> {
        let file = ConfigFile::new(configured.config.clone(), configured.text.clone());
        if let Some(overrides) = self.overrides(&configured.config) {
            let why = match InForce::new(file.clone(), overrides.clone()) {
                Ok(in_force) => return Ok(in_force),
                Err(why) => why,
            };
            self.remarks.push(format!("what was changed beside the configuration: {why}"));
            // The numbers of instances hold in any case, so that running instances go on.
            let scaled = RuntimeOverrides { scaled: overrides.scaled, ..Default::default() };
            if let Ok(in_force) = InForce::new(file.clone(), scaled) {
                return Ok(in_force);
            }
        }
        let without = InForce::new(file, RuntimeOverrides::default());
        without.map_err(|error| BootError::Configuration(error.to_string()))
    }

    /// The overrides of the former orchestrator. If its checkpoint could not be read, each service
    /// is scaled to the instances of which descriptors were inherited.
    fn overrides(&self, file: &NodeConfig) -> Option<RuntimeOverrides> {
        let former = self.former.as_ref()?;
        let mut overrides = former.overrides.clone();
        let unknown = former.node.instances.keys().filter(|_| former.known == Known::Descriptors);
        for id in unknown {
            let Some(service) = file.services.get(&id.service) else { continue };
            let known = overrides.scaled.get(&id.service).copied().unwrap_or(service.instances);
            let needed = id.index.saturating_add(1);
            if needed > known {
                overrides.scaled.insert(id.service.clone(), needed);
            }
        }
        Some(overrides)
    }

    /// Adds a remark for the log.
    pub(super) fn remark(&mut self, words: String) {
        self.remarks.push(words);
    }

    /// For a rehearsal: an error if there is no checkpoint that could be read.
    pub(super) fn must_go_on(&self) -> Result<(), BootError> {
        match &self.former {
            Some(former) if former.known == Known::Descriptors => {
                Err(BootError::NotUnderstood(former.remarks.join("; ")))
            }
            Some(_) => Ok(()),
            None => Err(BootError::NotUnderstood(self.remarks.join("; "))),
        }
    }

    /// What was missing or not understood in the checkpoint.
    pub(super) fn degradation(&self) -> Option<Degradation> {
        let former = self.former.as_ref()?;
        let instead = match former.known {
            Known::Instances | Known::SomeInstances => {
                "runs go on; what is not known of them is what harms none"
            }
            Known::Descriptors => {
                "runs go on by their descriptors, as ready, with the configuration of the file"
            }
        };
        in_short(&former.remarks).map(|missing| Degradation {
            name: CHECKPOINT.to_owned(),
            missing,
            instead: instead.to_owned(),
        })
    }

    pub(super) fn generation(&self) -> u32 {
        self.former.as_ref().map_or(1, |former| former.generation.saturating_add(1))
    }

    pub(super) fn tell(&self, log_store: &LogStore) {
        for remark in &self.remarks {
            log_store.node_line(Level::Warn, remark, &[]);
        }
    }

    /// The core's state after the adoption; `None`: the node starts from nothing.
    pub(super) fn resume(&self, in_force: &InForce, now: Tick) -> Option<Resumed> {
        let former = self.former.as_ref()?;
        let adopted = self.inherited_fds.adoptable(former);
        let (node, effects) = resume(former.node.clone(), &in_force.planned(), &adopted, now);
        let goes_on =
            |(id, adopted): &(InstanceId, AdoptedRun)| node.owner(adopted.run) == Some(id);
        let runs = adopted.into_iter().filter(goes_on).collect();
        Some(Resumed { node, effects, runs })
    }
}

/// The core's state after an adoption, the effects that follow, and the runs to adopt.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) node: Node,
    pub(super) effects: Vec<Effect>,
    runs: BTreeMap<InstanceId, AdoptedRun>,
}

/// The adopted runs and their logs, for the observers.
#[derive(Debug, Default)]
pub(super) struct AdoptedRuns {
    pub(super) started_runs: Vec<(InstanceId, RunId, StartedRun)>,
    pub(super) unread: Vec<Unread>,
    /// The history of the former orchestrator, oldest first.
    pub(super) recorded: Vec<HistoryRecord>,
}

impl Resumed {
    pub(super) fn spared(&self, inherited_fds: &InheritedFds, runtime_dir: &Path) -> Spared {
        let runs = self.runs.iter().map(|(id, adopted)| (id.clone(), adopted.run));
        inherited_fds.spared(runs.collect::<BTreeSet<_>>(), runtime_dir)
    }
}

impl Adoption {
    /// Adopts the runs of `resumed`, and releases all other inherited descriptors.
    pub(super) fn adopt(self, resumed: Option<&Resumed>, act: &mut Act) -> AdoptedRuns {
        let Self { mut inherited_fds, former, .. } = self;
        let mut started_runs = Vec::new();
        for (id, adopted) in resumed.iter().flat_map(|resumed| &resumed.runs) {
            let saved = former.as_ref().and_then(|former| former.runs.get(&adopted.run));
            match act.adopt_run(&mut inherited_fds, (id, *adopted), saved.cloned()) {
                Ok(started_run) => started_runs.push((id.clone(), adopted.run, started_run)),
                Err(error) => tracing::error!(%error, instance = %id, "cannot be taken over"),
            }
        }
        let recorded = std::mem::take(&mut inherited_fds.recorded);
        let unread = act.settle_unadopted(inherited_fds);
        AdoptedRuns { started_runs, unread, recorded }
    }
}

/// The first remarks, and how many more there are; `None`: there are none.
fn in_short(remarks: &[String]) -> Option<String> {
    let (shown, more) = remarks.split_at(remarks.len().min(REMARKS_MOST));
    let more = (!more.is_empty()).then(|| format!("{} more", more.len()));
    let words: Vec<&str> = shown.iter().chain(&more).map(String::as_str).collect();
    (!words.is_empty()).then(|| words.join("; "))
}
