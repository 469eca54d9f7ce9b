//! `logs`: records of the node as lines for a reader, or as one JSON object a line.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use super::args::LogsArgs;
use super::console::{Colour, Console, Paint, printable, rfc3339};
use super::error::Error;
use super::exit::ExitCode;
use crate::control::client::Client;
use crate::rpc::pb::node::{LogRecord, LogsRequest};
use crate::telemetry::is_for_machines;

/// What `--follow` begins with when nothing else says so.
const FOLLOW_FROM: u32 = 10;

/// Writes records until the last one, or with `--follow` until `end`; that the node goes away
/// meanwhile is an error.
pub async fn show(
    node: &mut Client,
    args: &LogsArgs,
    console: &mut Console<'_>,
    end: impl Future<Output = ()>,
) -> Result<ExitCode, Error> {
    let mut records = node.logs(request(args, SystemTime::now())).await?;
    tokio::pin!(end);
    loop {
        let record = tokio::select! {
            record = records.next() => record?,
            () = &mut end => break,
        };
        let Some(record) = record else {
            if args.follow {
                return Err(node.went_away().into());
            }
            break;
        };
        let lines = if args.json { json(&record) } else { pretty(&record, console.paint) };
        console.out.write_all(lines.as_bytes())?;
    }
    console.out.flush()?;
    Ok(ExitCode::Ok)
}

fn request(args: &LogsArgs, now: SystemTime) -> LogsRequest {
    let from_the_end = args.follow && args.since.is_none();
    LogsRequest {
        name: args.name.clone().unwrap_or_default(),
        tail: args.lines.or(from_the_end.then_some(FOLLOW_FROM)),
        since_unix_us: args.since.map_or(0, |since| since.unix_us(now)),
        follow: args.follow,
    }
}

/// `2026-01-02T03:04:05.678901Z INFO  storage-0  block stored  size=1024`, and a line before it
/// for the records that are missing there.
pub fn pretty(record: &LogRecord, paint: Paint) -> String {
    let skipped = match record.skipped {
        0 => String::new(),
        1 => "-- 1 line skipped --\n".to_owned(),
        count => format!("-- {count} lines skipped --\n"),
    };
    let level = printable(&record.level).to_uppercase();
    let level = paint.apply(colour(&record.level), &format!("{level:<5}"));
    let name = if record.instance.is_empty() { &record.service } else { &record.instance };
    let line = format!("{} {level} {}", rfc3339(record.unix_us), printable(name));
    let message = (!record.message.is_empty()).then(|| printable(&record.message));
    let fields = record.fields.iter().filter(|(key, _)| !is_for_machines(key));
    let fields = fields.map(|(key, text)| field(key, text));
    let rest: String = message.into_iter().chain(fields).map(|part| format!("  {part}")).collect();
    format!("{skipped}{line}{rest}\n")
}

fn colour(level: &str) -> Colour {
    match level {
        "error" => Colour::Bad,
        "warn" => Colour::Changing,
        _ => Colour::None,
    }
}

/// `key=value`; a text stands without its quotes where it is one plain word.
fn field(key: &str, text: &str) -> String {
    let plain = |word: &str| !word.is_empty() && !word.contains([' ', '\t', '"', '=', '\\']);
    let value = match serde_json::from_str(text) {
        Ok(Value::String(word)) if plain(&word) => word,
        Ok(_) | Err(_) => text.to_owned(),
    };
    printable(&format!("{key}={value}"))
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    service: &'a str,
    instance: &'a str,
    run: u64,
    pid: Option<i32>,
    level: &'a str,
    stream: &'a str,
    message: &'a str,
    fields: BTreeMap<&'a str, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<u64>,
}

/// The record as an object. `skipped` is there only when records before it were not kept.
fn json(record: &LogRecord) -> String {
    let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| text.clone().into());
    let line = Line {
        timestamp: rfc3339(record.unix_us),
        service: &record.service,
        instance: &record.instance,
        run: record.run,
        pid: (record.pid != 0).then_some(record.pid),
        level: &record.level,
        stream: &record.stream,
        message: &record.message,
        fields: record.fields.iter().map(|(key, text)| (key.as_str(), value(text))).collect(),
        skipped: (record.skipped != 0).then_some(record.skipped),
    };
    serde_json::to_string(&line).expect("strings, numbers and JSON values are always JSON") + "\n"
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::cli::since::Since;

    pub(crate) fn record(instance: &str, message: &str) -> LogRecord {
        let fields = [("size", "1024"), ("block_id", "\"Qm1\""), ("tags", "[1,\"a b\"]")];
        LogRecord {
            unix_us: 1_705_314_600_000_123,
            service: instance.split('-').next().unwrap().to_owned(),
            instance: instance.to_owned(),
            run: 3,
            pid: 1003,
            level: "info".to_owned(),
            stream: "stdout".to_owned(),
            message: message.to_owned(),
            fields: fields.map(|(key, text)| (key.to_owned(), text.to_owned())).into(),
            skipped: 0,
        }
    }

    #[test]
    fn a_record_is_one_line() {
        let line = pretty(&record("storage-0", "block stored"), Paint::Plain);
        let expected = "2024-01-15T10:30:00.000123Z INFO  storage-0  block stored  \
                        block_id=Qm1  size=1024  tags=[1,\"a b\"]\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn a_hostile_record_is_still_one_line() {
        let mut hostile = record("storage-0", "a\nb\x1b[2J");
        hostile.fields = [("k".to_owned(), "\"x\\ny\"".to_owned())].into();
        let line = pretty(&hostile, Paint::Plain);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(!line.contains('\x1b'), "{line}");
    }

    #[test]
    fn what_was_skipped_stands_before_the_record() {
        let gap = LogRecord { skipped: 12, ..record("storage-0", "x") };
        assert!(pretty(&gap, Paint::Plain).starts_with("-- 12 lines skipped --\n2024-"));
        let gap = LogRecord { skipped: 1, ..gap };
        assert!(pretty(&gap, Paint::Plain).starts_with("-- 1 line skipped --\n2024-"));
    }

    #[test]
    fn levels_that_matter_are_coloured() {
        let of = |level: &str| {
            let record = LogRecord { level: level.to_owned(), ..record("a-0", "x") };
            pretty(&record, Paint::Coloured)
        };
        assert!(of("error").contains("\x1b[31mERROR\x1b[0m"));
        assert!(of("warn").contains("\x1b[33mWARN \x1b[0m"));
        assert!(!of("info").contains('\x1b'));
    }

    #[test]
    fn a_json_line_has_real_values() {
        let expected = concat!(
            r#"{"timestamp":"2024-01-15T10:30:00.000123Z","service":"storage","#,
            r#""instance":"storage-0","run":3,"pid":1003,"level":"info","stream":"stdout","#,
            r#""message":"block stored","fields":{"block_id":"Qm1","size":1024,"tags":[1,"a b"]}}"#,
            "\n"
        );
        assert_eq!(json(&record("storage-0", "block stored")), expected);
    }

    #[test]
    fn a_json_line_survives_a_field_that_is_no_json_and_tells_gaps() {
        let mut odd = LogRecord { skipped: 2, pid: 0, ..record("a-0", "x") };
        odd.fields = [("k".to_owned(), "{broken".to_owned())].into();
        let parsed: Value = serde_json::from_str(&json(&odd)).unwrap();
        assert_eq!(parsed["fields"]["k"], "{broken");
        assert_eq!(parsed["skipped"], 2);
        assert_eq!(parsed["pid"], Value::Null);
    }

    #[test]
    fn following_begins_near_the_end_unless_told_otherwise() {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        let plain = LogsArgs::default();
        assert_eq!(request(&plain, now).tail, None);
        let follow = LogsArgs { follow: true, ..plain };
        assert_eq!(request(&follow, now).tail, Some(10));
        let lines = LogsArgs { lines: Some(0), ..follow.clone() };
        assert_eq!(request(&lines, now).tail, Some(0));
        let since = LogsArgs { since: Some(Since::Ago(Duration::from_secs(60))), ..follow };
        assert_eq!(request(&since, now).tail, None);
        assert_eq!(request(&since, now).since_unix_us, 40_000_000);
    }
}
