//! Random damage to a configuration file never makes the node stumble.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use super::seed_tests::seed;
use super::tests::{everything_active, load_named, load_text};
use super::yaml_tests::twin;
use super::*;

/// How many damaged files are read.
const MUTATIONS: u64 = 100_000;
/// Only this one is, where it is set, and its text is printed.
const ONLY: &str = "MUTATION";

const TOML: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "=",
    "\"",
    "'",
    "\n",
    "#",
    "{",
    "}",
    ",",
    ".",
    "ä",
    "\u{0}",
    "-1",
    "1e999",
    "0x",
    "\"\"\"",
    "''",
    "true",
    "[services.x]\n",
    "[services.storage]\n",
    "99999999999999999999",
    "depends_on = [\"web\"]\n",
    "1979-05-27",
    "\\u0000",
    "\r",
    "8080",
    "\"1s\"",
    "\"none\"",
    "/ip4/",
];

const YAML: &[&str] = &[
    "&a ",
    "*a",
    "!!str ",
    "!<x> ",
    "- ",
    ": ",
    ":",
    "? ",
    "|\n",
    ">-\n",
    "\t",
    "\n---\n",
    "\n...\n",
    "%YAML 1.2\n",
    "{",
    "[",
    "}",
    "]",
    "#",
    " #",
    "\"",
    "'",
    "\n",
    "  ",
    "\u{feff}",
    "\u{85}",
    "\r",
    "<<: *a\n",
    ",",
    "~",
    "\u{0}",
    "ä",
    "-1",
    ".inf",
    "99999999999999999999",
    "\\x",
    "\\",
    "8080",
    "/ip4/",
];

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed, the same damage.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to `most`.
    fn upto(&mut self, most: usize) -> usize {
        usize::try_from(self.roll() % (most as u64 + 1)).unwrap()
    }
}

/// A text to damage, and what to damage it with.
struct Base {
    name: &'static str,
    text: Vec<char>,
    snippets: &'static [&'static str],
}

impl Base {
    fn new(name: &'static str, text: &str) -> Self {
        let snippets = if name.ends_with("toml") { TOML } else { YAML };
        Self { name, text: text.chars().collect(), snippets }
    }
}

/// The documented file as it is and with its examples, the examples' folder, the seed's own file.
fn bases() -> Vec<Base> {
    let bare = |text: &str| -> String {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| format!("{line}\n")).collect()
    };
    let example = bare(&std::fs::read_to_string("examples/blackhole.toml").unwrap());
    let active = bare(&everything_active());
    let mut bases = vec![
        Base::new("active.toml", &active),
        Base::new("active.yaml", &twin(&active)),
        Base::new("defaults.toml", &bare(DEFAULTS)),
        Base::new("example.toml", &example),
        Base::new("example.yaml", &twin(&example)),
    ];
    bases.extend(seed().map(|text| Base::new("seed.yaml", &text)));
    bases
}

fn damaged(base: &Base, dice: &mut Dice) -> String {
    let mut text = base.text.clone();
    for _ in 0..=dice.upto(4) {
        let (at, other) = (dice.upto(text.len()), dice.upto(text.len()));
        match dice.upto(2) {
            0 => {
                let end = (at + dice.upto(40)).min(text.len());
                text.drain(at..end);
            }
            1 => {
                let snippet = base.snippets[dice.upto(base.snippets.len() - 1)];
                text.splice(at..at, snippet.chars());
            }
            _ => {
                let end = (at + dice.upto(200)).min(text.len());
                let copied = text[at..end].to_vec();
                text.splice(other..other, copied);
            }
        }
    }
    text.into_iter().collect()
}

/// What came of a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    Taken,
    Refused,
}

/// Taken whole, or refused with places that are in the file.
fn judge(name: &str, text: &str) -> Came {
    let errors = match load_named(name, text) {
        Ok(loaded) => {
            let again = load_text(&show(&loaded)).map(|again| again.config);
            assert_eq!(again, Ok(loaded.config));
            return Came::Taken;
        }
        Err(errors) => errors,
    };
    assert!(!errors.problems().is_empty());
    // RuntimeOverrides these YAML also ends a line at a carriage return alone.
    let lines = memchr::memchr2_iter(b'\n', b'\r', text.as_bytes()).count() + 2;
    for problem in errors.problems() {
        let fits = match &problem.place {
            Place::File { line, column, .. } => (1..=lines).contains(line) && *column > 0,
            Place::Default | Place::Set { .. } | Place::Option(_) => false,
        };
        assert!(fits, "{problem}");
        assert_eq!(problem.to_string().lines().count(), 1);
    }
    Came::Refused
}

fn one(bases: &[Base], number: u64) -> (&'static str, Came) {
    let mut dice = Dice(number);
    let base = &bases[dice.upto(bases.len() - 1)];
    let text = damaged(base, &mut dice);
    if std::env::var_os(ONLY).is_some() {
        eprintln!("{text}");
    }
    let judged = catch_unwind(AssertUnwindSafe(|| judge(base.name, &text)));
    (base.name, judged.unwrap_or_else(|_| panic!("run again with {ONLY}={number}")))
}

/// Reliability 79: 100,000 damaged files, no panic, every refusal with its line and column.
#[test]
fn a_damaged_file_is_taken_whole_or_refused_with_places() {
    let bases = bases();
    if let Some(number) = std::env::var(ONLY).ok().and_then(|number| number.parse().ok()) {
        eprintln!("{:?}", one(&bases, number));
        return;
    }
    let half = &|first: u64| {
        let mut came: BTreeMap<(&str, Came), u64> = BTreeMap::new();
        for number in (first..MUTATIONS).step_by(2) {
            *came.entry(one(&bases, number)).or_default() += 1;
        }
        came
    };
    let came: Vec<_> = thread::scope(|scope| {
        let halves = [0, 1].map(|first| scope.spawn(move || half(first)));
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    assert_eq!(came.iter().map(|(_, count)| count).sum::<u64>(), MUTATIONS);
    for base in &bases {
        let refused =
            came.iter().any(|((name, came), _)| (*name, *came) == (base.name, Came::Refused));
        assert!(refused, "no damage to {} was found: {came:?}", base.name);
    }
    assert!(came.iter().any(|((_, came), _)| *came == Came::Taken), "{came:?}");
    eprintln!("{came:?}");
}
