//! Finds level, message and fields in a line: JSON objects, logfmt, and the `<N>` prefix of
//! sd-daemon(3). Anything else is plain text. Never fails, copies nothing.

use super::json::{self, Kind, Span};
use super::record::Part;
use crate::units::Level;

/// A line with more fields than this is kept as plain text.
pub const FIELDS_MAX: usize = 64;

/// The structure found in a line, pointing into it.
#[derive(Debug, Clone, Copy)]
pub struct Recognised<'a> {
    pub level: Level,
    pub message: Text<'a>,
    part: Part,
    text: &'a str,
    fields: &'a [FieldSpan],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text<'a> {
    /// Plain text: any bytes.
    Bytes(&'a [u8]),
    /// A valid JSON string with its quotes.
    Json(&'a str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The content of a valid JSON string, with its escapes and without its quotes.
    pub key: &'a str,
    pub value: Value<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A valid JSON text.
    Json(&'a str),
    /// A bare word without spaces or quotes.
    Word(&'a str),
    Number(u32),
}

#[derive(Debug)]
struct FieldSpan {
    key: Span,
    value: Span,
    form: Form,
}

/// The kind of a value in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A JSON string.
    Quoted,
    /// Any JSON value other than a string.
    Json,
    Word,
}

impl<'a> Recognised<'a> {
    /// The fields in the order of the line; of a repeated key the last value. The parts of a line
    /// that was too long have `part` and `continues`.
    pub fn fields(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let text = self.text;
        let own = self.fields.iter().map(move |field| Field {
            key: &text[field.key.clone()],
            value: match field.form {
                Form::Quoted | Form::Json => Value::Json(&text[field.value.clone()]),
                Form::Word => Value::Word(&text[field.value.clone()]),
            },
        });
        own.chain(marks(self.part).into_iter().flatten())
    }
}

fn marks(part: Part) -> [Option<Field<'static>>; 2] {
    let number = Field { key: "part", value: Value::Number(part.number) };
    let continues = Field { key: "continues", value: Value::Json("true") };
    [(part.number > 0).then_some(number), part.continues.then_some(continues)]
}

/// Recognises one line after another and reuses its memory.
#[derive(Debug, Default)]
pub struct Recogniser {
    fields: Vec<FieldSpan>,
}

impl Recogniser {
    /// Recognises a line. A part of a line that was too long is always plain text.
    pub fn recognise<'a>(&'a mut self, line: &'a [u8], part: Part) -> Recognised<'a> {
        self.fields.clear();
        if part == Part::WHOLE
            && let Some((text, found)) = self.structure(line)
        {
            let level = found.level.unwrap_or(Level::Info);
            let message = found.message(text);
            return Recognised { level, message, part, text, fields: &self.fields };
        }
        let (level, message) = if part.number > 1 { (Level::Info, line) } else { prefixed(line) };
        let message = Text::Bytes(message);
        Recognised { level, message, part, text: "", fields: &[] }
    }

    fn structure<'a>(&mut self, line: &'a [u8]) -> Option<(&'a str, Found)> {
        let is_object = line.first() == Some(&b'{');
        if !is_object && key_before_equals(line).is_none() {
            return None;
        }
        let text = std::str::from_utf8(line).ok()?;
        let found = if is_object { self.object(text)? } else { self.logfmt(text)? };
        let says_something = found.level.is_some() || found.message.is_some();
        says_something.then_some((text, found))
    }

    fn object(&mut self, text: &str) -> Option<Found> {
        let mut found = Found::default();
        let mut nested = None;
        json::members(text, |key, value| {
            let key = inside(&key);
            if value.kind == Kind::Object && nested.is_none() && &text[key.clone()] == "fields" {
                nested = Some(value.span);
                return Some(());
            }
            let form = if value.kind == Kind::String { Form::Quoted } else { Form::Json };
            self.member(text, &mut found, FieldSpan { key, value: value.span, form })
        })?;
        if let Some(nested) = nested {
            self.nested(text, &nested, &mut found)?;
        }
        Some(found)
    }

    /// The members of `fields`, as tracing's JSON format and the node's own lines have them.
    /// Of level and message only the message is looked for among them.
    fn nested(&mut self, text: &str, nested: &Span, found: &mut Found) -> Option<()> {
        let shifted = |span: Span| span.start + nested.start..span.end + nested.start;
        json::members(&text[nested.clone()], |key, value| {
            let form = if value.kind == Kind::String { Form::Quoted } else { Form::Json };
            let field = FieldSpan { key: inside(&shifted(key)), value: shifted(value.span), form };
            if found.take_message(text, &field) { Some(()) } else { self.put(text, field) }
        })
    }

    fn logfmt(&mut self, text: &str) -> Option<Found> {
        let bytes = text.as_bytes();
        let mut found = Found::default();
        let mut at = 0;
        while at < bytes.len() {
            let key = at..at + key_before_equals(&bytes[at..])?;
            let (value, form) = logfmt_value(text, key.end + 1)?;
            let end = value.end;
            at = end + length_while(&bytes[end..], |b| b == b' ');
            if at == end && at < bytes.len() {
                return None;
            }
            self.member(text, &mut found, FieldSpan { key, value, form })?;
        }
        Some(found)
    }

    fn member(&mut self, text: &str, found: &mut Found, field: FieldSpan) -> Option<()> {
        if found.take_level(text, &field) || found.take_message(text, &field) {
            return Some(());
        }
        self.put(text, field)
    }

    fn put(&mut self, text: &str, field: FieldSpan) -> Option<()> {
        let key = |field: &FieldSpan| &text[field.key.clone()];
        if let Some(earlier) = self.fields.iter_mut().find(|earlier| key(earlier) == key(&field)) {
            *earlier = field;
        } else if self.fields.len() < FIELDS_MAX {
            self.fields.push(field);
        } else {
            return None;
        }
        Some(())
    }
}

/// Level and message of a structured line.
#[derive(Debug, Default)]
struct Found {
    level: Option<Level>,
    message: Option<(Span, Form)>,
}

impl Found {
    /// The first field that names a level.
    fn take_level(&mut self, text: &str, field: &FieldSpan) -> bool {
        let is_named = matches!(&text[field.key.clone()], "level" | "lvl" | "severity");
        if !is_named || self.level.is_some() {
            return false;
        }
        self.level = level_of(&text[field.value.clone()]);
        self.level.is_some()
    }

    /// The first field that is a text.
    fn take_message(&mut self, text: &str, field: &FieldSpan) -> bool {
        let is_named = matches!(&text[field.key.clone()], "message" | "msg");
        if !is_named || self.message.is_some() || field.form == Form::Json {
            return false;
        }
        self.message = Some((field.value.clone(), field.form));
        true
    }

    /// Empty if the line has none.
    fn message<'a>(&self, text: &'a str) -> Text<'a> {
        match &self.message {
            None => Text::Bytes(b""),
            Some((span, Form::Word)) => Text::Bytes(&text.as_bytes()[span.clone()]),
            Some((span, Form::Quoted | Form::Json)) => Text::Json(&text[span.clone()]),
        }
    }
}

/// The value without its quotes.
fn inside(quoted: &Span) -> Span {
    quoted.start + 1..quoted.end - 1
}

fn length_while(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|b| !wanted(*b)).unwrap_or(bytes.len())
}

/// The length of the logfmt key at the beginning.
fn key_before_equals(bytes: &[u8]) -> Option<usize> {
    let is_key = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b'@');
    let length = length_while(bytes, is_key);
    (length > 0 && bytes.get(length) == Some(&b'=')).then_some(length)
}

/// A quoted text, or a word up to the next space, possibly empty.
fn logfmt_value(text: &str, at: usize) -> Option<(Span, Form)> {
    let rest = &text.as_bytes()[at..];
    if rest.first() == Some(&b'"') {
        return Some((json::string_at(text, at)?, Form::Quoted));
    }
    let length = length_while(rest, |b| b != b' ');
    let clean = rest[..length].iter().all(|b| *b > b' ' && *b != b'"');
    clean.then_some((at..at + length, Form::Word))
}

/// The level of a `<N>` prefix (syslog's number, RFC 5424, 6.2.1), and the rest of the line.
fn prefixed(line: &[u8]) -> (Level, &[u8]) {
    match line {
        [b'<', number @ b'0'..=b'7', b'>', rest @ ..] => {
            (syslog_level((number - b'0').into()), rest)
        }
        _ => (Level::Info, line),
    }
}

fn syslog_level(number: u32) -> Level {
    match number {
        0..=3 => Level::Error,
        4 => Level::Warn,
        5 | 6 => Level::Info,
        _ => Level::Debug,
    }
}

/// Names in any case, syslog's numbers 0 to 7, and the tens of bunyan and pino from 10 (trace) to
/// 60 (fatal).
fn level_of(value: &str) -> Option<Level> {
    const NAMES: [(Level, &[&str]); 5] = [
        (Level::Info, &["info", "notice", "information", "informational"]),
        (Level::Debug, &["debug", "dbg"]),
        (Level::Warn, &["warn", "warning", "wrn"]),
        (
            Level::Error,
            &[
                "error",
                "err",
                "fatal",
                "critical",
                "crit",
                "panic",
                "dpanic",
                "alert",
                "emerg",
                "emergency",
            ],
        ),
        (Level::Trace, &["trace", "trc"]),
    ];
    let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
    if value.starts_with(|c: char| c.is_ascii_digit()) {
        return match value.parse().ok()? {
            number @ 0..=7 => Some(syslog_level(number)),
            10..=19 => Some(Level::Trace),
            20..=29 => Some(Level::Debug),
            30..=39 => Some(Level::Info),
            40..=49 => Some(Level::Warn),
            50..=69 => Some(Level::Error),
            _ => None,
        };
    }
    let is_one_of = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(value));
    NAMES.iter().find(|(_, names)| is_one_of(names)).map(|(level, _)| *level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Level, message and fields as one text.
    fn show(line: impl AsRef<[u8]>) -> String {
        let mut recogniser = Recogniser::default();
        let found = recogniser.recognise(line.as_ref(), Part::WHOLE);
        let message = match found.message {
            Text::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Text::Json(text) => text.to_owned(),
        };
        let mut shown = format!("{} {message}", found.level);
        for Field { key, value } in found.fields() {
            let value = match value {
                Value::Json(text) | Value::Word(text) => text.to_owned(),
                Value::Number(number) => number.to_string(),
            };
            shown += &format!(" {key}={value}");
        }
        shown
    }

    #[test]
    fn a_json_object_is_taken_apart() {
        let line =
            r#"{"time":"t","level":"WARN","msg":"full \"disk\"","size":1024,"deep":{"a":[1]}}"#;
        let expected = r#"warn "full \"disk\"" time="t" size=1024 deep={"a":[1]}"#;
        assert_eq!(show(line), expected);
    }

    #[test]
    fn levels_are_known_by_name_and_by_number() {
        let level = |value: &str| show(format!(r#"{{"level":{value}}}"#));
        for (value, expected) in [
            ("30", "info"),
            ("60", "error"),
            ("10", "trace"),
            ("4", "warn"),
            ("\"7\"", "debug"),
            ("\"Warning\"", "warn"),
            ("\"CRITICAL\"", "error"),
            ("\"notice\"", "info"),
        ] {
            assert_eq!(level(value), format!("{expected} "), "{value}");
        }
        let unknown = r#"{"level":"loud","severity":"ERROR","message":"m"}"#;
        assert_eq!(show(unknown), r#"error "m" level="loud""#);
    }

    #[test]
    fn the_fields_of_tracing_are_fields() {
        let line =
            r#"{"level":"INFO","fields":{"message":"up","port":1,"level":"x"},"target":"t"}"#;
        assert_eq!(show(line), r#"info "up" target="t" port=1 level="x""#);
    }

    #[test]
    fn a_key_that_comes_twice_has_its_last_value() {
        assert_eq!(show(r#"{"msg":"m","a":1,"b":2,"a":3}"#), r#"info "m" a=3 b=2"#);
    }

    #[test]
    fn logfmt_is_taken_apart() {
        let line =
            r#"ts=2024-01-15T10:30:00Z level=error msg="no \"way\"" n=5 url=http://h/?a=b e="#;
        let expected = r#"error "no \"way\"" ts=2024-01-15T10:30:00Z n=5 url=http://h/?a=b e="#;
        assert_eq!(show(line), expected);
        assert_eq!(show("msg=hello"), "info hello");
    }

    #[test]
    fn what_is_not_quite_structured_is_plain_text() {
        for line in [
            "hello world",
            "a=1 b=2",
            "level=up",
            "failed: level=error msg=x",
            "level=error msg=x and more",
            "level=error msg=\"x",
            "level=error msg=\"x\"y",
            "level=error msg=a\"b",
            "level=error =x",
            "{}",
            "{\"a\":1}",
            "{\"level\":\"info\"",
            "{\"level\":\"info\"} trailing",
            "[{\"level\":\"info\"}]",
            "<8>x",
            "<>",
            "",
        ] {
            assert_eq!(show(line), format!("info {line}"));
        }
    }

    #[test]
    fn the_prefix_of_sd_daemon_sets_the_level() {
        assert_eq!(show("<3>broken"), "error broken");
        assert_eq!(show("<4>careful"), "warn careful");
        assert_eq!(show("<7>"), "debug ");
    }

    #[test]
    fn too_many_fields_or_too_deep_is_plain_text() {
        let line = |n: usize| {
            let fields: String = (0..n).map(|i| format!(",\"k{i}\":{i}")).collect();
            format!("{{\"level\":\"warn\"{fields}}}")
        };
        assert!(show(line(FIELDS_MAX)).starts_with("warn  k0=0"));
        assert_eq!(show(line(FIELDS_MAX + 1)), format!("info {}", line(FIELDS_MAX + 1)));
        let deep = format!("{{\"msg\":\"m\",\"a\":{}{}}}", "[".repeat(99), "]".repeat(99));
        assert_eq!(show(&deep), format!("info {deep}"));
    }

    #[test]
    fn parts_are_plain_text_and_say_which_they_are() {
        let mut recogniser = Recogniser::default();
        let part = Part { number: 2, continues: true };
        let found = recogniser.recognise(br#"{"level":"warn"}"#, part);
        assert_eq!(
            (found.level, found.message),
            (Level::Info, Text::Bytes(br#"{"level":"warn"}"#))
        );
        let fields: Vec<_> = found.fields().map(|field| (field.key, field.value)).collect();
        assert_eq!(fields, [("part", Value::Number(2)), ("continues", Value::Json("true"))]);
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_plain_text() {
        let mut recogniser = Recogniser::default();
        let line = b"{\"msg\":\"\xff\"}";
        assert_eq!(recogniser.recognise(line, Part::WHOLE).message, Text::Bytes(line));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_fail(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            show(line);
        }

        #[test]
        fn no_text_like_a_record_makes_it_fail(
            parts in proptest::collection::vec(prop::sample::select(vec![
                "{", "}", "\"level\"", "\"msg\"", "\"fields\"", ":", ",", "\"é\"", "level=", "msg=",
                "\"", "\\", "a=", "x", " ", "30", "<3>",
            ]), 0..14),
        ) {
            show(parts.concat());
        }
    }
}
