//! Finds the parts of a JSON text (RFC 8259) without building values, so that a record can carry
//! them verbatim. Strict: every JSON reader accepts what this accepts. Knows nothing of logs.

use std::ops::Range;

/// How deep objects and arrays may be nested.
pub const DEPTH_MAX: u32 = 32;

/// A place in the text, in bytes.
pub type Span = Range<usize>;

/// One value in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub kind: Kind,
    /// The whole value; a string includes its quotes.
    pub span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    String,
    Number,
    /// `true`, `false` or `null`.
    Literal,
    Object,
    Array,
}

/// Passes each member of the object in `text` to `each`: its key (with quotes) and its value.
/// `None`: `text` is not exactly one object, or `each` returned `None`.
pub fn members(text: &str, each: impl FnMut(Span, Value) -> Option<()>) -> Option<()> {
    let mut scan = Scan { text, at: 0 };
    scan.space();
    scan.object(DEPTH_MAX, each)?;
    scan.space();
    (scan.at == text.len()).then_some(())
}

/// The JSON string that begins at `at`, with its quotes.
pub fn string_at(text: &str, at: usize) -> Option<Span> {
    Scan { text, at }.string()
}

/// Whether `text` is exactly one number that a 64-bit float can hold.
pub fn is_number(text: &str) -> bool {
    let mut scan = Scan { text, at: 0 };
    scan.number().is_some() && scan.at == text.len()
}

/// The content of a JSON string, given with its quotes. `None`: it is not a JSON string.
pub fn decode(quoted: &str) -> Option<String> {
    serde_json::from_str(quoted).ok()
}

/// Appends the content of a JSON string, given without its quotes. A backslash that begins no
/// escape is copied.
pub fn unescape(out: &mut Vec<u8>, inside: &str) {
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        let (c, length) = escaped(rest).unwrap_or(('\\', 1));
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[length..];
    }
    out.extend_from_slice(rest.as_bytes());
}

/// The character of the escape at the beginning, and the escape's length.
fn escaped(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| u32::from_str_radix(text.get(at..at + 4)?, 16).ok();
    let c = match text.as_bytes().get(1)? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        c @ (b'"' | b'\\' | b'/') => char::from(*c),
        b'u' => match unit(2)? {
            high @ 0xD800..=0xDBFF => {
                let low = unit(8)?.checked_sub(0xDC00)?;
                let code = 0x1_0000 + ((high - 0xD800) << 10) + low;
                return Some((char::from_u32(code)?, 12));
            }
            code => return Some((char::from_u32(code)?, 6)),
        },
        _ => return None,
    };
    Some((c, 2))
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips `byte` if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|b| !wanted(*b)).unwrap_or(rest.len());
        self.at += length;
        length
    }

    fn space(&mut self) {
        self.skip_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
    }

    fn object(
        &mut self,
        depth: u32,
        mut each: impl FnMut(Span, Value) -> Option<()>,
    ) -> Option<()> {
        self.take(b'{').then_some(())?;
        self.space();
        if self.take(b'}') {
            return Some(());
        }
        loop {
            self.space();
            let key = self.string()?;
            self.space();
            self.take(b':').then_some(())?;
            let value = self.value(depth)?;
            each(key, value)?;
            if self.take(b'}') {
                return Some(());
            }
            self.take(b',').then_some(())?;
        }
    }

    fn array(&mut self, depth: u32) -> Option<()> {
        self.take(b'[').then_some(())?;
        self.space();
        if self.take(b']') {
            return Some(());
        }
        loop {
            self.value(depth)?;
            if self.take(b']') {
                return Some(());
            }
            self.take(b',').then_some(())?;
        }
    }

    /// The next value and the white space around it.
    fn value(&mut self, depth: u32) -> Option<Value> {
        self.space();
        let start = self.at;
        let kind = match self.peek()? {
            b'"' => self.string().map(|_| Kind::String),
            b'{' => self.object(depth.checked_sub(1)?, |_, _| Some(())).map(|()| Kind::Object),
            b'[' => self.array(depth.checked_sub(1)?).map(|()| Kind::Array),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.number().map(|()| Kind::Number),
        }?;
        let span = start..self.at;
        self.space();
        Some(Value { kind, span })
    }

    fn literal(&mut self, word: &str) -> Option<Kind> {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        found.then_some(Kind::Literal)
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        let digits = |scan: &mut Self| (scan.skip_while(|b| b.is_ascii_digit()) > 0).then_some(());
        self.take(b'-');
        if !self.take(b'0') {
            digits(self)?;
        }
        if self.take(b'.') {
            digits(self)?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            digits(self)?;
        }
        let short = self.at - start <= 15 && !self.text[start..self.at].contains(['e', 'E']);
        let fits = || self.text[start..self.at].parse().is_ok_and(f64::is_finite);
        (short || fits()).then_some(())
    }

    fn string(&mut self) -> Option<Span> {
        let start = self.at;
        self.take(b'"').then_some(())?;
        loop {
            self.skip_while(|b| !matches!(b, b'"' | b'\\' | 0..=0x1f));
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(start..self.at);
                }
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        self.at += 1;
        let letter = self.peek()?;
        self.at += 1;
        match letter {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => match self.code_unit()? {
                0xD800..=0xDBFF => {
                    (self.take(b'\\') && self.take(b'u')).then_some(())?;
                    matches!(self.code_unit()?, 0xDC00..=0xDFFF).then_some(())
                }
                0xDC00..=0xDFFF => None,
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn code_unit(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |sum, b| Some(sum * 16 + char::from(*b).to_digit(16)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_object(text: &str) -> bool {
        members(text, |_, _| Some(())).is_some()
    }

    #[test]
    fn members_come_in_order_with_their_text() {
        let text = r#" { "a" : 1 , "b":"x\n" ,"c":[{"d":null}],"e":{},"f":true } "#;
        let mut seen = Vec::new();
        let end = members(text, |key, value| {
            seen.push((&text[key], value.kind, &text[value.span]));
            Some(())
        });
        assert_eq!(end, Some(()));
        let expected = [
            ("\"a\"", Kind::Number, "1"),
            ("\"b\"", Kind::String, r#""x\n""#),
            ("\"c\"", Kind::Array, r#"[{"d":null}]"#),
            ("\"e\"", Kind::Object, "{}"),
            ("\"f\"", Kind::Literal, "true"),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_only_looks_like_an_object_is_refused() {
        for wrong in [
            "",
            "{",
            "{}}",
            "{} x",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":-}",
            "{\"a\":1e999}",
            "{\"a\":tru}",
            "{\"a\":\"\u{1}\"}",
            r#"{"a":"\x"}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\udc00\ud800"}"#,
            r#"{"a":"\u12"#,
            "{\"a\":[1 2]}",
            "[]",
        ] {
            assert!(!is_object(wrong), "{wrong}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(is_object(&nested(32)));
        assert!(!is_object(&nested(33)));
        assert!(!is_object(&nested(30_000)));
    }

    #[test]
    fn numbers_are_told_from_words() {
        for number in ["0", "-1", "1024", "1.5e3", "12345678901234567890123"] {
            assert!(is_number(number), "{number}");
        }
        for word in ["", "007", "1e400", "0x1f", "1_000", "NaN", "+1", ".5", "1 "] {
            assert!(!is_number(word), "{word}");
        }
    }

    fn object_like() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            prop::sample::select(vec![
                "{",
                "}",
                "[",
                "]",
                ",",
                ":",
                " ",
                "\"a\"",
                "\"\\u00e9\"",
                "\"\\ud83d\\ude00\"",
                "\"\\ud800\"",
                "1",
                "-0.5",
                "1E5",
                "1e999",
                "01",
                "true",
                "null",
                "nul",
                "\\",
                "\"",
            ])
            .prop_map(str::to_owned),
            any::<char>().prop_map(String::from),
        ];
        let soup = proptest::collection::vec(token, 0..12).prop_map(|v| v.concat());
        prop_oneof![soup.clone().prop_map(|s| format!("{{\"k\":{s}}}")), soup]
    }

    fn unescaped(inside: &str) -> String {
        let mut out = Vec::new();
        unescape(&mut out, inside);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_escape_is_what_it_stands_for() {
        assert_eq!(
            unescaped(r#"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00z"#),
            "a\"\\/\u{8}\u{c}\n\r\té😀z"
        );
        for wrong in [r"\", r"\x", r"\u12", r"\ud800", r"\ud800\ud800", r"\udc00"] {
            assert_eq!(unescaped(wrong), wrong);
        }
    }

    proptest! {
        #[test]
        fn every_json_string_is_read_as_serde_json_reads_it(
            text in any::<String>(),
            parts in proptest::collection::vec(prop::sample::select(vec![
                "\\n", "\\u00e9", "\\ud83d\\ude00", "\\\"", "\\\\", "/", "\\/", "x", "é",
            ]), 0..8),
        ) {
            let written = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(unescaped(&written[1..written.len() - 1]), text);
            let inside = parts.concat();
            prop_assert_eq!(Some(unescaped(&inside)), decode(&format!("\"{inside}\"")));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn it_accepts_exactly_the_objects_that_serde_json_accepts(text in object_like()) {
            let oracle = serde_json::from_str::<serde_json::Value>(&text);
            prop_assert_eq!(is_object(&text), oracle.is_ok_and(|value| value.is_object()));
        }
    }
}
