//! The figures as a table for the eye and the report, and all samples as JSON.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::contenders::{ALL, Contender};
use super::results::{Bar, Better, Measure, Results, bars, median};

/// systemd 252 as it was measured before, not in this run: 2 cores, `chrt -r 5`, services executed
/// directly, `StandardOutput=null`, without journald; the log rows with journald, 200,000 lines.
const QUOTED: [(&str, f64); 13] = [
    ("restart-10", 13.1),
    ("storm-100", 112.0),
    ("start-100", 110.0),
    ("start-500", 528.0),
    ("pss-100", 8.8 * 1024.0),
    ("pss-500", 11.1 * 1024.0),
    ("pss-further", 5.7),
    ("idle-wakeups", 0.0),
    ("idle-cpu", 0.0),
    ("log-1-rate", 180_000.0),
    ("log-1-cpu", 5.402),
    ("log-10-rate", 167_000.0),
    ("log-10-cpu", 5.519),
];

const HOW: &str = "\
All contenders raced in one run under one scheduling class, their rounds interleaved in a seeded
order; each figure is a median. The service is one static C program that says by a datagram, with
the time in its own `main`, that it runs. Ours and the floor execute it; runit and s6 execute
`#!/bin/sh` scripts that `exec` it, as their users write them (`s6 execline`: execline scripts).
Supervisors keep their files in memory (tmpfs); the log rows write to the disk. Services are older
than 1.2 s before they are killed. Wake-ups are voluntary context switches. PSS and processor time
are summed over all processes of supervision with their loggers, and without the services.

- runit: `runsvdir -P DIR` (the folder aged, or it would wait 1 s), `svlogd -ttt` for each service
- s6: `s6-svscan -t0 -c2000 DIR`, `s6-log n1 s268435455 T DIR` for each service; it waits 1 s after
  each death
- ours: the profile `dist`, `log_format = \"json\"` into a file, `log_rate = 0`, all else at its
  default
- floor: posix_spawn, epoll over pidfds, respawn; no logs
- systemd: quoted, not of this run (252.38, 2 cores, `chrt -r 5`, no log pipes; the log rows with
  journald, 200,000 lines)
";

/// Everything that a reader needs to judge the figures.
#[derive(Debug)]
pub struct Report<'a> {
    pub facts: &'a [(&'static str, String)],
    /// By the name of what was measured then.
    pub moods: &'a [(&'static str, String)],
    pub command: &'a str,
    pub results: &'a Results,
}

impl Report<'_> {
    /// Writes `path` and, beside it, `.json` with every sample.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        if let Some(folder) = path.parent() {
            super::contenders::make(folder)?;
        }
        let json = path.with_extension("json");
        let samples = serde_json::to_string_pretty(&self.json()).map_err(|e| e.to_string())?;
        for (path, text) in [(path, self.markdown()), (&json, samples + "\n")] {
            fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    /// The table and the bars.
    pub fn summary(&self) -> String {
        format!("{}\n{}", self.table(), bar_table(&bars(self.results)))
    }

    fn markdown(&self) -> String {
        let mut text = format!("# The race: `{}`\n\n", self.command);
        for (name, value) in self.facts {
            let _to_a_string = writeln!(text, "- {name}: {value}");
        }
        let _to_a_string = write!(text, "\n{HOW}\n{}\n## Before each measure\n\n", self.summary());
        for (name, mood) in self.moods {
            let _to_a_string = writeln!(text, "- {name}: {mood}");
        }
        text.push_str("\n## Every sample\n\n");
        for series in self.results.all() {
            let Measure { title, unit, .. } = series.measure;
            let samples: Vec<String> = series.samples.iter().map(|s| figure(*s)).collect();
            let name = series.contender.name();
            let _to_a_string = writeln!(text, "- {title}, {name} [{unit}]: {}", samples.join(" "));
        }
        text
    }

    fn table(&self) -> String {
        let mut rows = vec![
            ["measure", "unit"]
                .into_iter()
                .chain(ALL.iter().map(|contender| contender.name()))
                .chain(["systemd (quoted)", "ours/floor", "ours/runit", "ours/s6"])
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        ];
        for measure in self.results.measures() {
            let of = |contender| self.results.median(measure.key, contender);
            let shown = |value: Option<f64>| value.map_or("-".to_owned(), figure);
            let ratio = |other| match (of(Contender::Ours), of(other)) {
                (Some(ours), Some(other)) if other > 0.0 => format!("{:.2}x", ours / other),
                _ => "-".to_owned(),
            };
            let mut row = vec![measure.title.to_owned(), measure.unit.to_owned()];
            row.extend(ALL.iter().map(|contender| shown(of(*contender))));
            row.push(shown(quoted(measure.key)));
            row.extend([Contender::Floor, Contender::Runit, Contender::S6].map(ratio));
            rows.push(row);
        }
        aligned(&rows)
    }

    fn json(&self) -> Value {
        let facts: serde_json::Map<_, _> =
            self.facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let moods: serde_json::Map<_, _> =
            self.moods.iter().map(|(name, mood)| ((*name).to_owned(), json!(mood))).collect();
        let series: Vec<Value> = self
            .results
            .all()
            .iter()
            .map(|series| {
                json!({
                    "measure": series.measure.key,
                    "title": series.measure.title,
                    "unit": series.measure.unit,
                    "contender": series.contender.name(),
                    "median": median(&series.samples),
                    "samples": series.samples,
                })
            })
            .collect();
        let judged: Vec<Value> = bars(self.results)
            .iter()
            .map(|bar| {
                let Bar { measure, text, ours, limit, is_met } = bar;
                json!({
                    "measure": measure.key,
                    "bar": text,
                    "ours": ours,
                    "limit": limit,
                    "met": is_met,
                })
            })
            .collect();
        json!({
            "command": self.command,
            "machine": facts,
            "before": moods,
            "series": series,
            "bars": judged,
        })
    }
}

fn quoted(key: &str) -> Option<f64> {
    QUOTED.iter().find(|(quoted, _)| *quoted == key).map(|(_, figure)| *figure)
}

fn bar_table(bars: &[Bar]) -> String {
    let mut rows = vec![["measure", "bar", "limit", "ours", ""].map(str::to_owned).to_vec()];
    for bar in bars {
        let word = if bar.is_met { "met" } else { "MISSED" };
        let title = format!("{} [{}]", bar.measure.title, bar.measure.unit);
        let figures = [figure(bar.limit), figure(bar.ours), word.to_owned()];
        rows.push([title, bar.text.clone()].into_iter().chain(figures).collect());
    }
    aligned(&rows)
}

/// One line for a bar that was not met.
pub fn missed(bar: &Bar) -> String {
    let than = match bar.measure.better {
        Better::Less => "more than",
        Better::More => "less than",
    };
    format!(
        "missed: {}: {} {} is {than} {} ({})",
        bar.measure.title,
        figure(bar.ours),
        bar.measure.unit,
        figure(bar.limit),
        bar.text
    )
}

/// Three digits or more that say something.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A Markdown table, its first row the head, the first two columns of texts, the rest of figures.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _to_a_string = if column < 2 {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let end = if column < 2 { '-' } else { ':' };
                let _to_a_string = write!(text, "|{}{end}", "-".repeat(width + 1));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(
            [1234.5, 123.4, 12.34, 1.234, 0.01234, 0.0].map(figure),
            ["1234", "123", "12.3", "1.23", "0.012", "0"]
        );
    }

    #[test]
    fn a_table_is_aligned_and_markdown() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = aligned(&[row(["what", "unit", "ours"]), row(["restart", "ms", "12345"])]);
        let expected = "\
            | what    | unit |  ours |\n\
            |---------|------|------:|\n\
            | restart | ms   | 12345 |\n";
        assert_eq!(text, expected);
    }
}
