//! The node from its start to its end: the supervise loop, exec handovers, and the last log lines.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::adoption::Resumed;
use super::boot::Booted;
use super::control_service::ServedControl;
use super::history::History;
use super::logs::LogSources;
use super::observers::{ObserverContext, Observers, Pumps};
use super::reload_queue::ReloadQueue;
use super::remarks;
use super::status::CpuSamples;
use super::status_watchers::StatusWatchers;
use super::supervise::{Inbox, LAST_WORDS};
use super::supervisor::{End, Facts, Pending, Supervisor, Timers};
use crate::control::server::ControlService;
use crate::decide::{Event, Node};
use crate::linux::process;
use crate::observe::news::QUEUE;
use crate::units::{Level, ServiceName};

/// Runs the services until the node is told to end and nothing runs any more.
pub(super) async fn live(booted: Booted) {
    let Booted { in_force, generation, loader, resumed, adopted_runs, clock, log_store, .. } =
        booted;
    let Booted { host, act, signals, control, _locks, .. } = booted;
    let (reports, observations) = mpsc::channel(QUEUE);
    let (requested_by, requests) = mpsc::channel(crate::control::server::QUEUE);
    let services: Arc<[ServiceName]> = in_force.config.services.keys().cloned().collect();
    let services = watch::Sender::new(services);
    let sources = LogSources { log_store: log_store.clone(), services: services.subscribe() };
    let control_service = ControlService::new(requested_by, sources);
    let (node, effects) = match resumed {
        Some(Resumed { node, effects, .. }) => (node, Some(effects)),
        None => (Node::new(in_force.planned(), seed()), None),
    };
    let context = ObserverContext {
        observations: reports,
        clock,
        log_store: log_store.clone(),
        health_checks: watch::Sender::new(in_force.config.health_checks),
        services,
        control_service: control_service.clone(),
        stop_pumps: watch::Sender::new(Pumps::Run),
    };
    let watchdog = act.service_manager.watchdog_interval.map(tokio::time::interval);
    let mut inbox = Inbox { observations, requests, signals, watchdog };
    let reload = ReloadQueue::new(loader);
    let (history, cpu_samples) = (History::default(), CpuSamples::default());
    let mut supervisor = Supervisor {
        node,
        in_force,
        act,
        observers: Observers::new(context),
        pending: Pending {
            reload,
            refused_reload: None,
            upgrade: None,
            waiters: Vec::new(),
            status_watchers: StatusWatchers::default(),
        },
        timers: Timers::default(),
        facts: Facts { host, generation, history, cpu_samples },
        end: None,
    };
    remarks::log_degradations(&log_store, &supervisor.facts.host);
    supervisor.tell_addresses();
    if let Some(effects) = effects {
        supervisor.go_on(adopted_runs, effects);
    }
    supervisor.take(Event::Tick);
    let served = loop {
        let served = ServedControl::on(&control, control_service.clone());
        let End::HandOver(program) = supervisor.run(&mut inbox).await else { break served };
        end(served).await;
        supervisor.hand_over(&program, &control).await;
    };
    supervisor.clean_up().await;
    end(served).await;
    log_store.node_line(Level::Info, "stopped", &[]);
    if let Some(sink) = log_store.sink() {
        sink.close(LAST_WORDS).await;
    }
    supervisor.act.service_manager.status("stopped".to_owned());
    let _told_or_not = timeout(LAST_WORDS, supervisor.act.service_manager.flush()).await;
}

async fn end(served: Option<ServedControl>) {
    if let Some(served) = served {
        served.end().await;
    }
}

/// The seed of the restart jitter; it need not be secret.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| u64::from(process::own_pid().0.unsigned_abs()))
}

impl Supervisor {
    fn tell_addresses(&self) {
        let runtime_dir = &self.in_force.config.node.runtime_dir;
        let control = runtime_dir.join(crate::control::SOCKET);
        self.say(Level::Info, &format!("control socket {}", control.display()));
        let sockets = runtime_dir.join("sockets");
        self.say(Level::Info, &format!("service sockets in {}", sockets.display()));
        if let Some(api) = self.act.api() {
            self.say(Level::Info, &format!("API http://{api} (GET /health, /metrics)"));
        }
    }
}
