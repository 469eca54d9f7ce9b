//! Changes of a run's limits, carried out on its group: measure, reclaim, set.

use std::sync::Arc;

use super::Act;
use super::limits::{LimitInForce, Work, in_force, is_gone, refused, usage};
use crate::decide::{ChangeId, Event, News, Usage};
use crate::linux::cgroupfs::Group;
use crate::plan::GroupLimits;
use crate::units::{ByteSize, RunId};

impl Act {
    /// The memory that the run uses, and its limits now.
    pub fn read_usage(&self, run: RunId, change: ChangeId) -> Event {
        let read = self.group_of_run(run).map(usage).transpose();
        let news = match read {
            Ok(usage) => News::Usage { change, usage: usage.unwrap_or_default() },
            Err(error) if is_gone(&error) => News::Usage { change, usage: Usage::default() },
            Err(error) => refused(change, &error),
        };
        Event::News { run, news }
    }

    /// Reclaims memory of the run. `None`: the outcome comes by `LimitThreads::outcome`.
    pub fn reclaim(
        &mut self,
        (run, change): (RunId, ChangeId),
        high: ByteSize,
        bytes: u64,
    ) -> Option<Event> {
        self.begin_limits((run, change), Work::Reclaim { high, bytes })
    }

    /// Sets the limits of the run. `None`: the outcome comes by `LimitThreads::outcome`.
    pub fn set_limits(
        &mut self,
        (run, change): (RunId, ChangeId),
        limits: GroupLimits,
    ) -> Option<Event> {
        let holds = |limit: &LimitInForce| limit.set.is_none() || limit.is_met();
        let group = self.group_of_run(run);
        if in_force(group, &limits).iter().all(holds) {
            return Some(Event::News { run, news: News::LimitsSet { change } });
        }
        self.begin_limits((run, change), Work::Set(limits))
    }

    fn begin_limits(&mut self, (run, change): (RunId, ChangeId), work: Work) -> Option<Event> {
        let live = self.runs.get(&run);
        let found = live.and_then(|live| Some((live.instance.clone(), live.members.group()?)));
        let Some((id, group)) = found else {
            return Some(Event::News { run, news: News::LimitsSet { change } });
        };
        let group = Arc::clone(group);
        self.limit_threads.begin(&id, (run, change), group, work)
    }

    fn group_of_run(&self, run: RunId) -> Option<&Group> {
        self.runs.get(&run)?.members.group().map(Arc::as_ref)
    }
}
