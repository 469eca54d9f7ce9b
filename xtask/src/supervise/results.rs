//! What was measured: every sample, its unit and whose it is; and the bars that have to be met.

use super::contenders::Contender;

/// Something that is measured, for each contender that can show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    pub key: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    pub better: Better,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
}

/// The samples of one contender.
#[derive(Debug)]
pub struct Series {
    pub measure: Measure,
    pub contender: Contender,
    pub samples: Vec<f64>,
}

#[derive(Debug, Default)]
pub struct Results(Vec<Series>);

impl Results {
    pub fn add(&mut self, measure: Measure, contender: Contender, sample: f64) {
        let same = |s: &&mut Series| s.measure == measure && s.contender == contender;
        match self.0.iter_mut().find(same) {
            Some(series) => series.samples.push(sample),
            None => self.0.push(Series { measure, contender, samples: vec![sample] }),
        }
    }

    pub fn all(&self) -> &[Series] {
        &self.0
    }

    /// In the order in which they were measured.
    pub fn measures(&self) -> Vec<Measure> {
        let mut found: Vec<Measure> = Vec::new();
        for series in &self.0 {
            if !found.contains(&series.measure) {
                found.push(series.measure);
            }
        }
        found
    }

    /// Whether no sample of ours is anything but zero.
    fn is_always_zero(&self, key: &str) -> bool {
        let ours = |s: &&Series| s.measure.key == key && s.contender == Contender::Ours;
        self.0.iter().filter(ours).flat_map(|s| &s.samples).all(|sample| *sample == 0.0)
    }

    pub fn median(&self, key: &str, contender: Contender) -> Option<f64> {
        let series = self.0.iter().find(|s| s.measure.key == key && s.contender == contender)?;
        median(&series.samples)
    }
}

/// None: there are no samples.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(middle.checked_sub(1)?)?;
    Some((lower + upper) / 2.0)
}

/// What ours is held against.
#[derive(Debug, Clone, Copy)]
enum Limit {
    /// At most so many times the other's median.
    Times(f64, Contender),
    /// At least the other's median.
    AtLeast(Contender),
    Most(f64),
    /// Zero in every sample.
    Never,
}

const BARS: [(&str, Limit); 20] = [
    ("restart-10", Limit::Times(1.0, Contender::Runit)),
    ("restart-10", Limit::Times(2.0, Contender::Floor)),
    ("restart-100", Limit::Times(1.0, Contender::Runit)),
    ("restart-100", Limit::Times(2.0, Contender::Floor)),
    ("serving", Limit::Times(2.5, Contender::Floor)),
    ("storm-100", Limit::Times(1.0, Contender::Runit)),
    ("start-100", Limit::Times(0.6, Contender::Runit)),
    ("start-100", Limit::Times(1.0, Contender::S6)),
    ("start-500", Limit::Times(0.6, Contender::Runit)),
    ("start-500", Limit::Times(1.0, Contender::S6)),
    ("pss-100", Limit::Most(12.0 * 1024.0)),
    ("pss-further", Limit::Most(16.0)),
    ("idle-wakeups", Limit::Most(1.0)),
    ("idle-cpu", Limit::Most(0.1)),
    ("idle-checks", Limit::Most(2.0)),
    ("log-1-rate", Limit::AtLeast(Contender::S6)),
    ("log-1-cpu", Limit::Times(1.0, Contender::S6)),
    ("log-10-rate", Limit::AtLeast(Contender::S6)),
    ("log-10-cpu", Limit::Times(1.0, Contender::S6)),
    ("log-lost", Limit::Never),
];

/// A bar that could be judged: both sides were measured.
#[derive(Debug)]
pub struct Bar {
    pub measure: Measure,
    /// `<= 1.0x runit+svlogd`
    pub text: String,
    pub ours: f64,
    pub limit: f64,
    pub is_met: bool,
}

pub fn bars(results: &Results) -> Vec<Bar> {
    let measures = results.measures();
    let judged = BARS.iter().filter_map(|(key, limit)| {
        let measure = *measures.iter().find(|measure| measure.key == *key)?;
        let ours = results.median(key, Contender::Ours)?;
        let (limit, text, is_met) = match *limit {
            Limit::Times(times, other) => {
                let limit = times * results.median(key, other)?;
                (limit, format!("<= {times:.1}x {}", other.name()), ours <= limit)
            }
            Limit::AtLeast(other) => {
                let limit = results.median(key, other)?;
                (limit, format!(">= {}", other.name()), ours >= limit)
            }
            Limit::Never => (0.0, "none, ever".to_owned(), results.is_always_zero(key)),
            Limit::Most(most) => (most, format!("<= {most} {}", measure.unit), ours <= most),
        };
        Some(Bar { measure, text, ours, limit, is_met })
    });
    judged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESTART: Measure =
        Measure { key: "restart-10", title: "restart", unit: "ms", better: Better::Less };

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_bar_is_judged_by_medians_and_only_where_both_sides_are_measured() {
        let mut results = Results::default();
        for sample in [2.0, 2.2, 9.0] {
            results.add(RESTART, Contender::Ours, sample);
        }
        assert_eq!(bars(&results).len(), 0);
        results.add(RESTART, Contender::Runit, 2.2);
        results.add(RESTART, Contender::Floor, 1.0);
        let judged = bars(&results);
        let met: Vec<_> = judged.iter().map(|bar| (bar.text.as_str(), bar.is_met)).collect();
        assert_eq!(met, [("<= 1.0x runit+svlogd", true), ("<= 2.0x floor", false)]);
    }
}
