//! What a YAML scalar without quotes means, by the core schema of YAML 1.2 (section 10.3.2): `no`
//! and `on` are texts. Knows no key and no place.

use super::tree::Value;

/// The number does not fit 64 bits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// The value of a scalar that is not in quotes.
pub(super) fn plain(text: &str) -> Result<Value, TooLarge> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Nothing),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    if let Some((digits, radix)) = integer(text) {
        return i64::from_str_radix(digits, radix).map(Value::Integer).map_err(|_| TooLarge);
    }
    let text = text.to_owned();
    Ok(if is_float(&text) { Value::Float(text) } else { Value::Text(text) })
}

/// The digits of a whole number, with its sign, and their radix.
fn integer(text: &str) -> Option<(&str, u32)> {
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let fits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
            return fits.then_some((digits, radix));
        }
    }
    let unsigned = without_sign(text);
    (!unsigned.is_empty() && is_digits(unsigned)).then_some((text, 10))
}

fn is_float(text: &str) -> bool {
    let unsigned = without_sign(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = without_sign(exponent);
    is_digits(whole)
        && is_digits(fraction)
        && is_digits(exponent)
        && !(whole.is_empty() && fraction.is_empty())
        && !exponent.is_empty()
}

fn without_sign(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_mean_what_the_core_schema_says() {
        for text in ["", "~", "null", "NULL"] {
            assert_eq!(plain(text), Ok(Value::Nothing), "{text:?}");
        }
        assert_eq!(
            (plain("True"), plain("FALSE")),
            (Ok(Value::Bool(true)), Ok(Value::Bool(false)))
        );
        let integers = [("0", 0), ("-12", -12), ("+3", 3), ("010", 10), ("0o10", 8), ("0xfF", 255)];
        for (text, number) in integers {
            assert_eq!(plain(text), Ok(Value::Integer(number)), "{text}");
        }
        for text in ["0.5", ".5", "1.", "1e3", "-1.5E-2", ".inf", "-.INF", ".nan"] {
            assert_eq!(plain(text), Ok(Value::Float(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_number_or_a_truth_value_is_a_text() {
        for text in [
            "yes",
            "No",
            "on",
            "off",
            "y",
            "tRUE",
            "nULL",
            ".",
            "-",
            "+",
            "e3",
            "1e",
            "0x",
            "0o8",
            "0x-1",
            "-0x1",
            "1_000",
            "5s",
            "1.2.3",
            "127.0.0.1",
            "12:30",
            "2026-01-02",
            "+.nan",
            ".e1",
            "--1",
        ] {
            assert_eq!(plain(text), Ok(Value::Text(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_whole_number_beyond_64_bits_is_not_rounded() {
        assert_eq!(plain("9223372036854775807"), Ok(Value::Integer(i64::MAX)));
        assert_eq!(plain("-9223372036854775808"), Ok(Value::Integer(i64::MIN)));
        assert_eq!(plain("9223372036854775808"), Err(TooLarge));
        assert_eq!(plain("0xffffffffffffffffff"), Err(TooLarge));
    }
}
