//! Resuming the runs of a former orchestrator, and saving the state for the next one.

use super::adoption::AdoptedRuns;
use super::reload_queue::ReloadRequest;
use super::supervisor::Supervisor;
use crate::act::{HistoryRoom, State, Unread};
use crate::decide::Effect;
use crate::rpc::pb::node::HistoryRecord;
use crate::units::{Level, Pid};

impl Supervisor {
    /// Resumes after an adoption: adopted runs are observed, unread output is read, and the effects
    /// that follow are performed. Then the configuration file is read, which may have changed.
    pub(super) fn go_on(&mut self, adopted_runs: AdoptedRuns, effects: Vec<Effect>) {
        let AdoptedRuns { started_runs, unread, recorded } = adopted_runs;
        self.facts.history.restore(recorded);
        let count = started_runs.len();
        self.say(Level::Info, &format!("goes on where the former one stopped, with {count} runs"));
        for (id, run, started_run) in started_runs {
            self.watch(&id, run, started_run);
        }
        for Unread { instance, run, pipes } in unread {
            for (part, pipe) in pipes {
                self.observers.read_on((&instance, run, Pid(0)), (pipe, part));
            }
        }
        let events = self.perform_all(effects);
        self.take_all(events.into());
        self.save();
        self.pending.reload.push(ReloadRequest::Signal);
    }

    pub(super) fn save(&mut self) {
        self.timers.unsaved = 0;
        let state = self.state();
        if let Err(error) = self.act.save(state) {
            self.say(
                Level::Error,
                &format!("the state is not saved; a crash loses what it is: {error}"),
            );
        }
    }

    /// Adds a record to the history log.
    pub(super) fn write_down(&mut self, record: &HistoryRecord) {
        let written = match self.act.record(record) {
            Ok(HistoryRoom::Full) => self.act.record_anew(&self.facts.history.records()),
            Ok(HistoryRoom::Enough) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            self.say(Level::Warn, &error.to_string());
        }
    }

    pub(super) fn state(&self) -> State {
        State {
            generation: self.facts.generation,
            began_at: self.observers.context.clock.began_at(),
            config: self.in_force.file.text.clone(),
            overrides: self.in_force.overrides.clone(),
            node: self.node.saved(),
        }
    }
}
