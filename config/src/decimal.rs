//! Decimal fractions of a unit, exactly: `"1.5gb"`, `"9.8gbit"`.

/// Why a number and its unit make no whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecimalError {
    /// It is not written in digits and one point.
    Number,
    /// It is not whole.
    Fraction,
    /// It is 2^64 or more.
    TooLarge,
}

/// `text` up to its first character that is neither digit nor point, and the unit behind.
pub(crate) fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))
}

/// `number` times `unit`, which is not zero.
pub(crate) fn times(number: &str, unit: u64) -> Result<u64, DecimalError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(DecimalError::Number);
    }
    let whole: u64 = whole.parse().map_err(|_| DecimalError::TooLarge)?;
    let whole = whole.checked_mul(unit).ok_or(DecimalError::TooLarge)?;
    whole.checked_add(fraction_of(unit, fraction.trim_end_matches('0'))?).ok_or(DecimalError::TooLarge)
}

/// `0.digits` times `unit`.
fn fraction_of(unit: u64, digits: &str) -> Result<u64, DecimalError> {
    if digits.is_empty() {
        return Ok(0);
    }
    // More decimals than 128 bits hold cannot come out whole: the last digit is not zero.
    let power = u32::try_from(digits.len()).ok().and_then(|places| 10_u128.checked_pow(places));
    let power = power.ok_or(DecimalError::Fraction)?;
    let digits: u128 = digits.parse().map_err(|_| DecimalError::Fraction)?;
    // What unit and power have in common is left out, so that nothing overflows.
    let (unit, common) = (u128::from(unit), common_divisor(power, unit.into()));
    if !digits.is_multiple_of(power / common) {
        return Err(DecimalError::Fraction);
    }
    u64::try_from(digits / (power / common) * (unit / common)).map_err(|_| DecimalError::TooLarge)
}

fn common_divisor(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
