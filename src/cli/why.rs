//! `why`: one screen that answers why a service is not up, or was started again.

use serde_json::{Value, json};

use super::args::WhyArgs;
use super::console::{Console, Paint, printable, rfc3339};
use super::error::Error;
use super::exit::ExitCode;
use super::status;
use crate::control::client::Client;
use crate::rpc::pb::node::{Happening, InstanceHistory, InstancePhase as Phase, InstanceStatus};

/// Asks and shows the answer.
pub async fn show(
    node: &mut Client,
    args: &WhyArgs,
    console: &mut Console<'_>,
) -> Result<ExitCode, Error> {
    let histories = node.why(&args.name).await?;
    let text = if args.json {
        let instances: Vec<Value> = histories.iter().map(json).collect();
        format!("{}\n", json!({ "instances": instances }))
    } else {
        let mut screens = Vec::new();
        for history in &histories {
            let instance = history.status.clone().unwrap_or_default().instance;
            let lines = status::newest_lines(node, &instance, console.paint).await?;
            screens.push(screen(history, lines.trim_start(), console.paint));
        }
        screens.join("\n")
    };
    console.out.write_all(text.as_bytes())?;
    console.out.flush()?;
    Ok(ExitCode::Ok)
}

fn screen(history: &InstanceHistory, lines: &str, paint: Paint) -> String {
    let none = InstanceStatus::default();
    let now = history.status.as_ref().unwrap_or(&none);
    let phase = paint.apply(status::colour(now.known_phase()), &printable(&now.phase));
    let mut text = format!("{} is {phase}", printable(&now.instance));
    if !now.reason.is_empty() {
        text += &format!(": {}", printable(&now.reason));
    }
    text.push('\n');
    if let Some(advice) = advice(now) {
        text += &format!("  {advice}\n");
    }
    section(&mut text, "waits for", history.waits_for.iter().map(|one| printable(one)));
    section(&mut text, "rules", history.rules.iter().map(|rule| printable(rule)));
    section(&mut text, "what happened", history.happenings.iter().map(happening));
    section(&mut text, "its last lines", lines.lines().map(str::to_owned));
    text
}

/// What an operator can do about it.
fn advice(now: &InstanceStatus) -> Option<String> {
    match now.known_phase()? {
        Phase::Failed => Some(format!(
            "when the cause is mended: blackhole-node start {}",
            printable(&now.service)
        )),
        Phase::Stopped => {
            Some(format!("to run it: blackhole-node start {}", printable(&now.service)))
        }
        Phase::Unspecified
        | Phase::Waiting
        | Phase::Starting
        | Phase::Ready
        | Phase::Stopping
        | Phase::Backoff => None,
    }
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.map(|line| format!("  {line}\n")).collect();
    if !lines.is_empty() {
        *text += &format!("\n{title}:\n{}", lines.concat());
    }
}

fn happening(happening: &Happening) -> String {
    let run = match happening.run {
        0 => String::new(),
        run => format!("run {run} "),
    };
    format!("{}  {run}{}", rfc3339(happening.unix_us), printable(&happening.what))
}

fn json(history: &InstanceHistory) -> Value {
    let happening = |one: &Happening| {
        json!({
            "timestamp": rfc3339(one.unix_us),
            "run": (one.run != 0).then_some(one.run),
            "level": one.level,
            "what": one.what,
        })
    };
    let happenings: Vec<Value> = history.happenings.iter().map(happening).collect();
    json!({
        "status": history.status.as_ref().map(status::instance_json),
        "waits_for": history.waits_for,
        "rules": history.rules,
        "happenings": happenings,
    })
}
