//! `reload`, `scale` and `set-limits`: what the node changed, one line an instance.

use serde_json::{Value, json};

use super::act::settled_words;
use super::args::{ReplanArgs, ScaleArgs, SetLimitsArgs};
use super::console::{Console, printable};
use super::error::Error;
use super::exit::ExitCode;
use super::status;
use super::upgrade::wait_for_successor;
use crate::control::Wait;
use crate::control::client::Client;
use crate::rpc::pb::node::{Change, ReplanReply};

/// Has the node reload its configuration.
pub async fn reload(
    node: &mut Client,
    args: &ReplanArgs,
    console: &mut Console<'_>,
) -> Result<ExitCode, Error> {
    let reply = node.reload(Wait::unless(args.no_block)).await?;
    if let Some(upgrade) = &reply.upgrade {
        return wait_for_successor(node, upgrade, args.json, console).await;
    }
    show(&reply, args, console)
}

/// Gives a service another number of instances.
pub async fn scale(
    node: &mut Client,
    args: &ScaleArgs,
    console: &mut Console<'_>,
) -> Result<ExitCode, Error> {
    let reply = node.scale(&args.name, args.instances, Wait::unless(args.replan.no_block)).await?;
    show(&reply, &args.replan, console)
}

/// Changes what a service may use.
pub async fn set_limits(
    node: &mut Client,
    args: &SetLimitsArgs,
    console: &mut Console<'_>,
) -> Result<ExitCode, Error> {
    let wait = Wait::unless(args.replan.no_block);
    let reply = node.set_limits(&args.name, &args.limits, wait).await?;
    show(&reply, &args.replan, console)
}

fn show(
    reply: &ReplanReply,
    args: &ReplanArgs,
    console: &mut Console<'_>,
) -> Result<ExitCode, Error> {
    for remark in &reply.remarks {
        writeln!(console.err, "{}", printable(&format!("warning: {remark}")))?;
    }
    let text = if args.json { format!("{}\n", object(reply)) } else { lines(reply) };
    console.out.write_all(text.as_bytes())?;
    console.out.flush()?;
    Ok(ExitCode::Ok)
}

fn lines(reply: &ReplanReply) -> String {
    let mut text = String::new();
    if !reply.origin.is_empty() {
        text += &format!("configuration: {}\n", printable(&reply.origin));
    }
    if reply.changes.is_empty() {
        return text + "nothing changes\n";
    }
    for change in &reply.changes {
        text += &format!("{}\n", printable(&line(change, reply)));
    }
    text
}

/// `web-0 restarted (command, environment): ready (pid 123)`
fn line(change: &Change, reply: &ReplanReply) -> String {
    let mut line = format!("{} {}", change.instance, change.what);
    if !change.differs.is_empty() {
        line += &format!(" ({})", change.differs.join(", "));
    }
    let now = reply.instances.iter().find(|one| one.instance == change.instance);
    match now {
        Some(now) => format!("{line}: {}", settled_words(now)),
        None => line,
    }
}

fn object(reply: &ReplanReply) -> Value {
    let changes = reply.changes.iter();
    let changes: Vec<Value> = changes
        .map(|Change { instance, what, differs }| {
            json!({ "instance": instance, "what": what, "differs": differs })
        })
        .collect();
    let instances: Vec<Value> = reply.instances.iter().map(status::instance_json).collect();
    json!({
        "origin": (!reply.origin.is_empty()).then_some(&reply.origin),
        "remarks": reply.remarks,
        "changes": changes,
        "instances": instances,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::ready;

    fn reply() -> ReplanReply {
        let change = |instance: &str, what: &str, differs: &[&str]| Change {
            instance: instance.to_owned(),
            what: what.to_owned(),
            differs: differs.iter().map(|part| (*part).to_owned()).collect(),
        };
        ReplanReply {
            origin: "node.toml".to_owned(),
            remarks: Vec::new(),
            changes: vec![
                change("queue-0", "removed", &[]),
                change("storage-0", "restarted", &["settings", "resources"]),
                change("web-0", "adjusted", &["drain"]),
            ],
            instances: vec![ready("storage")],
            upgrade: None,
        }
    }

    #[test]
    fn each_change_is_one_line() {
        let expected = "configuration: node.toml\n\
            queue-0 removed\n\
            storage-0 restarted (settings, resources): ready (pid 1002)\n\
            web-0 adjusted (drain)\n";
        assert_eq!(lines(&reply()), expected);
        assert_eq!(lines(&ReplanReply::default()), "nothing changes\n");
    }

    #[test]
    fn the_object_has_the_same() {
        let object = object(&reply());
        assert_eq!(object["origin"], "node.toml");
        assert_eq!(object["changes"][1]["differs"], json!(["settings", "resources"]));
        assert_eq!(object["instances"][0]["pid"], 1002);
    }
}
