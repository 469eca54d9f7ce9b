//! `status --security`: what the services are kept from, as a table and as JSON.

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::super::console::{Colour, Paint, printable};
use crate::rpc::pb::node::InstanceSecurity;

const HEADER: [&str; 7] =
    ["SERVICE", "PROFILE", "USER", "CAPABILITIES", "NEW PRIVS", "SYSCALLS", "FILES"];

/// The table, and beneath it what was given back and what does not hold.
pub fn table(instances: &[InstanceSecurity], paint: Paint) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(HEADER);
    table.add_rows(instances.iter().map(row));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text += line.trim_end();
        text.push('\n');
    }
    let lines: Vec<String> = instances.iter().flat_map(|one| remarks(one, paint)).collect();
    if !lines.is_empty() {
        text += &format!("\n{}\n", lines.join("\n"));
    }
    text
}

fn row(one: &InstanceSecurity) -> [String; 7] {
    let running = |text: String| if one.pid == 0 { "-".to_owned() } else { text };
    let user = if one.user.is_empty() { one.uid.to_string() } else { printable(&one.user) };
    let files = match one.landlock {
        0 => "all".to_owned(),
        version => format!("own (Landlock {version})"),
    };
    [
        printable(&one.instance),
        printable(&one.profile),
        running(user),
        running(capabilities(&one.capabilities)),
        running(if one.no_new_privileges { "never" } else { "possible" }.to_owned()),
        running(printable(&one.system_calls)),
        running(files),
    ]
}

/// Their names where they are few.
fn capabilities(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => printable(one),
        [one, other] => printable(&format!("{one}, {other}")),
        many => many.len().to_string(),
    }
}

fn remarks(one: &InstanceSecurity, paint: Paint) -> Vec<String> {
    let name = printable(&one.instance);
    let given_back = |what: &String| format!("  {name}: given back: {}", printable(what));
    let missing = |what: &String| {
        let word = paint.apply(Colour::Bad, "missing");
        format!("  {name}: {word}: {}", printable(what))
    };
    one.missing.iter().map(missing).chain(one.given_back.iter().map(given_back)).collect()
}

#[derive(Serialize)]
struct Shown<'a> {
    instances: Vec<Instance<'a>>,
}

#[derive(Serialize)]
struct Instance<'a> {
    service: &'a str,
    instance: &'a str,
    profile: &'a str,
    pid: Option<i32>,
    process: Option<Process<'a>>,
    given_back: &'a [String],
    missing: &'a [String],
}

#[derive(Serialize)]
struct Process<'a> {
    uid: u32,
    gid: u32,
    user: Option<&'a str>,
    no_new_privileges: bool,
    capabilities: &'a [String],
    bounding_set: &'a [String],
    system_calls: &'a str,
    landlock: Option<u32>,
}

/// One object on one line. Its keys are stable.
pub fn json(instances: &[InstanceSecurity]) -> String {
    let shown = Shown { instances: instances.iter().map(Instance::from).collect() };
    let text = serde_json::to_string(&shown).expect("texts and numbers are always JSON");
    text + "\n"
}

impl<'a> From<&'a InstanceSecurity> for Instance<'a> {
    fn from(one: &'a InstanceSecurity) -> Self {
        let process = Process {
            uid: one.uid,
            gid: one.gid,
            user: (!one.user.is_empty()).then_some(&one.user),
            no_new_privileges: one.no_new_privileges,
            capabilities: &one.capabilities,
            bounding_set: &one.bounding_set,
            system_calls: &one.system_calls,
            landlock: (one.landlock != 0).then_some(one.landlock),
        };
        Self {
            service: &one.service,
            instance: &one.instance,
            profile: &one.profile,
            pid: (one.pid != 0).then_some(one.pid),
            process: (one.pid != 0).then_some(process),
            given_back: &one.given_back,
            missing: &one.missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confined() -> InstanceSecurity {
        InstanceSecurity {
            service: "storage".to_owned(),
            instance: "storage-0".to_owned(),
            profile: "own".to_owned(),
            pid: 1002,
            uid: 998,
            gid: 997,
            user: "blackhole".to_owned(),
            no_new_privileges: true,
            system_calls: "filtered".to_owned(),
            landlock: 6,
            ..InstanceSecurity::default()
        }
    }

    fn free() -> InstanceSecurity {
        InstanceSecurity {
            service: "web".to_owned(),
            instance: "web-0".to_owned(),
            profile: "program".to_owned(),
            pid: 1003,
            uid: 12345,
            capabilities: vec!["CAP_CHOWN".to_owned()],
            bounding_set: vec!["CAP_CHOWN".to_owned()],
            system_calls: "all".to_owned(),
            given_back: vec!["protect_files = false".to_owned()],
            missing: vec!["its system calls are not filtered".to_owned()],
            ..InstanceSecurity::default()
        }
    }

    fn stopped() -> InstanceSecurity {
        let (service, instance) = ("job".to_owned(), "job-0".to_owned());
        let profile = "program".to_owned();
        InstanceSecurity { service, instance, profile, ..InstanceSecurity::default() }
    }

    #[test]
    fn the_table_tells_at_a_glance_who_is_confined() {
        let expected = "\
SERVICE    PROFILE  USER       CAPABILITIES  NEW PRIVS  SYSCALLS  FILES
storage-0  own      blackhole  none          never      filtered  own (Landlock 6)
web-0      program  12345      CAP_CHOWN     possible   all       all
job-0      program  -          -             -          -         -

  web-0: missing: its system calls are not filtered
  web-0: given back: protect_files = false
";
        assert_eq!(table(&[confined(), free(), stopped()], Paint::Plain), expected);
        assert!(!table(&[confined()], Paint::Plain).contains("\n\n"));
    }

    #[test]
    fn the_object_has_exactly_the_promised_keys_in_order() {
        let expected = concat!(
            r#"{"instances":[{"service":"web","instance":"web-0","profile":"program","#,
            r#""pid":1003,"process":{"uid":12345,"gid":0,"user":null,"no_new_privileges":false,"#,
            r#""capabilities":["CAP_CHOWN"],"bounding_set":["CAP_CHOWN"],"system_calls":"all","#,
            r#""landlock":null},"given_back":["protect_files = false"],"#,
            r#""missing":["its system calls are not filtered"]},"#,
            r#"{"service":"job","instance":"job-0","profile":"program","pid":null,"#,
            r#""process":null,"given_back":[],"missing":[]}]}"#,
            "\n"
        );
        assert_eq!(json(&[free(), stopped()]), expected);
    }
}
