//! What a program writes, line by line, for tests that wait for a line. Knows no program.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// How many lines a failure shows.
const SHOWN: usize = 300;

/// The lines that were read so far, of one or more streams in the order in which they came.
#[derive(Debug, Clone, Default)]
pub struct Output(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Observation>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Observation {
    lines: Vec<String>,
    /// Streams that did not end yet.
    open: usize,
}

impl Output {
    /// Reads `stream` to its end on a thread of its own. `prefix` stands before each line.
    pub fn read(&self, prefix: &'static str, stream: impl Read + Send + 'static) {
        self.lock().open += 1;
        let output = self.clone();
        thread::spawn(move || output.pump(prefix, stream));
    }

    fn pump(&self, prefix: &str, stream: impl Read) {
        let mut stream = BufReader::new(stream);
        let mut bytes = Vec::new();
        while stream.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&bytes);
            let line = format!("{prefix}{}", text.trim_end_matches('\n'));
            bytes.clear();
            self.lock().lines.push(line);
            self.0.more.notify_all();
        }
        self.lock().open -= 1;
        self.0.more.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Observation> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows every line once to `find`, as they come, until it has found something. Fails with
    /// everything that was written when the output ends, or nothing is found in time.
    pub fn wait<T>(&self, what: &str, find: impl FnMut(&str) -> Option<T>) -> T {
        let found = self.wait_or_end(what, find);
        found.unwrap_or_else(|| panic!("waiting for {what}: the output ended\n{}", self.text()))
    }

    /// The same for a program that may end before: none, its output has ended.
    pub fn wait_or_end<T>(&self, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = 0;
        let mut heard = self.lock();
        loop {
            while let Some(line) = heard.lines.get(seen) {
                if let Some(found) = find(line) {
                    return Some(found);
                }
                seen += 1;
            }
            if heard.open == 0 {
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(heard);
                panic!("waiting for {what}: time is over\n{}", self.text());
            }
            let waited = self.0.more.wait_timeout(heard, left);
            heard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The first line with this text in it.
    pub fn line(&self, needle: &str) -> String {
        self.nth_line(1, needle)
    }

    /// The `nth` line, counted from 1, with this text in it.
    pub fn nth_line(&self, nth: usize, needle: &str) -> String {
        let mut found = 0;
        self.wait(&format!("line {nth} with {needle:?}"), |line| {
            found += usize::from(line.contains(needle));
            (found == nth).then(|| line.to_owned())
        })
    }

    /// Waits until all streams have ended.
    pub fn end(&self) {
        let heard = self.lock();
        let waited = self.0.more.wait_timeout_while(heard, PATIENCE, |heard| heard.open > 0);
        let (heard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(heard);
        assert!(!timeout.timed_out(), "the output does not end\n{}", self.text());
    }

    /// What was read until now.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// How many lines have this text in them until now.
    pub fn count(&self, needle: &str) -> usize {
        self.lock().lines.iter().filter(|line| line.contains(needle)).count()
    }

    /// The place of the first line with this text, for tests of an order.
    pub fn position(&self, needle: &str) -> usize {
        let place = self.lock().lines.iter().position(|line| line.contains(needle));
        place.unwrap_or_else(|| panic!("there is no line with {needle:?}\n{}", self.text()))
    }

    /// The newest lines, for whoever has to find out why a test failed.
    pub fn text(&self) -> String {
        let heard = self.lock();
        let first = heard.lines.len().saturating_sub(SHOWN);
        let mut text = format!("(without the first {first} lines)\n");
        for line in &heard.lines[first..] {
            writeln!(text, "| {line:.200}").expect("a string takes every write");
        }
        text
    }

    /// Lets time go by to reach an arbitrary moment. Not for waiting for anything.
    pub fn let_pass(&self, time: Duration) {
        let waited = self.0.more.wait_timeout_while(self.lock(), time, |_| true);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}
