//! `start`, `stop` and `restart`: send a command, wait for the outcome, print it on a line each.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use super::console::{Console, printable};
use super::error::Error;
use super::exit::ExitCode;
use crate::control::Wait;
use crate::control::client::{Action, Client};
use crate::rpc::pb::node::{InstancePhase as Phase, InstanceStatus, NodeStatus};

/// Acts on all names at once, for they may depend on each other, and writes each outcome when it
/// is known. Nothing is done when one of the names does not exist.
pub async fn on_services(
    node: &mut Client,
    action: Action,
    names: &[String],
    wait: Wait,
    console: &mut Console<'_>,
) -> Result<ExitCode, Error> {
    let status = node.status("").await?;
    let names: BTreeSet<&String> = names.iter().collect();
    for name in &names {
        known(name, &status)?;
    }
    let mut running = JoinSet::new();
    for name in names {
        let (mut node, name) = (node.clone(), name.clone());
        running.spawn(async move { node.act(action, &name, wait).await });
    }
    let mut code = ExitCode::Ok;
    while let Some(joined) = running.join_next().await {
        let outcome = joined.expect("no call is aborted, and a panic has ended the process");
        match outcome {
            Ok(instances) => code = worse(code, report(&instances, console)?),
            Err(error) => {
                let error = Error::from(error);
                writeln!(console.err, "{}", printable(&error.to_string()))?;
                code = worse(code, error.exit_code());
            }
        }
    }
    console.out.flush()?;
    Ok(code)
}

/// Ends the whole node.
pub async fn stop_node(
    node: &mut Client,
    wait: Wait,
    console: &mut Console<'_>,
) -> Result<ExitCode, Error> {
    let info = node.status("").await?.node.unwrap_or_default();
    let ending = node.ending(info.pid)?;
    node.shutdown().await?;
    writeln!(console.out, "stopping node {} (pid {})", printable(&info.name), info.pid)?;
    console.out.flush()?;
    match wait {
        Wait::Outcome => ending.wait().await?,
        Wait::Accepted => {}
    }
    Ok(ExitCode::Ok)
}

/// The first thing that went wrong decides the exit code.
fn worse(before: ExitCode, now: ExitCode) -> ExitCode {
    if before == ExitCode::Ok { now } else { before }
}

fn report(instances: &[InstanceStatus], console: &mut Console<'_>) -> Result<ExitCode, Error> {
    for instance in instances {
        writeln!(console.out, "{}", outcome(instance))?;
    }
    let failed = instances.iter().any(|instance| instance.known_phase() == Some(Phase::Failed));
    Ok(if failed { ExitCode::Failed } else { ExitCode::Ok })
}

/// `storage-0 ready (pid 123)`, `ledger-0 failed: exit code 1`
fn outcome(instance: &InstanceStatus) -> String {
    printable(&format!("{} {}", instance.instance, settled_words(instance)))
}

/// `ready (pid 123)`, `failed: exit code 1`
pub(super) fn settled_words(instance: &InstanceStatus) -> String {
    let mut words = instance.phase.clone();
    if instance.pid != 0 {
        words += &format!(" (pid {})", instance.pid);
    }
    // The reason of what is ready or stopped tells of the run before.
    let settled = matches!(instance.known_phase(), Some(Phase::Ready | Phase::Stopped));
    if !settled && !instance.reason.is_empty() {
        words += &format!(": {}", instance.reason);
    }
    words
}

fn known(name: &str, status: &NodeStatus) -> Result<(), Error> {
    let instances = status.instances.iter();
    let mut services: BTreeSet<&str> = instances.map(|one| one.service.as_str()).collect();
    services.extend(status.disabled.iter().map(String::as_str));
    let is_instance = status.instances.iter().any(|one| one.instance == name);
    if is_instance || services.contains(name) {
        return Ok(());
    }
    let known = if services.is_empty() {
        "no services".to_owned()
    } else {
        services.into_iter().collect::<Vec<_>>().join(", ")
    };
    Err(Error::NoSuchService { name: name.to_owned(), known })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::{failed, ready, troubled};

    #[test]
    fn an_outcome_is_one_line_with_its_reason() {
        assert_eq!(outcome(&ready("storage")), "storage-0 ready (pid 1002)");
        let line = "ledger-0 failed: exit code 1\\n5 restarts in 1m";
        assert_eq!(outcome(&failed("ledger")), line);
        let stopped = InstanceStatus {
            phase: "stopped".to_owned(),
            instance_phase: Phase::Stopped.into(),
            ..failed("ledger")
        };
        assert_eq!(outcome(&stopped), "ledger-0 stopped");
    }

    #[test]
    fn a_name_is_a_service_an_instance_or_a_disabled_service() {
        for name in ["storage", "storage-0", "web"] {
            assert!(known(name, &troubled()).is_ok(), "{name}");
        }
        let text = known("storag", &troubled()).unwrap_err().to_string();
        let expected = "no service or instance is named storag; \
                        this node has identity, ledger, social, storage, web";
        assert_eq!(text, expected);
        let text = known("x", &NodeStatus::default()).unwrap_err().to_string();
        assert_eq!(text, "no service or instance is named x; this node has no services");
    }
}
