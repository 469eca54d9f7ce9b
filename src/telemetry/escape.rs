//! Makes text from services safe inside JSON and on an operator's terminal. Bytes that are not
//! UTF-8 become U+FFFD. Knows no record.

use std::io::Write;

/// Appends `text` as a JSON string with its quotes (RFC 8259, section 7).
pub fn json_string(out: &mut Vec<u8>, text: &[u8]) {
    const SPECIAL: [bool; 256] = bytes_that_need_care(b"\"\\");
    out.push(b'"');
    copy(out, text, &SPECIAL, |out, c| match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\0'..'\u{20}' => put(out, format_args!("\\u{:04x}", u32::from(c))),
        _ => push(out, c),
    });
    out.push(b'"');
}

/// Appends `text` without anything that a terminal would obey: control characters and characters
/// that change the direction of the text are written as Rust escapes them (`
/// `, `\x1b`, `\u{202e}`).
pub fn for_terminal(out: &mut Vec<u8>, text: &[u8]) {
    const SPECIAL: [bool; 256] = bytes_that_need_care(b"\x7f");
    copy(out, text, &SPECIAL, |out, c| match c {
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\0'..'\u{20}' | '\x7f' => put(out, format_args!("\\x{:02x}", u32::from(c))),
        c if c.is_control() || steers_text(c) => {
            put(out, format_args!("\\u{{{:x}}}", u32::from(c)));
        }
        _ => push(out, c),
    });
}

/// Line and paragraph separators, and the explicit directions of the Unicode bidirectional
/// algorithm (UAX #9, section 2).
fn steers_text(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// Control characters, everything that is not ASCII, and `more`.
const fn bytes_that_need_care(more: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte < 0x20 || byte >= 0x80;
        byte += 1;
    }
    let mut index = 0;
    while index < more.len() {
        table[more[index] as usize] = true;
        index += 1;
    }
    table
}

/// Copies runs of harmless bytes, and passes every other character to `care`.
fn copy(out: &mut Vec<u8>, text: &[u8], special: &[bool; 256], care: impl Fn(&mut Vec<u8>, char)) {
    let mut rest = text;
    loop {
        let clean = rest.iter().position(|b| special[usize::from(*b)]).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..clean]);
        rest = &rest[clean..];
        match rest.first() {
            None => return,
            Some(ascii) if ascii.is_ascii() => {
                care(out, char::from(*ascii));
                rest = &rest[1..];
            }
            Some(_) => {
                let foreign = rest.iter().position(u8::is_ascii).unwrap_or(rest.len());
                for chunk in rest[..foreign].utf8_chunks() {
                    chunk.valid().chars().for_each(|c| care(out, c));
                    if !chunk.invalid().is_empty() {
                        push(out, char::REPLACEMENT_CHARACTER);
                    }
                }
                rest = &rest[foreign..];
            }
        }
    }
}

fn push(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &[u8]) -> String {
        let mut out = Vec::new();
        json_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    fn terminal(text: &[u8]) -> String {
        let mut out = Vec::new();
        for_terminal(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_service_cannot_move_the_cursor_or_turn_the_text() {
        assert_eq!(terminal(b"\x1b[2J\x1b]0;t\x07"), r"\x1b[2J\x1b]0;t\x07");
        assert_eq!(terminal(b"a\0b\r\n\tc\x7f"), r"a\x00b\r\n\tc\x7f");
        assert_eq!(
            terminal("\u{9b}2J \u{202e}x \u{2028}".as_bytes()),
            r"\u{9b}2J \u{202e}x \u{2028}"
        );
        assert_eq!(terminal("Grüße 🐘".as_bytes()), "Grüße 🐘");
    }

    #[test]
    fn bytes_that_are_not_utf_8_become_the_replacement_character() {
        assert_eq!(terminal(b"a\xffb\xe2\x82"), "a\u{fffd}b\u{fffd}");
        assert_eq!(json(b"a\xff\"\xe2\x82"), "\"a\u{fffd}\\\"\u{fffd}\"");
    }

    proptest! {
        #[test]
        fn a_json_string_says_what_the_bytes_said(
            bytes in proptest::collection::vec(any::<u8>(), 0..80)
        ) {
            let read: String = serde_json::from_str(&json(&bytes)).unwrap();
            prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn a_json_string_keeps_every_text(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&json(text.as_bytes())).unwrap(), text);
        }

        #[test]
        fn nothing_on_the_terminal_is_a_control_character(
            bytes in proptest::collection::vec(any::<u8>(), 0..80)
        ) {
            prop_assert!(!terminal(&bytes).chars().any(char::is_control));
        }
    }
}
