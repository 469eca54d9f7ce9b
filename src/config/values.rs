//! From a value of the tree to a typed one, or to what is wrong with it. Knows no key.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::form::Form;
use super::problem::{Place, Problem};
use super::tree::Value;
use crate::units::{ByteSize, CpuShare, DurationError, parse_duration};

/// Why a value is refused.
#[derive(Debug)]
pub(super) struct Wrong {
    what: String,
    allowed: String,
    meant: Option<String>,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { what: what.into(), allowed: allowed.into(), meant: None }
    }

    /// The value is of another kind than `wanted`.
    pub(super) fn kind(value: &Value, wanted: &str) -> Self {
        Self::new(format!("{} is not what belongs here", value.kind()), wanted)
    }

    pub(super) fn meant(mut self, meant: Option<String>) -> Self {
        self.meant = meant;
        self
    }

    pub(super) fn at(self, place: &Place, key: &str, value: &Value) -> Problem {
        let problem = Problem::new(place, key, self.what).value(value);
        problem.allowed(self.allowed).meant(self.meant)
    }

    /// Like `at`, for a value that may be a secret: it is not repeated.
    pub(super) fn at_secret(self, place: &Place, key: &str) -> Problem {
        Problem::new(place, key, self.what).allowed(self.allowed).meant(self.meant)
    }
}

type Read<T> = Result<T, Wrong>;

/// Reads values of one form.
#[derive(Debug, Clone)]
pub(super) struct Reader<F> {
    pub(super) form: Form,
    read: F,
}

impl<F> Reader<F> {
    pub(super) fn new<T>(form: Form, read: F) -> Self
    where
        F: Fn(&Value) -> Read<T>,
    {
        Self { form, read }
    }

    pub(super) fn read<T>(&self, value: &Value) -> Read<T>
    where
        F: Fn(&Value) -> Read<T>,
    {
        (self.read)(value)
    }
}

/// From one millisecond to a year: long enough not to spin, short enough not to overflow a timer.
pub(super) const SOME_TIME: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(365 * 86_400);
/// The same, or not at all.
pub(super) const NO_OR_SOME_TIME: RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(365 * 86_400);

/// The largest amount of memory or disk that is accepted.
pub(super) const MAX_SIZE: ByteSize = ByteSize::gib(1 << 20);

/// The longest path that is taken, in bytes. PATH_MAX is 4096, and files are made below it.
const PATH_MAX: usize = 1024;

pub(super) fn text(value: &Value) -> Read<String> {
    let Value::Text(text) = value else { return Err(Wrong::kind(value, "a text in quotes")) };
    Ok(text.clone())
}

pub(super) fn flag() -> Reader<impl Fn(&Value) -> Read<bool>> {
    Reader::new(Form::Flag, |value| {
        let allowed = "true or false, without quotes";
        let Value::Bool(flag) = value else { return Err(Wrong::kind(value, allowed)) };
        Ok(*flag)
    })
}

/// A whole number of this range.
pub(super) fn whole<T>(range: RangeInclusive<T>) -> Reader<impl Fn(&Value) -> Read<T>>
where
    T: TryFrom<i64> + TryInto<i64> + Copy + PartialOrd + Display,
{
    let bound = |number: T| number.try_into().unwrap_or(i64::MAX);
    let form = Form::Whole { least: bound(*range.start()), most: bound(*range.end()) };
    Reader::new(form, move |value| {
        let allowed = || format!("a whole number from {} to {}", range.start(), range.end());
        let Value::Integer(number) = value else { return Err(Wrong::kind(value, &allowed())) };
        let fitting = T::try_from(*number).ok().filter(|number| range.contains(number));
        fitting.ok_or_else(|| Wrong::new("the number is out of range", allowed()))
    })
}

/// A duration of this range, with its unit.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> Reader<impl Fn(&Value) -> Read<Duration>> {
    Reader::new(Form::Duration, move |value| {
        let least = if range.start().is_zero() { "0s" } else { "1ms" };
        let allowed =
            || format!("a duration with its unit from {least} to 365days, such as \"5s\"");
        let Value::Text(text) = value else { return Err(Wrong::kind(value, &allowed())) };
        let duration = parse_duration(text).map_err(|error| {
            let what = match error {
                DurationError::Negative => "a duration is not negative",
                DurationError::TooLong => "the duration is out of range",
                DurationError::Form => "this is not a duration",
            };
            Wrong::new(what, allowed())
        })?;
        let fits = range.contains(&duration);
        fits.then_some(duration)
            .ok_or_else(|| Wrong::new("the duration is out of range", allowed()))
    })
}

/// An amount of bytes of this range: a text with a unit, or a whole number.
pub(super) fn size(range: RangeInclusive<ByteSize>) -> Reader<impl Fn(&Value) -> Read<ByteSize>> {
    let form = Form::Size { least: *range.start(), most: *range.end() };
    Reader::new(form, move |value| {
        let (least, most) = (range.start(), range.end());
        let allowed = || format!("a size from {least} to {most}, such as \"512MiB\" or \"2GB\"");
        let text = match value {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Float(_)
            | Value::Bool(_)
            | Value::Date(_)
            | Value::Nothing
            | Value::List(_)
            | Value::Table(_)
            | Value::Broken => return Err(Wrong::kind(value, &allowed())),
        };
        let Ok(size) = text.parse::<ByteSize>() else {
            return Err(Wrong::new("this is not a size", allowed()));
        };
        let fits = range.contains(&size);
        fits.then_some(size).ok_or_else(|| Wrong::new("the size is out of range", allowed()))
    })
}

/// What `reader` takes, or `"none"` for no limit.
pub(super) fn or_none<T, F>(reader: Reader<F>) -> Reader<impl Fn(&Value) -> Read<Option<T>>>
where
    F: Fn(&Value) -> Read<T>,
{
    let form = Form::OrNone(Box::new(reader.form));
    let read = reader.read;
    Reader::new(form, move |value| {
        if matches!(value, Value::Text(text) if text == "none") {
            return Ok(None);
        }
        read(value).map(Some).map_err(|wrong| Wrong {
            allowed: format!("{}, or \"none\" for no limit", wrong.allowed),
            ..wrong
        })
    })
}

pub(super) fn cores() -> Reader<impl Fn(&Value) -> Read<CpuShare>> {
    Reader::new(Form::Cores, |value| {
        let allowed = "a number of processors from 0.01 to 1024, such as 0.5 or 2";
        let text = match value {
            Value::Text(text) | Value::Float(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Bool(_)
            | Value::Date(_)
            | Value::Nothing
            | Value::List(_)
            | Value::Table(_)
            | Value::Broken => return Err(Wrong::kind(value, allowed)),
        };
        text.parse().map_err(|_| Wrong::new("this is not a number of processors", allowed))
    })
}

/// One of these words.
pub(super) fn choice<T: Copy>(words: &[(&'static str, T)]) -> Reader<impl Fn(&Value) -> Read<T>> {
    let form = Form::Choice(words.iter().map(|(word, _)| *word).collect());
    Reader::new(form, move |value| {
        let allowed = || {
            let spelled: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            spelled.join(", ")
        };
        let Value::Text(text) = value else { return Err(Wrong::kind(value, &allowed())) };
        let chosen = words.iter().find(|(word, _)| word == text).map(|(_, chosen)| *chosen);
        chosen.ok_or_else(|| {
            let near = super::problem::nearest(text, words.iter().map(|(word, _)| *word));
            Wrong::new("there is no such choice", allowed()).meant(near.map(|n| format!("{n:?}")))
        })
    })
}

pub(super) fn ip_address() -> Reader<impl Fn(&Value) -> Read<IpAddr>> {
    const PATTERN: &str = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$|^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$";
    Reader::new(Form::text(PATTERN, 45), |value| {
        let allowed = "an IP address such as \"127.0.0.1\", \"0.0.0.0\" or \"::1\"";
        let Value::Text(text) = value else { return Err(Wrong::kind(value, allowed)) };
        text.parse().map_err(|_| Wrong::new("this is not an IP address", allowed))
    })
}

/// An absolute path of at most 1024 bytes without `..`.
pub(super) fn absolute_path() -> Reader<impl Fn(&Value) -> Read<PathBuf>> {
    Reader::new(Form::Path, |value| {
        let allowed = "an absolute path of at most 1024 bytes without \"..\"";
        let Value::Text(text) = value else { return Err(Wrong::kind(value, allowed)) };
        if !text.starts_with('/') {
            return Err(Wrong::new("the path is not absolute", allowed));
        }
        if text.len() > PATH_MAX {
            return Err(Wrong::new(format!("the path has {} bytes", text.len()), allowed));
        }
        if text.contains('\0') || text.split('/').any(|part| part == "..") {
            return Err(Wrong::new("the path has a \"..\" or a NUL byte in it", allowed));
        }
        Ok(PathBuf::from(text))
    })
}

/// A name that needs no quotes anywhere: 1 to 64 printable ASCII characters, no space.
pub(super) fn node_name() -> Reader<impl Fn(&Value) -> Read<String>> {
    Reader::new(Form::text("^[!-~]+$", 64), |value| {
        let allowed = "1 to 64 printable ASCII characters without spaces";
        let name = text(value).map_err(|_| Wrong::kind(value, allowed))?;
        let fits = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        fits.then_some(name).ok_or_else(|| Wrong::new("this cannot be a node's name", allowed))
    })
}

/// Lines a second; 0: no limit.
pub(super) fn log_rate() -> Reader<impl Fn(&Value) -> Result<u32, Wrong>> {
    whole(0..=1_000_000)
}

/// Lines at once.
pub(super) fn log_burst() -> Reader<impl Fn(&Value) -> Result<u32, Wrong>> {
    whole(1..=10_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn bounds_belong_to_the_range_and_what_is_beyond_is_refused() {
        let port = whole::<u16>(1..=65535);
        assert_eq!(port.read(&Value::Integer(65535)).unwrap(), 65535);
        for wrong in [Value::Integer(0), Value::Integer(65536), Value::Integer(i64::MIN), t("80")] {
            assert!(port.read(&wrong).is_err(), "{wrong}");
        }
        let time = duration(SOME_TIME);
        assert_eq!(time.read(&t("365days")).unwrap(), Duration::from_secs(365 * 86_400));
        for wrong in ["0s", "999us", "366days", "5", "", "-1s", "99999999999999999999s"] {
            assert!(time.read(&t(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(duration(NO_OR_SOME_TIME).read(&t("0s")).unwrap(), Duration::ZERO);
    }

    #[test]
    fn a_size_is_a_text_or_a_number_and_none_is_no_limit() {
        let limit = or_none(size(ByteSize::mib(1)..=ByteSize::gib(1)));
        assert_eq!(limit.read(&t("512MiB")).unwrap(), Some(ByteSize::mib(512)));
        assert_eq!(limit.read(&Value::Integer(1 << 20)).unwrap(), Some(ByteSize::mib(1)));
        assert_eq!(limit.read(&t("none")).unwrap(), None);
        for wrong in [t("1KiB"), t("99999999999999TiB"), Value::Integer(-1), Value::Bool(true)] {
            assert!(limit.read(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn processors_may_be_written_in_three_ways() {
        let half = cores().read(&Value::Float("0.5".to_owned())).unwrap();
        assert_eq!(half, cores().read(&t("0.5")).unwrap());
        assert_eq!(cores().read(&Value::Integer(2)).unwrap().millis(), 2000);
        assert!(cores().read(&Value::Float("inf".to_owned())).is_err());
    }

    #[test]
    fn a_path_is_absolute_and_plain() {
        assert_eq!(absolute_path().read(&t("/var/lib/x")).unwrap(), PathBuf::from("/var/lib/x"));
        for wrong in ["", "x", "./x", "/a/../b", "/a\0b"] {
            assert!(absolute_path().read(&t(wrong)).is_err(), "{wrong:?}");
        }
        assert!(absolute_path().read(&t(&"/x".repeat(600))).is_err());
    }
}
