//! Renders a recognised line as an entry in systemd's "Native Journal Protocol". No content of a
//! line can make a field of its own or replace one that journald or the node sets. Knows neither
//! where lines come from nor how entries are sent.

use std::io::Write;

use super::clock::Stamp;
use super::json;
use super::recognise::{Field, Recognised, Text, Value};
use super::record::{NODE, Source, Stream};
use crate::units::Level;

/// The most characters of a field's name that journald takes.
const NAME_MAX: usize = 64;

/// The prefix of a line's field whose name is reserved.
const PREFIX: &[u8] = b"F_";

/// The identifier that `journalctl` shows for the node's own lines.
const IDENTIFIER: &str = "blackhole";

/// Before each entry in a buffer: its length.
const LENGTH: usize = size_of::<u32>();

/// Names that systemd gives a meaning (systemd.journal-fields(7)).
const RESERVED: [&[u8]; 8] = [
    b"PRIORITY",
    b"ERRNO",
    b"INVOCATION_ID",
    b"USER_INVOCATION_ID",
    b"DOCUMENTATION",
    b"TID",
    b"UNIT",
    b"USER_UNIT",
];

/// Prefixes of such names. Names that begin with `_` are set by journald alone.
const RESERVED_BEGINNINGS: [&[u8]; 7] =
    [b"_", b"MESSAGE", b"CODE_", b"SYSLOG_", b"OBJECT_", b"COREDUMP_", b"BLACKHOLE_"];

/// Renders the lines of one stream as entries.
#[derive(Debug)]
pub struct Entry {
    /// The fields before the time, which all entries of the stream share.
    head: Vec<u8>,
}

impl Entry {
    /// `journalctl` shows an entry as `IDENTIFIER[PID]: MESSAGE`, so the identifier, which tells
    /// the services of one unit apart, is the instance.
    pub fn new(node_id: &str, source: &Source, stream: Stream) -> Self {
        let is_node = *source.service == *NODE;
        let identifier = if is_node { IDENTIFIER } else { &source.instance };
        let mut head = Vec::new();
        let mut put =
            |name: &str, value: &str| field(&mut head, name, |out| out.extend(value.bytes()));
        put("SYSLOG_IDENTIFIER", identifier);
        put("SYSLOG_PID", &source.pid.to_string());
        put("BLACKHOLE_NODE", node_id);
        put("BLACKHOLE_SERVICE", &source.service);
        match stream {
            Stream::Node => {}
            Stream::Stdout | Stream::Stderr => {
                put("BLACKHOLE_INSTANCE", &source.instance);
                put("BLACKHOLE_RUN", &source.run.to_string());
                put("BLACKHOLE_STREAM", stream.as_str());
            }
        }
        head.extend_from_slice(b"BLACKHOLE_TIME=");
        Self { head }
    }

    /// Appends one entry; `entries` finds it again.
    pub fn render(&self, out: &mut Vec<u8>, stamp: &Stamp, line: &Recognised<'_>) {
        let begin = out.len();
        out.extend_from_slice(&[0; LENGTH]);
        out.extend_from_slice(&self.head);
        out.extend_from_slice(stamp.rfc3339());
        out.extend_from_slice(b"\nPRIORITY=");
        out.push(priority(line.level));
        out.push(b'\n');
        field(out, "MESSAGE", |out| match line.message {
            Text::Bytes(bytes) => out.extend_from_slice(bytes),
            Text::Json(quoted) => string(out, quoted),
        });
        for Field { key, value } in line.fields() {
            let begin = out.len();
            match place_in_code(key, line) {
                Some(theirs) => out.extend_from_slice(theirs.as_bytes()),
                None => name(out, key),
            }
            end_field(out, begin, |out| put_value(out, value));
        }
        let length = u32::try_from(out.len() - begin - LENGTH).unwrap_or(u32::MAX);
        out[begin..begin + LENGTH].copy_from_slice(&length.to_le_bytes());
    }
}

/// The entries that were rendered into `buffer`.
pub(super) fn entries(buffer: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = buffer;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<LENGTH>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (entry, behind) = behind.split_at_checked(length)?;
        rest = behind;
        Some(entry)
    })
}

/// syslog's number (RFC 5424, 6.2.1).
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => b'3',
        Level::Warn => b'4',
        Level::Info => b'6',
        Level::Debug | Level::Trace => b'7',
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend_from_slice(name.as_bytes());
    end_field(out, begin, value);
}

/// Completes a field whose name begins at `begin`. A value with a line feed is written with its
/// length, so that nothing in it is taken for another field.
fn end_field(out: &mut Vec<u8>, begin: usize, value: impl FnOnce(&mut Vec<u8>)) {
    const SIZE: usize = size_of::<u64>();
    let equals = out.len();
    debug_assert!(equals > begin, "a field has a name");
    out.push(b'=');
    let at = out.len();
    value(out);
    let length = out.len() - at;
    if memchr::memchr(b'\n', &out[at..]).is_some() {
        out.extend_from_slice(&[0; SIZE]);
        out.copy_within(at..at + length, at + SIZE);
        out[equals] = b'\n';
        out[at..at + SIZE].copy_from_slice(&(length as u64).to_le_bytes());
    }
    out.push(b'\n');
}

/// The content of a JSON string, which has its quotes.
fn string(out: &mut Vec<u8>, quoted: &str) {
    let inside = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    json::unescape(out, inside.unwrap_or(quoted));
}

/// Strings without quotes, any other JSON value as its text.
fn put_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Json(text) if text.starts_with('"') => string(out, text),
        Value::Json(text) | Value::Word(text) => out.extend_from_slice(text.as_bytes()),
        Value::Number(number) => write!(out, "{number}").expect("a vector takes every write"),
    }
}

/// Appends a valid field name for a key: upper case, `_` for every character that is no letter or
/// digit, at most `NAME_MAX` bytes. A name that is reserved, empty or begins with a digit gets a
/// prefix.
fn name(out: &mut Vec<u8>, key: &str) {
    let begin = out.len();
    json::unescape(out, key);
    for byte in &mut out[begin..] {
        *byte = if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() } else { b'_' };
    }
    out.truncate(begin + NAME_MAX);
    let name = &out[begin..];
    let is_reserved = RESERVED.contains(&name)
        || RESERVED_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || name.first().is_none_or(u8::is_ascii_digit);
    if is_reserved {
        out.splice(begin..begin, PREFIX.iter().copied());
        out.truncate(begin + NAME_MAX);
    }
}

/// journald's name for a place in the source code (`CODE_FILE` and others), if the key means that:
/// the keys of OpenTelemetry, tracing and Python's logging. A bare `filename` is often a data file,
/// except beside a line number.
fn place_in_code(key: &str, line: &Recognised<'_>) -> Option<&'static str> {
    const LINE_KEYS: [&str; 2] = ["line_number", "lineno"];
    match key {
        "code_file" | "code.file.path" | "code.filepath" => Some("CODE_FILE"),
        "code_line" | "code.line.number" | "code.lineno" => Some("CODE_LINE"),
        "code_func" | "code.function.name" | "code.function" => Some("CODE_FUNC"),
        "filename" | "pathname" | "line_number" | "lineno" | "funcName" => {
            line.fields().find(|field| LINE_KEYS.contains(&field.key))?;
            Some(match key {
                "filename" | "pathname" => "CODE_FILE",
                "funcName" => "CODE_FUNC",
                _ => "CODE_LINE",
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake_journal::Fields;
    use super::super::recognise::Recogniser;
    use super::super::record::Part;
    use super::super::render::fields_of;
    use super::*;
    use crate::units::{Pid, RunId};
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    /// What every entry of a service begins with.
    const HEAD: [&str; 10] = [
        "SYSLOG_IDENTIFIER",
        "SYSLOG_PID",
        "BLACKHOLE_NODE",
        "BLACKHOLE_SERVICE",
        "BLACKHOLE_INSTANCE",
        "BLACKHOLE_RUN",
        "BLACKHOLE_STREAM",
        "BLACKHOLE_TIME",
        "PRIORITY",
        "MESSAGE",
    ];

    fn rendered(line: &[u8], part: Part) -> Fields {
        let source = Source::instance(&"storage-0".parse().unwrap(), RunId(2), Pid(1003));
        let entry = Entry::new("node-1", &source, Stream::Stdout);
        let stamp = Stamp::of(UNIX_EPOCH + Duration::from_secs(1_705_314_600));
        let mut out = Vec::new();
        for _ in 0..2 {
            entry.render(&mut out, &stamp, &Recogniser::default().recognise(line, part));
        }
        let all: Vec<_> = entries(&out).map(Fields::parse).collect();
        assert_eq!((all.len(), &all[0]), (2, &all[1]));
        all[0].clone()
    }

    fn whole(line: &str) -> Fields {
        rendered(line.as_bytes(), Part::WHOLE)
    }

    /// Names and values of the line's own fields.
    fn own(line: &str) -> Vec<(String, String)> {
        let fields = whole(line).0.into_iter().skip(HEAD.len());
        fields.map(|(name, value)| (name, String::from_utf8(value).unwrap())).collect()
    }

    #[test]
    fn an_entry_has_the_documented_fields() {
        let found = whole(r#"{"level":"warn","message":"Block \"stored\"","block_id":"Qm","n":1}"#);
        assert_eq!(found.names()[..HEAD.len()], HEAD);
        assert_eq!(found.names()[HEAD.len()..], ["BLOCK_ID", "N"]);
        for (name, value) in [
            ("SYSLOG_IDENTIFIER", "storage-0"),
            ("SYSLOG_PID", "1003"),
            ("BLACKHOLE_NODE", "node-1"),
            ("BLACKHOLE_SERVICE", "storage"),
            ("BLACKHOLE_INSTANCE", "storage-0"),
            ("BLACKHOLE_RUN", "2"),
            ("BLACKHOLE_STREAM", "stdout"),
            ("BLACKHOLE_TIME", "2024-01-15T10:30:00.000000Z"),
            ("PRIORITY", "4"),
            ("MESSAGE", "Block \"stored\""),
            ("BLOCK_ID", "Qm"),
            ("N", "1"),
        ] {
            assert_eq!(found.get(name), value, "{name}");
        }
    }

    #[test]
    fn the_nodes_own_entry_names_no_instance() {
        let entry = Entry::new("n", &Source::node(Pid(9)), Stream::Node);
        let mut out = Vec::new();
        let mut recogniser = Recogniser::default();
        let line = recogniser.recognise(b"up", Part::WHOLE);
        entry.render(&mut out, &Stamp::of(UNIX_EPOCH), &line);
        let found = Fields::parse(entries(&out).next().unwrap());
        assert_eq!(found.get("SYSLOG_IDENTIFIER"), "blackhole");
        assert_eq!(found.get("BLACKHOLE_SERVICE"), "node");
        assert!(!found.names().contains(&"BLACKHOLE_INSTANCE"));
    }

    #[test]
    fn the_level_is_the_priority() {
        for (level, number) in
            [("error", "3"), ("warn", "4"), ("info", "6"), ("debug", "7"), ("trace", "7")]
        {
            assert_eq!(whole(&format!("level={level} msg=m")).get("PRIORITY"), number);
        }
        assert_eq!(whole("<2>on fire").get("PRIORITY"), "3");
    }

    #[test]
    fn names_become_valid_and_never_somebody_elses() {
        for (key, name) in [
            ("a.b-c/d", "A_B_C_D"),
            ("requestId", "REQUESTID"),
            (r"k\u00e9\n=", "K____"),
            ("", "F_"),
            ("7z", "F_7Z"),
            ("_SYSTEMD_UNIT", "F__SYSTEMD_UNIT"),
            ("__CURSOR", "F___CURSOR"),
            ("-pid", "F__PID"),
            ("message_id", "F_MESSAGE_ID"),
            ("priority", "F_PRIORITY"),
            ("syslog.identifier", "F_SYSLOG_IDENTIFIER"),
            ("BLACKHOLE_SERVICE", "F_BLACKHOLE_SERVICE"),
            ("object_pid", "F_OBJECT_PID"),
            ("unit", "F_UNIT"),
            ("units", "UNITS"),
            ("CODE_FILE", "F_CODE_FILE"),
            (r"PRIORITY\u003d0", "PRIORITY_0"),
        ] {
            let line = format!(r#"{{"msg":"m","{key}":"v"}}"#);
            assert_eq!(own(&line), [(name.to_owned(), "v".to_owned())], "{key}");
        }
        let long = "x".repeat(100);
        assert_eq!(own(&format!("msg=m {long}=v"))[0].0, "X".repeat(64));
        assert_eq!(own(&format!("msg=m _{long}=v"))[0].0, format!("F__{}", "X".repeat(61)));
    }

    #[test]
    fn a_place_in_the_code_is_told_where_the_line_tells_it() {
        let of = |line: &str| -> Vec<String> {
            own(line).into_iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        let place = ["CODE_FILE=a.rs", "CODE_LINE=7", "CODE_FUNC=f"];
        let tracing = r#"{"message":"m","filename":"a.rs","line_number":7,"code.function":"f"}"#;
        assert_eq!(of(tracing), place);
        assert_eq!(of("msg=m pathname=a.rs lineno=7 funcName=f"), place);
        assert_eq!(of("msg=m code_file=a.rs code_line=7 code_func=f"), place);
        assert_eq!(of("msg=m filename=data.csv line=7"), ["FILENAME=data.csv", "LINE=7"]);
    }

    #[test]
    fn forged_fields_stay_in_the_value_that_they_stand_in() {
        let forged = "done\nPRIORITY=0\n_SYSTEMD_UNIT=sshd.service\nMESSAGE=root logged in";
        let quoted = serde_json::to_string(forged).unwrap();
        let found = whole(&format!(r#"{{"message":{quoted},"a":{quoted},"b":1}}"#));
        assert_eq!(found.names()[HEAD.len()..], ["A", "B"]);
        assert_eq!((found.get("MESSAGE"), found.get("A")), (forged, forged));
        assert_eq!((found.get("PRIORITY"), found.get("B")), ("6", "1"));
        let plain = whole("x\u{0}\u{1}\r PRIORITY=0");
        assert_eq!((plain.get("PRIORITY"), plain.get("MESSAGE")), ("6", "x\0\u{1}\r PRIORITY=0"));
    }

    #[test]
    fn a_part_of_a_long_line_says_so_and_any_bytes_are_a_message() {
        let found = rendered(b"\xff\xfe", Part { number: 1, continues: true });
        assert_eq!((found.get("PART"), found.get("CONTINUES")), ("1", "true"));
        assert_eq!(found.0[HEAD.len() - 1].1, b"\xff\xfe");
    }

    /// What the name of a field should be, said another way.
    fn expected_name(key: &str) -> String {
        let upper = |b: u8| if b.is_ascii_alphanumeric() { char::from(b) } else { '_' };
        let name: String = key.bytes().map(|b| upper(b).to_ascii_uppercase()).take(64).collect();
        let has = |word: &&str| name.starts_with(*word);
        let exactly =
            "PRIORITY ERRNO INVOCATION_ID USER_INVOCATION_ID DOCUMENTATION TID UNIT USER_UNIT";
        let begins = ["_", "MESSAGE", "CODE_", "SYSLOG_", "OBJECT_", "COREDUMP_", "BLACKHOLE_"];
        let is_number = name.starts_with(|c: char| c.is_ascii_digit());
        let taken = exactly.split(' ').any(|word| word == name) || begins.iter().any(has);
        if name.is_empty() || is_number || taken {
            return format!("F_{name}").chars().take(64).collect();
        }
        name
    }

    fn expected_value(json: &str) -> Vec<u8> {
        match serde_json::from_str(json) {
            Ok(serde_json::Value::String(text)) => text.into_bytes(),
            _ => json.as_bytes().to_vec(),
        }
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        let words = prop::sample::select(vec![
            "PRIORITY",
            "MESSAGE",
            "_PID",
            "blackhole_run",
            "a",
            "é\u{1b}",
            "x\nPRIORITY=0\n",
            "",
            "\n",
            "=",
            "a=b",
            "MESSAGE\n\u{4}\0\0\0\0\0\0\0fake\n",
            "7",
            "unit",
        ]);
        let text = prop_oneof![words.prop_map(str::to_owned), any::<String>()];
        let value = prop_oneof![
            text.clone().prop_map(serde_json::Value::from),
            any::<f64>().prop_map(serde_json::Value::from),
            proptest::collection::vec(text.clone(), 0..3).prop_map(serde_json::Value::from),
        ];
        let object = proptest::collection::vec((text.clone(), value), 0..8);
        let json = (text, object).prop_map(|(message, fields)| {
            let mut object: serde_json::Map<_, _> = fields.into_iter().collect();
            object.insert("msg".to_owned(), message.into());
            serde_json::Value::from(object).to_string().into_bytes()
        });
        let logfmt = prop::sample::select(vec![
            "msg=\"a\\nPRIORITY=0\" ",
            "level=warn ",
            "_PID=1 ",
            "k= ",
            "e\\n=x ",
            "n=007 ",
            "\r",
        ]);
        let logfmt = proptest::collection::vec(logfmt, 0..8).prop_map(|v| v.concat().into_bytes());
        prop_oneof![json, logfmt, proptest::collection::vec(any::<u8>(), 0..200)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn what_is_parsed_back_is_what_the_line_said(line in line()) {
            let found = rendered(&line, Part::WHOLE);
            let mut recogniser = Recogniser::default();
            let said = recogniser.recognise(&line, Part::WHOLE);
            prop_assert_eq!(&found.names()[..HEAD.len()], &HEAD);
            let message = match said.message {
                Text::Bytes(bytes) => bytes.to_vec(),
                Text::Json(quoted) => expected_value(quoted),
            };
            prop_assert_eq!(&found.0[HEAD.len() - 1].1, &message);
            let mut own = found.0[HEAD.len()..].to_vec();
            let mut expected: Vec<_> = fields_of(&said)
                .into_iter()
                .map(|(key, value)| (expected_name(&key), expected_value(&value)))
                .collect();
            own.sort();
            expected.sort();
            prop_assert_eq!(own, expected);
        }
    }
}
