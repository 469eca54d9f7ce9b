//! The limits of the instances, written into their groups and read back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;

use super::error::ActError;
use crate::decide::{ChangeId, Event, LimitsRefusal, News, Usage};
use crate::linux::cgroupfs::Group;
use crate::plan::{GroupLimit, GroupLimits, Plan};
use crate::units::{ByteSize, InstanceId, RunId};

/// One limit as it is wanted and as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitInForce {
    pub wanted: GroupLimit,
    /// `None`: nothing enforces it on this host.
    pub set: Option<String>,
}

impl LimitInForce {
    pub fn is_met(&self) -> bool {
        self.set.as_ref().is_some_and(|set| self.wanted.is_met_by(set))
    }
}

/// Writes the limits that the group's controllers can enforce. A limit whose controller is missing
/// on this host is skipped and named among the node's degradations; one that the kernel refuses is
/// an error, and the run does not start.
pub(super) fn set(group: &Group, limits: &GroupLimits) -> Result<(), ActError> {
    for limit in limits.files() {
        if group.read_optional(limit.file).map_err(ActError::Group)?.is_some() {
            write(group, limit.file, &limit.value)?;
        }
    }
    Ok(())
}

pub(super) fn write(group: &Group, file: &'static str, value: &str) -> Result<(), ActError> {
    let refused = |reason| ActError::Limit { file, value: value.to_owned(), reason };
    group.write(file, value).map_err(refused)
}

/// The limits as the kernel has them now.
pub(super) fn in_force(group: Option<&Group>, limits: &GroupLimits) -> Vec<LimitInForce> {
    let set = |file| group.and_then(|group| group.read_optional(file).ok().flatten());
    let shown = |text: String| text.lines().next().unwrap_or_default().trim().to_owned();
    let each = |wanted: GroupLimit| LimitInForce { set: set(wanted.file).map(shown), wanted };
    limits.files().into_iter().map(each).collect()
}

/// What the group uses, and the memory limits that the kernel holds it to.
pub(super) fn usage(group: &Group) -> Result<Usage, ActError> {
    let size = |file| {
        let text = group.read_optional(file).map_err(ActError::Group)?;
        Ok::<_, ActError>(text.and_then(|text| text.trim().parse().ok()).map(ByteSize))
    };
    let memory = group.memory_current().map_err(ActError::Group)?;
    Ok(Usage { memory, memory_max: size("memory.max")?, memory_high: size("memory.high")? })
}

/// Has the kernel reclaim `bytes` of the group's memory. Until the caller sets the next limits, the
/// group is slowed down above `high`.
fn reclaim(group: &Group, high: ByteSize, bytes: u64) -> Result<Usage, ActError> {
    write(group, "memory.high", &high.0.to_string())?;
    // Linux before 5.19 has no such file; EAGAIN: less could be reclaimed.
    let _tried = group.write("memory.reclaim", &bytes.to_string());
    usage(group)
}

/// Whether the error says that the group was removed. The next run of the instance begins with the
/// limits anyway.
pub(super) fn is_gone(error: &ActError) -> bool {
    if let ActError::Group(reason) | ActError::Limit { reason, .. } = error {
        return matches!(reason.errno(), Some(libc::ENOENT | libc::ENODEV));
    }
    false
}

/// How many outcomes may wait for the node's loop.
const QUEUE: usize = 64;

/// One step of a change of limits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Set(GroupLimits),
    Reclaim { high: ByteSize, bytes: u64 },
}

/// Carries out changes of limits on threads of their own: the kernel reclaims memory while the
/// writer of the file waits. The steps of one instance follow each other.
#[derive(Debug)]
pub struct LimitThreads {
    latest: BTreeMap<InstanceId, JoinHandle<()>>,
    report: mpsc::Sender<Event>,
    outcomes: mpsc::Receiver<Event>,
}

impl Default for LimitThreads {
    fn default() -> Self {
        let (report, outcomes) = mpsc::channel(QUEUE);
        Self { latest: BTreeMap::new(), report, outcomes }
    }
}

impl LimitThreads {
    /// The next outcome. Cancel safe.
    pub async fn outcome(&mut self) -> Event {
        match self.outcomes.recv().await {
            Some(event) => event,
            // `self.report` is a sender: the channel is never closed.
            None => std::future::pending().await,
        }
    }

    pub(super) fn begin(
        &mut self,
        id: &InstanceId,
        (run, change): (RunId, ChangeId),
        group: Arc<Group>,
        work: Work,
    ) -> Option<Event> {
        self.latest.retain(|_, thread| !thread.is_finished());
        let before = self.latest.remove(id);
        let report = self.report.clone();
        let body = move || {
            if let Some(before) = before {
                let _it_reported_by_itself = before.join();
            }
            let news = carry_out(&group, change, work);
            let _the_node_ends = report.blocking_send(Event::News { run, news });
        };
        match thread::Builder::new().name("limits".to_owned()).spawn(body) {
            Ok(thread) => {
                self.latest.insert(id.clone(), thread);
                None
            }
            Err(reason) => {
                let error = ActError::Thread(reason.to_string());
                Some(Event::News { run, news: refused(change, &error) })
            }
        }
    }
}

fn carry_out(group: &Group, change: ChangeId, work: Work) -> News {
    let done = match work {
        Work::Set(limits) => set(group, &limits).map(|()| News::LimitsSet { change }),
        Work::Reclaim { high, bytes } => {
            reclaim(group, high, bytes).map(|usage| News::Usage { change, usage })
        }
    };
    match done {
        Ok(news) => news,
        Err(error) if is_gone(&error) => News::LimitsSet { change },
        Err(error) => refused(change, &error),
    }
}

pub(super) fn refused(change: ChangeId, error: &ActError) -> News {
    News::LimitsRefused { change, refusal: LimitsRefusal::Kernel(error.to_string()) }
}

/// Sets `memory.min` and `memory.low` of `services` to the sum of its instances': the kernel
/// protects a group's memory only as far as that of the group around it.
pub(super) fn protect(services: &Group, plan: &Plan) -> Result<(), ActError> {
    let sum = |size: fn(&GroupLimits) -> Option<ByteSize>| {
        let all = plan.instances.values().filter_map(|instance| size(&instance.limits.in_force()));
        all.fold(0_u64, |sum, size| sum.saturating_add(size.0)).to_string()
    };
    for (file, sum) in [
        ("memory.min", sum(|limits| limits.memory_min)),
        ("memory.low", sum(|limits| limits.memory_low)),
    ] {
        if services.read_optional(file).map_err(ActError::Group)?.is_some() {
            write(services, file, &sum)?;
        }
    }
    Ok(())
}
