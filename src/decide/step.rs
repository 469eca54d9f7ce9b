//! `step`: the one function that changes the state. Total: every phase has an answer to every
//! event, and the answer to what does not concern it is to stay as it is.

use std::collections::BTreeSet;

use super::effect::{Announcement, Effect, RemarkKind};
use super::event::{Check, Command, Event, News, Notice, Urgency};
use super::limits;
use super::node::{Effects, Goal, Instance, Node};
use super::order::{advance, wake_dependants};
use super::phase::{Phase, StopReason, StopStep};
use super::replan::{replan, restart_followers};
use super::settle::{exited, never_started, settle};
use super::stop::{KILL_PATIENCE, begin_stop, kill_now, next_stop_step};
use super::wanted::{restart_run, want_down, want_up};
use crate::plan::Readiness;
use crate::units::{InstanceId, Pid, Tick};

/// Applies one event at one time. Deterministic: the same state, time and event give the same
/// state and the same effects, which are to be carried out in their order.
pub fn step(node: &mut Node, now: Tick, event: Event) -> Vec<Effect> {
    let effects = take(node, now, event);
    debug_assert_eq!(super::invariants::broken_invariant(node, now), None);
    effects
}

/// [`step`], unchecked.
pub(super) fn take(node: &mut Node, now: Tick, event: Event) -> Vec<Effect> {
    let mut out = Effects::default();
    match event {
        Event::Tick => on_tick(node, now, &mut out),
        Event::Command(command) => on_command(node, command, now, &mut out),
        Event::News { run, news } => {
            // News about a run that is over is dropped here and nowhere else.
            if let Some(id) = node.runs.get(&run).cloned() {
                let before = node.is_ready(&id);
                on_news(node, &id, news, now, &mut out);
                if !before && node.is_ready(&id) {
                    wake_dependants(node, &id.service);
                    restart_followers(node, &id, now, &mut out);
                }
                limits::leave_if_ended(node, &id);
                let over = node.instances.get(&id).is_none_or(|i| i.phase.run() != Some(run));
                if over {
                    node.runs.remove(&run);
                }
            }
        }
    }
    advance(node, now, &mut out);
    out.0
}

fn on_tick(node: &mut Node, now: Tick, out: &mut Effects) {
    let due = node.instances.due(now);
    for id in &due {
        let Some(instance) = node.instances.get_mut(id) else { continue };
        if instance.phase.deadline().is_none_or(|deadline| deadline > now) {
            continue;
        }
        match &mut instance.phase {
            Phase::Starting { .. } => begin_stop(id, instance, StopReason::StartTimeout, now, out),
            Phase::Ready { .. } => begin_stop(id, instance, StopReason::Watchdog, now, out),
            Phase::Stopping { .. } => next_stop_step(id, instance, now, out),
            Phase::Clearing { run, deadline, .. } => {
                *deadline = now + KILL_PATIENCE;
                out.note(id, Some(*run), RemarkKind::Unkillable);
                out.push(Effect::Clear { run: *run });
            }
            Phase::Backoff { .. } => instance.phase = Phase::Waiting,
            Phase::Stopped | Phase::Waiting | Phase::Failed(_) => {}
        }
    }
    limits::on_tick(node, due, now, out);
}

fn on_command(node: &mut Node, command: Command, now: Tick, out: &mut Effects) {
    match command {
        Command::Start(ids) => {
            for id in with_needs(node, ids) {
                want_up(node, &id);
            }
        }
        Command::Stop(ids) => {
            for id in ids {
                want_down(node, &id);
            }
        }
        Command::Restart(ids) if node.goal == Goal::Run => {
            for id in ids {
                want_up(node, &id);
                if let Some(instance) = node.instances.get_mut(&id) {
                    restart_run(&id, instance, StopReason::Operator, now, out);
                }
            }
        }
        Command::Replan(plan) if node.goal == Goal::Run => replan(node, plan, now, out),
        Command::SetLimits(layers) if node.goal == Goal::Run => {
            limits::set_limits(node, layers, now, out);
        }
        Command::Restart(_) | Command::Replan(_) | Command::SetLimits(_) => {}
        Command::Shutdown(urgency) => shut_down(node, urgency, now, out),
    }
}

fn shut_down(node: &mut Node, urgency: Urgency, now: Tick, out: &mut Effects) {
    if node.goal == Goal::Run {
        out.push(Effect::Announce(Announcement::Stopping));
    }
    node.goal = Goal::Shutdown;
    let ids: Vec<InstanceId> = node.instances.keys().cloned().collect();
    for id in &ids {
        want_down(node, id);
    }
    match urgency {
        Urgency::Orderly => {}
        Urgency::Now => {
            for id in &ids {
                if let Some(instance) = node.instances.get_mut(id) {
                    kill_now(id, instance, now, out);
                }
            }
        }
    }
}

/// The given instances and, transitively, all instances of the services they need.
fn with_needs(node: &Node, ids: BTreeSet<InstanceId>) -> BTreeSet<InstanceId> {
    let mut all = BTreeSet::new();
    let mut open: Vec<InstanceId> = ids.into_iter().collect();
    while let Some(id) = open.pop() {
        let Some(instance) = node.instances.get(&id) else { continue };
        if all.insert(id) {
            let needed = instance.rules.needs.iter().flat_map(|need| node.instances.of(need));
            open.extend(needed.map(|(needed, _)| needed.clone()));
        }
    }
    all
}

fn on_news(node: &mut Node, id: &InstanceId, news: News, now: Tick, out: &mut Effects) {
    let goal = node.goal;
    let rng = &mut node.rng;
    let Some(instance) = node.instances.get_mut(id) else { return };
    match news {
        News::Usage { change, usage } => limits::on_usage(node, id, change, usage, now, out),
        News::LimitsSet { change } => limits::on_limits_set(node, id, change, now, out),
        News::LimitsRefused { change, refusal } => {
            limits::on_limits_refused(node, id, change, refusal, now, out);
        }
        News::Spawned { pid } => note_pid(instance, pid),
        News::SpawnFailed(failure) => {
            never_started(id, instance, failure, now, (goal, rng, out));
        }
        News::Executed => become_ready(id, instance, Readiness::Started, now, out),
        News::ExecFailed(failure) => {
            if let Phase::Starting { exec_failure, .. } = &mut instance.phase {
                *exec_failure = Some(failure);
            }
        }
        News::PortOpen => {
            if let Readiness::Port(_) = instance.rules.readiness {
                become_ready(id, instance, instance.rules.readiness, now, out);
            }
        }
        News::Checked(check) => on_check(id, instance, check, now, out),
        News::Notice(notice) => on_notice(id, instance, notice, now, out),
        News::Memory(memory) => {
            instance.memory = memory;
            out.note(id, instance.phase.run(), RemarkKind::Memory(memory));
        }
        News::Exited { facts, group } => {
            exited(id, instance, facts, group, now, (goal, rng, out));
        }
        News::GroupEmpty => {
            if let Phase::Clearing { ended, .. } = &instance.phase {
                let ended = ended.clone();
                settle(id, instance, ended, now, (goal, rng, out));
            }
        }
    }
}

fn note_pid(instance: &mut Instance, new: Pid) {
    match &mut instance.phase {
        Phase::Starting { pid, .. } | Phase::Stopping { pid, .. } => *pid = Some(new),
        Phase::Stopped
        | Phase::Waiting
        | Phase::Ready { .. }
        | Phase::Clearing { .. }
        | Phase::Backoff { .. }
        | Phase::Failed(_) => {}
    }
}

/// Takes a sign of readiness if it is the one the rules ask for and the service is starting.
fn become_ready(
    id: &InstanceId,
    instance: &mut Instance,
    sign: Readiness,
    now: Tick,
    out: &mut Effects,
) {
    if sign != instance.rules.readiness {
        return;
    }
    if let Phase::Starting { run, since, pid: Some(pid), exec_failure: None, .. } = instance.phase {
        let watchdog = instance.rules.watchdog.map(|patience| now + patience);
        out.note(id, Some(run), RemarkKind::Ready { pid, after: now.since(since) });
        instance.phase =
            Phase::Ready { run, pid, spawned: since, since: now, strikes: 0, watchdog };
    }
}

fn on_check(id: &InstanceId, instance: &mut Instance, check: Check, now: Tick, out: &mut Effects) {
    let threshold = instance.rules.unhealthy_threshold;
    let run = instance.phase.run();
    match check {
        Check::Healthy => {
            instance.last_check = Some((now, true));
            become_ready(id, instance, Readiness::Grpc, now, out);
            if let Phase::Ready { strikes, .. } = &mut instance.phase {
                *strikes = 0;
            }
        }
        Check::Starved => out.note(id, run, RemarkKind::Starved),
        Check::Failed(why) => {
            let Phase::Ready { strikes, .. } = &mut instance.phase else { return };
            *strikes = strikes.saturating_add(1);
            let strikes = *strikes;
            instance.last_check = Some((now, false));
            out.note(id, run, RemarkKind::Unhealthy { why: why.clone(), strikes, threshold });
            if strikes >= threshold {
                let why = format!("{strikes} checks in a row failed, the last: {why}");
                begin_stop(id, instance, StopReason::Unhealthy(why), now, out);
            }
        }
    }
}

fn on_notice(
    id: &InstanceId,
    instance: &mut Instance,
    notice: Notice,
    now: Tick,
    out: &mut Effects,
) {
    let patience = instance.rules.watchdog;
    match notice {
        Notice::Ready => become_ready(id, instance, Readiness::Notify, now, out),
        Notice::Status(text) => instance.status_text = text,
        Notice::Stopping => begin_stop(id, instance, StopReason::OwnAccord, now, out),
        Notice::Watchdog => {
            if let Phase::Ready { watchdog, .. } = &mut instance.phase {
                *watchdog = patience.map(|patience| now + patience);
            }
        }
        Notice::WatchdogTrigger => begin_stop(id, instance, StopReason::Watchdog, now, out),
        Notice::ExtendTimeout(by) => match &mut instance.phase {
            Phase::Starting { deadline, .. } => *deadline = (*deadline).max(now + by),
            Phase::Stopping {
                deadline, stop_step: StopStep::OwnAccord | StopStep::Term, ..
            } => {
                *deadline = (*deadline).max(now + by);
            }
            Phase::Stopped
            | Phase::Waiting
            | Phase::Ready { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. }
            | Phase::Backoff { .. }
            | Phase::Failed(_) => {}
        },
    }
}
