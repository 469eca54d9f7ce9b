//! Renders a recognised line as the text for the console or the journal. Knows neither where lines
//! come from nor where the text goes.

use std::collections::BTreeMap;
use std::io::Write;

use super::clock::Stamp;
use super::entry::Entry;
use super::recognise::{Field, Recognised, Text, Value};
use super::record::{Source, Stream};
use super::{escape, json};
use crate::units::Level;

/// The output that a record is rendered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Console(Style),
    /// Entries of journald's native protocol.
    Journal,
}

impl Form {
    /// The words of a loss notice after "17 lines ".
    pub const fn loss(self) -> &'static str {
        match self {
            Self::Console(_) => "not shown: the console was too slow",
            Self::Journal => "missing here: journald did not take them in time",
        }
    }
}

/// The style of records on the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `10:30:00.000  INFO  storage-0       message  key=value`, times in UTC.
    Pretty(Colour),
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Always,
    Never,
}

/// Renders the lines of one stream; the parts that all of them share are rendered once.
#[derive(Debug)]
pub enum Frame {
    Pretty {
        colour: Colour,
        name: Vec<u8>,
    },
    Json {
        /// The text between the timestamp and the level.
        head: Vec<u8>,
        /// The text after the fields.
        tail: Vec<u8>,
    },
    Journal(Entry),
}

/// The least width of the instance's name, in columns.
const NAME_WIDTH: usize = 14;

impl Frame {
    pub fn new(form: Form, node_id: &str, source: &Source, stream: Stream) -> Self {
        match form {
            Form::Console(Style::Pretty(colour)) => {
                Self::Pretty { colour, name: format!("{:<NAME_WIDTH$}", source.instance).into() }
            }
            Form::Console(Style::Json) => {
                Self::Json { head: json_head(node_id, source), tail: tail(source, stream) }
            }
            Form::Journal => Self::Journal(Entry::new(node_id, source, stream)),
        }
    }

    /// Appends one line with its LF, or one journal entry.
    pub fn render(&self, out: &mut Vec<u8>, stamp: &Stamp, line: &Recognised<'_>) {
        match self {
            Self::Pretty { colour, name } => pretty(out, *colour, name, stamp, line),
            Self::Journal(entry) => entry.render(out, stamp, line),
            Self::Json { head, tail } => {
                out.extend_from_slice(b"{\"timestamp\":\"");
                out.extend_from_slice(stamp.rfc3339());
                out.extend_from_slice(head);
                out.extend_from_slice(line.level.as_str().as_bytes());
                out.extend_from_slice(b"\",\"message\":");
                match line.message {
                    Text::Json(quoted) => out.extend_from_slice(quoted.as_bytes()),
                    Text::Bytes(bytes) => escape::json_string(out, bytes),
                }
                out.extend_from_slice(b",\"fields\":");
                json_fields(out, line);
                out.extend_from_slice(tail);
            }
        }
    }
}

fn json_head(node_id: &str, source: &Source) -> Vec<u8> {
    let mut head = b"\",\"node_id\":".to_vec();
    escape::json_string(&mut head, node_id.as_bytes());
    head.extend_from_slice(b",\"service\":");
    escape::json_string(&mut head, source.service.as_bytes());
    head.extend_from_slice(format!(",\"pid\":{},\"level\":\"", source.pid).as_bytes());
    head
}

fn tail(source: &Source, stream: Stream) -> Vec<u8> {
    let stream = match stream {
        Stream::Node => return b"}\n".to_vec(),
        Stream::Stdout | Stream::Stderr => stream.as_str(),
    };
    let mut tail = b",\"instance\":".to_vec();
    escape::json_string(&mut tail, source.instance.as_bytes());
    tail.extend_from_slice(
        format!(",\"run\":{},\"stream\":\"{stream}\"}}\n", source.run).as_bytes(),
    );
    tail
}

fn json_fields(out: &mut Vec<u8>, line: &Recognised<'_>) {
    out.push(b'{');
    for (index, Field { key, value }) in line.fields().enumerate() {
        let before: &[u8] = if index == 0 { b"\"" } else { b",\"" };
        out.extend_from_slice(before);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":");
        json_value(out, value);
    }
    out.push(b'}');
}

/// Writes a word that is a number, `true` or `false` as JSON has it, and any other as a string.
fn json_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Json(text) => out.extend_from_slice(text.as_bytes()),
        Value::Number(number) => write!(out, "{number}").expect("a vector takes every write"),
        Value::Word(word) if json::is_number(word) || matches!(word, "true" | "false") => {
            out.extend_from_slice(word.as_bytes());
        }
        Value::Word(word) => escape::json_string(out, word.as_bytes()),
    }
}

fn pretty(out: &mut Vec<u8>, colour: Colour, name: &[u8], stamp: &Stamp, line: &Recognised<'_>) {
    out.extend_from_slice(stamp.time_of_day());
    out.extend_from_slice(b"  ");
    painted(out, colour, level_colour(line.level), padded_level(line.level).as_bytes());
    out.push(b' ');
    painted(out, colour, b"\x1b[36m", name);
    out.extend_from_slice(b"  ");
    match line.message {
        Text::Bytes(bytes) => escape::for_terminal(out, bytes),
        Text::Json(quoted) => pretty_string(out, quoted),
    }
    for Field { key, value } in line.fields() {
        if is_for_machines(key) {
            continue;
        }
        out.extend_from_slice(b"  ");
        escape::for_terminal(out, key.as_bytes());
        out.push(b'=');
        match value {
            Value::Json(text) => pretty_value(out, text),
            Value::Word(word) => escape::for_terminal(out, word.as_bytes()),
            Value::Number(_) => json_value(out, value),
        }
    }
    out.push(b'\n');
}

fn painted(out: &mut Vec<u8>, colour: Colour, code: &[u8], text: &[u8]) {
    match colour {
        Colour::Never => out.extend_from_slice(text),
        Colour::Always => {
            out.extend_from_slice(code);
            out.extend_from_slice(text);
            out.extend_from_slice(b"\x1b[0m");
        }
    }
}

/// Fields that the pretty style leaves out: the service's own timestamp (the time of reading is
/// shown) and the place in its source code. JSON records have them.
pub fn is_for_machines(key: &str) -> bool {
    matches!(key, "timestamp" | "time" | "ts" | "@timestamp" | "target")
}

/// A JSON value; a string without quotes where that is unambiguous.
fn pretty_value(out: &mut Vec<u8>, text: &str) {
    let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let bare = inside.filter(|t| !t.is_empty() && !t.contains([' ', '\\', '=', '"']));
    escape::for_terminal(out, bare.unwrap_or(text).as_bytes());
}

fn pretty_string(out: &mut Vec<u8>, quoted: &str) {
    if quoted.contains('\\') {
        escape::for_terminal(out, json::decode(quoted).as_deref().unwrap_or(quoted).as_bytes());
    } else {
        escape::for_terminal(out, quoted.trim_matches('"').as_bytes());
    }
}

const fn padded_level(level: Level) -> &'static str {
    match level {
        Level::Trace => "TRACE",
        Level::Debug => "DEBUG",
        Level::Info => "INFO ",
        Level::Warn => "WARN ",
        Level::Error => "ERROR",
    }
}

const fn level_colour(level: Level) -> &'static [u8] {
    match level {
        Level::Trace | Level::Debug => b"\x1b[2m",
        Level::Info => b"\x1b[32m",
        Level::Warn => b"\x1b[33m",
        Level::Error => b"\x1b[31m",
    }
}

/// The message as text.
pub fn message_of(line: &Recognised<'_>) -> String {
    match line.message {
        Text::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Text::Json(quoted) => json::decode(quoted).unwrap_or_else(|| quoted.to_owned()),
    }
}

/// The fields by name, values as JSON texts.
pub fn fields_of(line: &Recognised<'_>) -> BTreeMap<String, String> {
    let owned = |Field { key, value }: Field<'_>| {
        let mut text = Vec::new();
        json_value(&mut text, value);
        let key = json::decode(&format!("\"{key}\"")).unwrap_or_else(|| key.to_owned());
        (key, String::from_utf8_lossy(&text).into_owned())
    };
    line.fields().map(owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::recognise::Recogniser;
    use super::super::record::Part;
    use super::*;
    use crate::units::{Pid, RunId};
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn render(style: Style, line: &[u8], part: Part) -> String {
        let id = "storage-0".parse().unwrap();
        let source = Source::instance(&id, RunId(2), Pid(1003));
        let frame = Frame::new(Form::Console(style), "node-1", &source, Stream::Stdout);
        let stamp = Stamp::of(UNIX_EPOCH + Duration::from_secs(1_705_314_600));
        let mut out = Vec::new();
        frame.render(&mut out, &stamp, &Recogniser::default().recognise(line, part));
        String::from_utf8(out).unwrap()
    }

    fn plain(line: &[u8]) -> String {
        render(Style::Pretty(Colour::Never), line, Part::WHOLE)
    }

    fn json(line: &[u8]) -> String {
        render(Style::Json, line, Part::WHOLE)
    }

    #[test]
    fn a_json_record_has_the_documented_members_in_order() {
        let line = br#"{"level":"warn","message":"Block \"stored\"","block_id":"Qm","size":1024}"#;
        let expected = concat!(
            r#"{"timestamp":"2024-01-15T10:30:00.000000Z","node_id":"node-1","service":"storage","#,
            r#""pid":1003,"level":"warn","message":"Block \"stored\"","#,
            r#""fields":{"block_id":"Qm","size":1024},"#,
            r#""instance":"storage-0","run":2,"stream":"stdout"}"#,
            "\n"
        );
        assert_eq!(json(line), expected);
    }

    #[test]
    fn words_of_logfmt_become_json_values() {
        let record = json(br"level=info msg=up n=5 ok=true id=007 path=C:\x e=");
        let fields = r#""fields":{"n":5,"ok":true,"id":"007","path":"C:\\x","e":""}"#;
        assert!(record.contains(fields), "{record}");
        assert!(record.contains(r#""message":"up""#), "{record}");
    }

    #[test]
    fn the_nodes_own_record_names_no_instance() {
        let frame =
            Frame::new(Form::Console(Style::Json), "n", &Source::node(Pid(9)), Stream::Node);
        let mut out = Vec::new();
        let stamp = Stamp::of(UNIX_EPOCH);
        frame.render(&mut out, &stamp, &Recogniser::default().recognise(b"up", Part::WHOLE));
        let expected = concat!(
            r#"{"timestamp":"1970-01-01T00:00:00.000000Z","node_id":"n","service":"node","#,
            r#""pid":9,"level":"info","message":"up","fields":{}}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_pretty_line_is_aligned_and_leaves_out_the_services_own_time() {
        let line = br#"{"ts":1,"level":"warn","msg":"low\ndisk","free":"1 GiB","dev":"sda"}"#;
        let expected = "10:30:00.000  WARN  storage-0       low\\ndisk  free=\"1 GiB\"  dev=sda\n";
        assert_eq!(plain(line), expected);
        assert_eq!(plain(b"hello"), "10:30:00.000  INFO  storage-0       hello\n");
    }

    #[test]
    fn escape_sequences_come_only_from_the_node_and_only_when_asked() {
        let hostile = [
            &b"\x1b[2Jgone"[..],
            br#"{"msg":"\u001b[2J","k\u001b":"\u001b"}"#,
            "{\"msg\":\"\u{9b}2J\",\"\u{9b}\":\"\u{9b}\"}".as_bytes(),
            "level=info k=\u{9b}2J".as_bytes(),
        ];
        for line in hostile {
            assert!(!plain(line).trim_end().contains(|c: char| c.is_control()), "{line:?}");
        }
        let coloured = render(Style::Pretty(Colour::Always), hostile[0], Part::WHOLE);
        let expected =
            "10:30:00.000  \x1b[32mINFO \x1b[0m \x1b[36mstorage-0     \x1b[0m  \\x1b[2Jgone\n";
        assert_eq!(coloured, expected);
    }

    #[test]
    fn a_part_of_a_long_line_says_so() {
        let record = render(Style::Json, b"x", Part { number: 1, continues: true });
        assert!(record.contains(r#""fields":{"part":1,"continues":true}"#), "{record}");
    }

    #[test]
    fn the_owned_fields_are_decoded_keys_and_json_values() {
        let mut recogniser = Recogniser::default();
        let line = br#"{"msg":"a\tb","k\u00e9":"v\n","n":1}"#;
        let found = recogniser.recognise(line, Part::WHOLE);
        assert_eq!(message_of(&found), "a\tb");
        let expected = [("ké".to_owned(), r#""v\n""#.to_owned()), ("n".to_owned(), "1".to_owned())];
        assert_eq!(fields_of(&found), BTreeMap::from(expected));
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        let tokens = prop::sample::select(vec![
            "{\"msg\":\"m\",",
            "\"a\":",
            "\"é\\u001b\"",
            "}",
            "level=warn ",
            "k=",
            "\"q\\n\"",
            " ",
            "1",
            "1e5",
            "\u{1b}",
            "\0",
            "<3>",
            ",",
            "\\",
        ]);
        prop_oneof![
            proptest::collection::vec(tokens, 0..10).prop_map(|t| t.concat().into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..60),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn every_line_makes_one_valid_record_and_one_safe_line(line in line()) {
            let record = json(&line);
            prop_assert_eq!(record.matches('\n').count(), 1);
            let read: serde_json::Value = serde_json::from_str(&record).unwrap();
            prop_assert!(read["fields"].is_object() && read["message"].is_string());
            let shown = plain(&line);
            prop_assert!(!shown.strip_suffix('\n').unwrap().contains(|c: char| c.is_control()));
        }
    }
}
