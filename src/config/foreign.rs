//! Reads what only a foreign program has: its command, its environment, and the conventions by
//! which it says that it is ready.

use std::collections::BTreeMap;

use super::addresses::port;
use super::form::Form;
use super::model::{Command, Foreign, NotifyAccess, Readiness, Service};
use super::report::path;
use super::section::Section;
use super::spellings::NOTIFY_ACCESS;
use super::tree::{Node, Value};
use super::values::{
    SOME_TIME, Wrong, absolute_path, choice, duration, flag, or_none, text, whole,
};

/// Every key that this module reads. A test holds it.
pub(super) const KEYS: [&str; 10] = [
    "command",
    "environment",
    "working_directory",
    "readiness",
    "ready_port",
    "watchdog",
    "notify_access",
    "fd_store_max",
    "shared_socket",
    "udp_port",
];

/// How many descriptors are kept for a service that does not say.
pub(super) const FD_STORE_MAX: u16 = 16;

/// MAX_ARG_STRLEN of Linux without the closing NUL: the longest argument or `NAME=value`, in bytes.
const MAX_STRING: usize = 131_071;
/// The most arguments and the most variables of one program.
const MAX_STRINGS: usize = 1024;

const COMMAND_FORM: &str = "[\"program\", \"argument\", ...] with an absolute path or a bare name";
const VARIABLE_NAME: &str = "a name of letters, digits and '_' that does not begin with a digit";

/// What is run, and how.
pub(super) fn program(section: &mut Section<'_>) -> Foreign {
    let command = section.node("command", command_form()).and_then(|node| {
        let read = command(node);
        read.map_err(|wrong| section.refuse("command", node, wrong)).ok()
    });
    // A missing or refused command is reported, so that no configuration comes of this one.
    let command = command.unwrap_or(Command { program: String::new(), arguments: Vec::new() });
    Foreign {
        command,
        environment: environment(section),
        working_directory: section.get("working_directory", absolute_path()),
    }
}

fn command_form() -> Form {
    let word = Form::text("^[^\\u0000]*$", MAX_STRING);
    Form::Needed(Box::new(Form::List { of: Box::new(word), least: 1, most: MAX_STRINGS }))
}

fn command(node: &Node) -> Result<Command, Wrong> {
    let Value::List(items) = &node.value else {
        return Err(Wrong::kind(&node.value, COMMAND_FORM));
    };
    if items.len() > MAX_STRINGS {
        return Err(Wrong::new("there are too many arguments", "at most 1024"));
    }
    let words: Result<Vec<String>, Wrong> = items.iter().map(word).collect();
    let mut words = words?.into_iter();
    let program = words.next().unwrap_or_default();
    if program.is_empty() {
        return Err(Wrong::new("there is no program", COMMAND_FORM));
    }
    if program.contains('/') && !program.starts_with('/') {
        return Err(Wrong::new("the program's path is relative", COMMAND_FORM));
    }
    Ok(Command { program, arguments: words.collect() })
}

fn word(item: &Node) -> Result<String, Wrong> {
    let word = text(&item.value).map_err(|_| Wrong::kind(&item.value, COMMAND_FORM))?;
    if word.contains('\0') {
        return Err(Wrong::new("there is a NUL byte in it", "arguments without NUL bytes"));
    }
    if word.len() > MAX_STRING {
        let what = format!("an argument has {} bytes", word.len());
        return Err(Wrong::new(what, format!("at most {MAX_STRING} bytes each")));
    }
    Ok(word)
}

/// The variables. Their values are never repeated in a report: they may be secrets.
fn environment(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let variables = section.section_of("environment", Form::Variables);
    let report = section.report();
    let mut read = BTreeMap::new();
    for (name, entry) in variables.table().entries() {
        let checked = variable_name(name).and_then(|()| variable_value(name, &entry.node.value));
        match checked {
            Ok(_) if read.len() == MAX_STRINGS => {
                let wrong = Wrong::new("there are too many variables", "at most 1024");
                report.problem(wrong.at_secret(&entry.key_place, variables.path()));
                break;
            }
            Ok(value) => {
                read.insert(name.to_owned(), value);
            }
            Err(_) if entry.node.value == Value::Broken => {}
            Err(wrong) => {
                let key = path(variables.path(), name);
                report.problem(wrong.at_secret(&entry.key_place, &key));
            }
        }
    }
    read
}

fn variable_name(name: &str) -> Result<(), Wrong> {
    let first_fits = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !first_fits || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Wrong::new("this cannot be a variable's name", VARIABLE_NAME));
    }
    let own = ["LISTEN_", "WATCHDOG_", "BLACKHOLE_"].iter().any(|own| name.starts_with(own));
    if own || name == "NOTIFY_SOCKET" {
        let others = "any name but LISTEN_*, NOTIFY_SOCKET, WATCHDOG_*, BLACKHOLE_*";
        return Err(Wrong::new("the node sets this variable itself", others));
    }
    Ok(())
}

fn variable_value(name: &str, value: &Value) -> Result<String, Wrong> {
    let value = text(value)?;
    if value.contains('\0') {
        return Err(Wrong::new("there is a NUL byte in the value", "a value without NUL bytes"));
    }
    if name.len() + 1 + value.len() > MAX_STRING {
        let allowed = format!("at most {MAX_STRING} bytes, name and value together");
        return Err(Wrong::new("the variable is too long", allowed));
    }
    Ok(value)
}

/// How a `readiness` is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Started,
    Notify,
    Grpc,
    Port,
}

/// Fills in how the program and the node speak with each other.
pub(super) fn conventions(section: &mut Section<'_>, service: &mut Service) {
    service.readiness = readiness(section);
    service.watchdog = section.get("watchdog", duration(SOME_TIME));
    if service.watchdog.is_some() && service.readiness != Readiness::Notify {
        let what = "only a service that speaks sd_notify can have a watchdog".to_owned();
        section.clash(["watchdog", "readiness"], what, "readiness = \"notify\" beside it");
    }
    service.notify_access = section.or("notify_access", NotifyAccess::All, choice(&NOTIFY_ACCESS));
    service.fd_store_max = section.or("fd_store_max", FD_STORE_MAX, whole(0..=64));
    service.shared_socket = shared_socket(section, service.unix_socket.is_some());
    service.udp_port = section.or("udp_port", None, or_none(port()));
}

/// To say where the shared socket is implies that it is wanted.
fn shared_socket(section: &mut Section<'_>, has_place: bool) -> bool {
    let said = section.get("shared_socket", flag());
    if said == Some(false) && has_place {
        let what = "unix_socket says where the shared socket is, and shared_socket is false";
        section.clash(["shared_socket", "unix_socket"], what.to_owned(), "one of the two");
    }
    said.unwrap_or(has_place)
}

fn readiness(section: &mut Section<'_>) -> Readiness {
    let spellings = [
        ("started", Said::Started),
        ("notify", Said::Notify),
        ("grpc", Said::Grpc),
        ("port", Said::Port),
    ];
    let said = section.or("readiness", Said::Started, choice(&spellings));
    let port = section.get("ready_port", whole(1..=u16::MAX));
    if said != Said::Port && port.is_some() {
        let what = "ready_port means nothing without readiness = \"port\"".to_owned();
        section.clash(["ready_port", "readiness"], what, "readiness = \"port\" beside it");
    }
    match said {
        Said::Started => Readiness::Started,
        Said::Notify => Readiness::Notify,
        Said::Grpc => Readiness::Grpc,
        Said::Port => port.map(Readiness::Port).unwrap_or_else(|| {
            let what = "readiness = \"port\" needs to know the port";
            section.missing("ready_port", what, "a port from 1 to 65535");
            Readiness::Started
        }),
    }
}
