//! `upgrade`, and a `reload` that became one: the running orchestrator becomes another program.

use serde_json::json;

use super::args::UpgradeArgs;
use super::console::{Console, printable};
use super::error::Error;
use super::exit::ExitCode;
use crate::control::client::{Client, NextOrchestrator};
use crate::rpc::pb::node::UpgradeReply;

/// Upgrades the orchestrator, and waits until the new one answers.
pub async fn upgrade(
    mut node: Client,
    args: &UpgradeArgs,
    console: &mut Console<'_>,
) -> Result<ExitCode, Error> {
    let program = match &args.binary {
        Some(path) => {
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            whole.to_string_lossy().into_owned()
        }
        None => String::new(),
    };
    let reply = node.upgrade(&program).await?;
    wait_for_successor(&node, &reply, args.json, console).await
}

/// The upgrade was accepted: waits until the new orchestrator answers, and prints its version.
pub async fn wait_for_successor(
    node: &Client,
    reply: &UpgradeReply,
    json: bool,
    console: &mut Console<'_>,
) -> Result<ExitCode, Error> {
    let UpgradeReply { from_version, to_version, generation } = reply;
    let NextOrchestrator { info, instances } = node.successor(*generation).await?;
    let text = if json {
        let told = json!({
            "from": from_version,
            "to": to_version,
            "pid": info.pid,
            "generation": info.generation,
            "instances": instances,
        });
        format!("{told}\n")
    } else {
        let (pid, generation) = (info.pid, info.generation);
        let what = format!("upgraded from {from_version} to {to_version}");
        printable(&format!("{what}: pid {pid}, generation {generation}")).to_string() + "\n"
    };
    console.out.write_all(text.as_bytes())?;
    console.out.flush()?;
    Ok(ExitCode::Ok)
}
