//! Splits the bytes of a pipe into lines. Loses nothing: a line that is too long becomes parts, and
//! how the bytes were chunked makes no difference. Knows nothing of the content.

use super::record::Part;

/// The most bytes of one record. A longer line is split into parts.
pub const LINE_MAX: usize = 64 * 1024;

/// An emptied buffer larger than this is freed, so that an idle service takes up little memory.
const KEPT_BUFFER: usize = 4 * 1024;

/// The beginning of a line whose end has not been read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rest {
    /// At most `LINE_MAX` bytes and a CR.
    pub bytes: Vec<u8>,
    /// How many parts of the line were given out before.
    pub parts: u32,
}

/// Splits one stream. Holds at most one line of `LINE_MAX` bytes between two reads.
#[derive(Debug, Default)]
pub struct Splitter {
    pending: Vec<u8>,
    /// How many parts of the pending line were given out.
    parts: u32,
}

impl Splitter {
    /// Goes on in the middle of a line, where another splitter stopped.
    pub fn resume(rest: Rest) -> Self {
        Self { pending: rest.bytes, parts: rest.parts }
    }

    /// Takes the rest of a line out.
    pub fn take_rest(&mut self) -> Rest {
        Rest { bytes: std::mem::take(&mut self.pending), parts: std::mem::take(&mut self.parts) }
    }

    /// The rest of a line, and how many parts of that line were given out.
    pub fn rest(&self) -> (&[u8], u32) {
        (&self.pending, self.parts)
    }

    /// Passes on every line that `data` completes, without its LF or CR LF.
    pub fn feed(&mut self, data: &[u8], mut each: impl FnMut(&[u8], Part)) {
        let mut start = 0;
        for newline in memchr::memchr_iter(b'\n', data) {
            let piece = &data[start..newline];
            start = newline + 1;
            if self.pending.is_empty() {
                self.end_line(without_cr(piece), &mut each);
            } else {
                self.pending.extend_from_slice(piece);
                self.end_pending(without_cr, &mut each);
            }
        }
        self.pending.extend_from_slice(&data[start..]);
        self.cut_pending(&mut each);
    }

    /// Passes the rest of a line on after the end of the stream.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8], Part)) {
        if !self.pending.is_empty() {
            self.end_pending(|line| line, &mut each);
        }
    }

    fn end_pending(&mut self, trim: fn(&[u8]) -> &[u8], each: &mut impl FnMut(&[u8], Part)) {
        let mut pending = std::mem::take(&mut self.pending);
        self.end_line(trim(&pending), each);
        if pending.capacity() <= KEPT_BUFFER {
            pending.clear();
            self.pending = pending;
        }
    }

    fn end_line(&mut self, line: &[u8], each: &mut impl FnMut(&[u8], Part)) {
        let last = self.cut(line, each);
        let number = if self.parts == 0 { 0 } else { self.parts.saturating_add(1) };
        each(last, Part { number, continues: false });
        self.parts = 0;
    }

    /// A CR at the end may belong to the line's end, so it does not count yet.
    fn cut_pending(&mut self, each: &mut impl FnMut(&[u8], Part)) {
        let visible = without_cr(&self.pending).len();
        if visible <= LINE_MAX {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let rest = self.cut(&pending[..visible], each).len();
        self.pending = pending[visible - rest..].to_vec();
    }

    /// Passes parts on until the rest fits one record; returns the rest.
    fn cut<'a>(&mut self, mut line: &'a [u8], each: &mut impl FnMut(&[u8], Part)) -> &'a [u8] {
        while line.len() > LINE_MAX {
            let (part, rest) = line.split_at(cut_point(line));
            self.parts = self.parts.saturating_add(1);
            each(part, Part { number: self.parts, continues: true });
            line = rest;
        }
        line
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// `LINE_MAX`, or up to 3 bytes before it so that no UTF-8 sequence is cut in two.
fn cut_point(line: &[u8]) -> usize {
    let continuation = |at: &usize| line[*at] & 0b1100_0000 == 0b1000_0000;
    (LINE_MAX - 3..=LINE_MAX).rev().find(|at| !continuation(at)).unwrap_or(LINE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<(Vec<u8>, Part)> {
        let mut out = Vec::new();
        let mut splitter = Splitter::default();
        for chunk in chunks {
            splitter.feed(chunk, |line, part| out.push((line.to_vec(), part)));
        }
        splitter.finish(|line, part| out.push((line.to_vec(), part)));
        out
    }

    fn texts(chunks: &[&[u8]]) -> Vec<String> {
        split(chunks).into_iter().map(|(l, _)| String::from_utf8(l).unwrap()).collect()
    }

    #[test]
    fn lines_are_found_across_chunks_and_a_half_line_at_the_end_is_given() {
        assert_eq!(texts(&[b"a\nb", b"c\r", b"\n\nlast"]), ["a", "bc", "", "last"]);
        assert_eq!(texts(&[b"kept\r"]), ["kept\r"]);
        assert!(texts(&[b""]).is_empty());
    }

    #[test]
    fn another_one_goes_on_in_the_middle_of_a_line() {
        let text = "y".repeat(3 * LINE_MAX) + "\nz\n";
        for at in [0, 1, LINE_MAX, LINE_MAX + 1, 2 * LINE_MAX + 5, 3 * LINE_MAX, text.len()] {
            let mut out = Vec::new();
            let mut splitter = Splitter::default();
            let (one, other) = text.as_bytes().split_at(at);
            splitter.feed(one, |line, part| out.push((line.to_vec(), part)));
            let mut next = Splitter::resume(splitter.take_rest());
            next.feed(other, |line, part| out.push((line.to_vec(), part)));
            splitter.finish(|line, _| panic!("{line:?} is given twice"));
            assert_eq!(out, split(&[text.as_bytes()]), "{at}");
        }
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_whole_with_either_ending() {
        for ending in ["\n", "\r\n"] {
            let text = "x".repeat(LINE_MAX) + ending;
            for at in [text.len(), LINE_MAX, LINE_MAX + 1] {
                let (a, b) = text.as_bytes().split_at(at);
                let lines = split(&[a, b]);
                assert_eq!((lines.len(), lines[0].1), (1, Part::WHOLE), "{ending:?} {at}");
            }
        }
    }

    #[test]
    fn a_line_of_a_mebibyte_comes_in_numbered_parts() {
        let text = "y".repeat(1 << 20) + "\nz\n";
        let lines = split(&[text.as_bytes()]);
        assert_eq!(lines.len(), 17);
        for (index, (part, mark)) in lines[..16].iter().enumerate() {
            let number = u32::try_from(index).unwrap() + 1;
            assert_eq!((part.len(), *mark), (LINE_MAX, Part { number, continues: index < 15 }));
        }
        assert_eq!(lines[16], (b"z".to_vec(), Part::WHOLE));
    }

    #[test]
    fn a_cut_does_not_tear_a_character() {
        for shift in 0..4 {
            let text = "x".repeat(shift) + &"🐘".repeat(LINE_MAX / 2);
            for (part, _) in split(&[text.as_bytes()]) {
                assert!(std::str::from_utf8(&part).is_ok(), "{shift}");
            }
        }
    }

    #[test]
    fn what_is_held_between_reads_is_bounded_and_given_back() {
        let mut splitter = Splitter::default();
        for _ in 0..100 {
            splitter.feed(&[b'x'; 50_000], |_, _| ());
            assert!(splitter.pending.len() <= LINE_MAX);
        }
        splitter.feed(b"\n", |_, _| ());
        assert!(splitter.pending.capacity() <= KEPT_BUFFER);
    }

    /// Pieces with many line ends, and runs long enough to need parts.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..40),
            (any::<u8>(), LINE_MAX - 3..LINE_MAX + 3).prop_map(|(byte, n)| vec![byte; n]),
            Just("🐘".repeat(LINE_MAX / 3).into_bytes()),
        ]
    }

    /// The lines of the whole input, by the plain definition.
    fn lines_of(input: &[u8]) -> Vec<Vec<u8>> {
        let mut lines: Vec<_> = input.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        let half = lines.pop().filter(|half| !half.is_empty());
        for line in &mut lines {
            line.truncate(without_cr(line).len());
        }
        lines.into_iter().chain(half).collect()
    }

    proptest! {
        #[test]
        fn joined_parts_are_the_input_whatever_the_chunking(
            pieces in proptest::collection::vec(piece(), 0..8),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let input = pieces.concat();
            let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
            at.extend([0, input.len()]);
            at.sort_unstable();
            let chunks: Vec<_> = at.windows(2).map(|w| &input[w[0]..w[1]]).collect();
            let records = split(&chunks);
            prop_assert_eq!(&records, &split(&[&input]));
            let mut joined = vec![Vec::new()];
            for (bytes, part) in records {
                prop_assert!(bytes.len() <= LINE_MAX);
                joined.last_mut().unwrap().extend(bytes);
                if !part.continues {
                    joined.push(Vec::new());
                }
            }
            joined.pop();
            prop_assert_eq!(joined, lines_of(&input));
        }
    }
}
