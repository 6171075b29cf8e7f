//! Kubernetes quantities as numbers.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::InvalidField;

/// A quantity as a whole number, for example of bytes; a fraction is rounded up, as Kubernetes does.
///
/// # Errors
/// If the text is not a quantity, is negative or does not fit.
pub fn whole(quantity: &Quantity, field: &str) -> Result<u64, InvalidField> {
    scaled(&quantity.0, 1).ok_or_else(|| invalid(quantity, field))
}

/// A quantity in thousandths, for example CPU in millicores; a smaller fraction is rounded up.
///
/// # Errors
/// If the text is not a quantity, is negative or does not fit.
pub fn milli(quantity: &Quantity, field: &str) -> Result<u64, InvalidField> {
    scaled(&quantity.0, 1000).ok_or_else(|| invalid(quantity, field))
}

fn invalid(quantity: &Quantity, field: &str) -> InvalidField {
    InvalidField::new(
        field,
        format!(
            "{:?} is not a quantity of this field; write a number with a suffix, such as 10Gi or 500m",
            quantity.0
        ),
    )
}

/// `text` times `multiplier`, rounded up.
fn scaled(text: &str, multiplier: i128) -> Option<u64> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty())
        || whole.len() > 19
        || fraction.len() > 12
        || fraction.contains('.')
    {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (numerator, denominator) = factor(suffix)?;
    let numerator = digits.checked_mul(numerator)?.checked_mul(multiplier)?;
    let denominator = denominator.checked_mul(10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    u64::try_from(numerator.checked_add(denominator - 1)? / denominator).ok()
}

/// What a suffix multiplies by, as a fraction.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    const K: i128 = 1000;
    let binary = |power: u32| Some((1 << (10 * power), 1));
    let decimal = |power: u32| Some((K.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, K.pow(3))),
        "u" => Some((1, K.pow(2))),
        "m" => Some((1, K)),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    #[test]
    fn every_suffix_is_understood() {
        for (text, bytes) in [
            ("0", 0),
            ("4Mi", 4 << 20),
            ("10Gi", 10 << 30),
            ("1.5Gi", 3 << 29),
            ("5k", 5_000),
            ("1e3", 1_000),
            ("12E-1", 2),
            ("100m", 1),
            ("+7", 7),
            (".5Ki", 512),
            ("1.", 1),
            ("8E", 8_000_000_000_000_000_000),
        ] {
            assert_eq!(whole(&of(text), "x"), Ok(bytes), "{text}");
        }
        assert_eq!(milli(&of("200m"), "x"), Ok(200));
        assert_eq!(milli(&of("2"), "x"), Ok(2_000));
        assert_eq!(milli(&of("1.5"), "x"), Ok(1_500));
    }

    #[test]
    fn what_is_no_quantity_is_refused_by_the_name_of_its_field() {
        for text in [
            "", ".", "-1", "ten", "1..2", "10 Gi", "10GB", "1e", "99Ei", "1e99", "é",
        ] {
            let error = whole(&of(text), "spec.storage.size").expect_err(text);
            assert!(error.to_string().starts_with("spec.storage.size: "), "{error}");
        }
    }
}
