//! How one value is spelled: parsing and writing of switches, numbers with units, class sets and choices.
//!
//! Bytes in, bytes out, no allocation and no formatting machinery: this runs inside the first `malloc` of a process.
//! **Invariants.** What [`Value::show`] writes, [`Value::parse`] reads back as the same value.

use core::fmt::{self, Write};

/// What the number of a knob counts; decides which spellings it accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Things: `64`.
    Count,
    /// Bytes: `4096`, `64K`, `64KiB`, `1M`, `2G`; all suffixes are powers of 1024.
    Bytes,
    /// Milliseconds: `500`, `500ms`, `2s`.
    Milliseconds,
    /// Thousandths: `1600` or `1.6`.
    Permille,
}

/// Most sizes of a set.
pub const SIZES: usize = 8;

/// Type of a variable's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `0`, `1`, `on`, `off`, `true`, `false`, `yes`, `no`.
    Switch,
    /// One number within bounds.
    Number {
        /// What it counts.
        unit: Unit,
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
        /// 0 is accepted although it is below `min`, and turns the mechanism off.
        zero: bool,
        /// The word `never` (the largest value of the type) is accepted although it is above `max`.
        never: bool,
    },
    /// Five numbers within bounds, separated by commas; a single number stands for five equal ones.
    Five {
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// A set of size classes: `0-3,7`, `0x8f`, or `none`.
    Classes,
    /// A set of up to [`SIZES`] sizes within bounds, in bytes: `4360,9000`, or `none`.
    Sizes {
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// One of a few names; case does not matter, and `_` equals `-`.
    Choice(&'static [&'static str]),
    /// Any text, a path for example.
    Text,
}

/// Why a value was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueError {
    /// It does not read as the variable's [`Kind`].
    Malformed,
    /// It is a number outside the bounds.
    OutOfRange,
}

/// A plain number of things.
pub(crate) const fn count(min: u64, max: u64) -> Kind {
    Kind::Number { unit: Unit::Count, min, max, zero: false, never: false }
}

/// A number of bytes.
pub(crate) const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Number { unit: Unit::Bytes, min, max, zero: false, never: false }
}

/// A duration.
pub(crate) const fn milliseconds(min: u64, max: u64) -> Kind {
    Kind::Number { unit: Unit::Milliseconds, min, max, zero: false, never: false }
}

/// A ratio.
pub(crate) const fn permille(min: u64, max: u64) -> Kind {
    Kind::Number { unit: Unit::Permille, min, max, zero: false, never: false }
}

impl Kind {
    /// The same, and 0 is accepted.
    pub(crate) const fn or_zero(self) -> Self {
        match self {
            Self::Number { unit, min, max, never, .. } => Self::Number { unit, min, max, zero: true, never },
            other => other,
        }
    }

    /// The same, and `never` is accepted.
    pub(crate) const fn or_never(self) -> Self {
        match self {
            Self::Number { unit, min, max, zero, .. } => Self::Number { unit, min, max, zero, never: true },
            other => other,
        }
    }

    /// Writes what this kind accepts, for the docs table and for complaints.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_accepted(&self, out: &mut dyn Write) -> fmt::Result {
        match *self {
            Self::Switch => out.write_str("on or off"),
            Self::Text => out.write_str("text"),
            Self::Classes => out.write_str("size classes such as 0-3,7 or 0x8f"),
            Self::Choice(names) => {
                for (position, name) in names.iter().enumerate() {
                    out.write_str(if position == 0 { "" } else { ", " })?;
                    out.write_str(name)?;
                }
                Ok(())
            }
            Self::Sizes { min, max } => {
                out.write_str("up to eight sizes such as 4360,9000, each ")?;
                write_decimal(out, min)?;
                out.write_str(" to ")?;
                write_decimal(out, max)?;
                out.write_str(", or none")
            }
            Self::Five { min, max } => {
                out.write_str("five numbers, or one for all, each ")?;
                write_decimal(out, min)?;
                out.write_str(" to ")?;
                write_decimal(out, max)
            }
            Self::Number { unit, min, max, zero, never } => {
                out.write_str(match unit {
                    Unit::Count => "number, ",
                    Unit::Bytes => "bytes, ",
                    Unit::Milliseconds => "milliseconds, ",
                    Unit::Permille => "permille, ",
                })?;
                write_number(out, unit, min)?;
                out.write_str(" to ")?;
                write_number(out, unit, max)?;
                out.write_str(if zero && min > 0 { ", or 0" } else { "" })?;
                out.write_str(if never { ", or never" } else { "" })
            }
        }
    }

    /// Whether a number is within this kind's bounds.
    fn holds(&self, value: u64, never_value: u64) -> bool {
        match *self {
            Self::Number { min, max, zero, never, .. } => {
                (min <= value && value <= max) || (zero && value == 0) || (never && value == never_value)
            }
            Self::Five { min, max } | Self::Sizes { min, max } => min <= value && value <= max,
            Self::Switch | Self::Classes | Self::Choice(_) | Self::Text => false,
        }
    }
}

/// A type that a knob can have.
pub(crate) trait Value: Sized {
    /// Reads `text` as a value of this kind and within its bounds.
    fn parse(text: &[u8], kind: &Kind) -> Result<Self, ValueError>;
    /// Whether the value is within the bounds of its kind.
    fn is_within(&self, kind: &Kind) -> bool;
    /// Writes the value so that `parse` reads the same one.
    fn show(&self, kind: &Kind, out: &mut dyn Write) -> fmt::Result;
}

macro_rules! number_value {
    ($type:ty) => {
        impl Value for $type {
            fn parse(text: &[u8], kind: &Kind) -> Result<Self, ValueError> {
                let Kind::Number { unit, never, .. } = *kind else { return Err(ValueError::Malformed) };
                if never && text.eq_ignore_ascii_case(b"never") {
                    return Ok(Self::MAX);
                }
                let value = Self::try_from(parse_number(text, unit)?).map_err(|_| ValueError::OutOfRange)?;
                if value.is_within(kind) { Ok(value) } else { Err(ValueError::OutOfRange) }
            }

            fn is_within(&self, kind: &Kind) -> bool {
                kind.holds(*self as u64, Self::MAX as u64)
            }

            fn show(&self, kind: &Kind, out: &mut dyn Write) -> fmt::Result {
                match *kind {
                    Kind::Number { never: true, .. } if *self == Self::MAX => out.write_str("never"),
                    Kind::Number { unit, .. } => write_number(out, unit, *self as u64),
                    _ => write_decimal(out, *self as u64),
                }
            }
        }
    };
}

number_value!(u32);
number_value!(usize);

impl Value for bool {
    fn parse(text: &[u8], _kind: &Kind) -> Result<Self, ValueError> {
        let is = |names: [&[u8]; 4]| names.iter().any(|name| text.eq_ignore_ascii_case(name));
        if is([b"1", b"on", b"true", b"yes"]) {
            Ok(true)
        } else if is([b"0", b"off", b"false", b"no"]) {
            Ok(false)
        } else {
            Err(ValueError::Malformed)
        }
    }

    fn is_within(&self, _kind: &Kind) -> bool {
        true
    }

    fn show(&self, _kind: &Kind, out: &mut dyn Write) -> fmt::Result {
        out.write_str(if *self { "1" } else { "0" })
    }
}

impl Value for [u32; 5] {
    fn parse(text: &[u8], kind: &Kind) -> Result<Self, ValueError> {
        let mut parts = text.split(|&byte| byte == b',');
        let mut next = || -> Result<Option<u32>, ValueError> {
            let Some(part) = parts.next() else { return Ok(None) };
            let value = parse_number(part.trim_ascii(), Unit::Count)?;
            u32::try_from(value).map(Some).map_err(|_| ValueError::OutOfRange)
        };
        let first = next()?.ok_or(ValueError::Malformed)?;
        let mut values = [first; 5];
        if let Some(second) = next()? {
            let [_, rest @ ..] = &mut values;
            let mut following = Some(second);
            for slot in rest {
                *slot = following.ok_or(ValueError::Malformed)?;
                following = next()?;
            }
            if following.is_some() {
                return Err(ValueError::Malformed);
            }
        }
        if values.is_within(kind) { Ok(values) } else { Err(ValueError::OutOfRange) }
    }

    fn is_within(&self, kind: &Kind) -> bool {
        self.iter().all(|value| kind.holds(u64::from(*value), u64::MAX))
    }

    fn show(&self, _kind: &Kind, out: &mut dyn Write) -> fmt::Result {
        for (position, value) in self.iter().enumerate() {
            out.write_str(if position == 0 { "" } else { "," })?;
            write_decimal(out, u64::from(*value))?;
        }
        Ok(())
    }
}

/// A set of sizes: smallest first, zeros behind the last.
impl Value for [u32; SIZES] {
    fn parse(text: &[u8], kind: &Kind) -> Result<Self, ValueError> {
        let mut set = [0; SIZES];
        if text.eq_ignore_ascii_case(b"none") {
            return Ok(set);
        }
        for part in text.split(|&byte| byte == b',') {
            let value = parse_number(part.trim_ascii(), Unit::Bytes)?;
            let mut moved = u32::try_from(value).map_err(|_| ValueError::OutOfRange)?;
            if moved == 0 {
                return Err(ValueError::OutOfRange);
            }
            for slot in &mut set {
                if *slot == moved {
                    moved = 0;
                } else if *slot == 0 || *slot > moved {
                    core::mem::swap(slot, &mut moved);
                }
                if moved == 0 {
                    break;
                }
            }
            if moved != 0 {
                return Err(ValueError::OutOfRange);
            }
        }
        if set.is_within(kind) { Ok(set) } else { Err(ValueError::OutOfRange) }
    }

    fn is_within(&self, kind: &Kind) -> bool {
        let rises = |pair: &[u32]| matches!(pair, [one, next] if *next == 0 || (*one != 0 && one < next));
        let is_size = |value: &u32| *value == 0 || kind.holds(u64::from(*value), u64::MAX);
        self.windows(2).all(rises) && self.iter().all(is_size)
    }

    fn show(&self, _kind: &Kind, out: &mut dyn Write) -> fmt::Result {
        let mut sizes = self.iter().filter(|value| **value != 0);
        let Some(first) = sizes.next() else { return out.write_str("none") };
        write_decimal(out, u64::from(*first))?;
        sizes.try_for_each(|value| {
            out.write_str(",")?;
            write_decimal(out, u64::from(*value))
        })
    }
}

/// A set of size classes, one bit each.
impl Value for u128 {
    fn parse(text: &[u8], _kind: &Kind) -> Result<Self, ValueError> {
        if text.eq_ignore_ascii_case(b"none") {
            return Ok(0);
        }
        if let [b'0', b'x' | b'X', digits @ ..] = text {
            return parse_hex(digits);
        }
        let mut set = 0;
        for part in text.split(|&byte| byte == b',') {
            let mut ends = part.trim_ascii().splitn(2, |&byte| byte == b'-');
            let first = parse_class(ends.next().unwrap_or_default())?;
            let last = ends.next().map_or(Ok(first), parse_class)?;
            if last < first {
                return Err(ValueError::Malformed);
            }
            set |= (Self::MAX >> (127 - (last - first))) << first;
        }
        Ok(set)
    }

    fn is_within(&self, _kind: &Kind) -> bool {
        true
    }

    fn show(&self, _kind: &Kind, out: &mut dyn Write) -> fmt::Result {
        let mut is_first = true;
        let mut rest = *self;
        while rest != 0 {
            let first = rest.trailing_zeros();
            let length = (rest >> first).trailing_ones();
            out.write_str(if is_first { "" } else { "," })?;
            is_first = false;
            write_decimal(out, u64::from(first))?;
            if length > 1 {
                out.write_str("-")?;
                write_decimal(out, u64::from(first + length - 1))?;
            }
            rest &= !((Self::MAX >> (128 - length)) << first);
        }
        if is_first { out.write_str("none") } else { Ok(()) }
    }
}

fn parse_class(text: &[u8]) -> Result<u32, ValueError> {
    match u32::try_from(parse_digits(text)?) {
        Ok(class) if class < u128::BITS => Ok(class),
        _ => Err(ValueError::OutOfRange),
    }
}

fn parse_hex(digits: &[u8]) -> Result<u128, ValueError> {
    let mut value: u128 = 0;
    for &byte in digits {
        let digit = char::from(byte).to_digit(16).ok_or(ValueError::Malformed)?;
        if value >> 124 != 0 {
            return Err(ValueError::OutOfRange);
        }
        value = value << 4 | u128::from(digit);
    }
    if digits.is_empty() { Err(ValueError::Malformed) } else { Ok(value) }
}

fn parse_digits(text: &[u8]) -> Result<u64, ValueError> {
    let mut value: u64 = 0;
    for &byte in text {
        let digit = char::from(byte).to_digit(10).ok_or(ValueError::Malformed)?;
        let ten_times = value.checked_mul(10).ok_or(ValueError::OutOfRange)?;
        value = ten_times.checked_add(u64::from(digit)).ok_or(ValueError::OutOfRange)?;
    }
    if text.is_empty() { Err(ValueError::Malformed) } else { Ok(value) }
}

fn parse_number(text: &[u8], unit: Unit) -> Result<u64, ValueError> {
    let digit_count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, suffix) = text.split_at_checked(digit_count).ok_or(ValueError::Malformed)?;
    let factor = match unit {
        Unit::Permille => {
            if let [b'.', fraction @ ..] = suffix {
                return parse_ratio(digits, fraction);
            }
            if suffix.is_empty() { 1 } else { return Err(ValueError::Malformed) }
        }
        Unit::Count if suffix.is_empty() => 1,
        Unit::Count => return Err(ValueError::Malformed),
        Unit::Bytes => byte_factor(suffix.trim_ascii_start())?,
        Unit::Milliseconds => millisecond_factor(suffix.trim_ascii_start())?,
    };
    parse_digits(digits)?.checked_mul(factor).ok_or(ValueError::OutOfRange)
}

/// `1.6` as 1600: up to three digits behind the point.
fn parse_ratio(whole: &[u8], fraction: &[u8]) -> Result<u64, ValueError> {
    let scale = match fraction.len() {
        1 => 100,
        2 => 10,
        3 => 1,
        _ => return Err(ValueError::Malformed),
    };
    let thousands = parse_digits(whole)?.checked_mul(1000).ok_or(ValueError::OutOfRange)?;
    thousands.checked_add(parse_digits(fraction)? * scale).ok_or(ValueError::OutOfRange)
}

fn millisecond_factor(suffix: &[u8]) -> Result<u64, ValueError> {
    match suffix {
        [] | [b'm' | b'M', b's' | b'S'] => Ok(1),
        [b's' | b'S'] => Ok(1000),
        _ => Err(ValueError::Malformed),
    }
}

fn byte_factor(suffix: &[u8]) -> Result<u64, ValueError> {
    let (letter, tail) = match suffix {
        [] => return Ok(1),
        [letter, tail @ ..] => (letter.to_ascii_uppercase(), tail),
    };
    let is_plain = tail.is_empty() || tail.eq_ignore_ascii_case(b"b") || tail.eq_ignore_ascii_case(b"ib");
    match letter {
        b'B' if tail.is_empty() => Ok(1),
        b'K' if is_plain => Ok(1 << 10),
        b'M' if is_plain => Ok(1 << 20),
        b'G' if is_plain => Ok(1 << 30),
        b'T' if is_plain => Ok(1 << 40),
        _ => Err(ValueError::Malformed),
    }
}

/// Writes bytes with the largest suffix that divides them, everything else in plain decimal.
fn write_number(out: &mut dyn Write, unit: Unit, value: u64) -> fmt::Result {
    if unit == Unit::Bytes && value != 0 {
        for (shift, suffix) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            if value.trailing_zeros() >= shift {
                write_decimal(out, value >> shift)?;
                return out.write_str(suffix);
            }
        }
    }
    write_decimal(out, value)
}

/// Writes a number without the formatting machinery.
pub(crate) fn write_decimal(out: &mut dyn Write, value: u64) -> fmt::Result {
    let mut digits = [b'0'; 20];
    let mut rest = value;
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (rest % 10) as u8;
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    let text = digits.get(digits.len() - used..).unwrap_or_default();
    out.write_str(core::str::from_utf8(text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Kind = bytes(0, u64::MAX);

    #[test]
    fn sizes_take_every_usual_spelling() {
        for (text, value) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("64K", 65_536),
            ("64k", 65_536),
            ("64KB", 65_536),
            ("64KiB", 65_536),
            ("64 KiB", 65_536),
            ("1M", 1 << 20),
            ("2G", 2 << 30),
            ("3TiB", 3 << 40),
        ] {
            assert_eq!(usize::parse(text.as_bytes(), &SIZE), Ok(value), "{text}");
        }
        for text in ["", "K", "-1", "1.5G", "64KK", "64Bi", "0x10", "1 2", "sixty"] {
            assert_eq!(usize::parse(text.as_bytes(), &SIZE), Err(ValueError::Malformed), "{text}");
        }
        for text in ["18446744073709551616", "16777216T"] {
            assert_eq!(usize::parse(text.as_bytes(), &SIZE), Err(ValueError::OutOfRange), "{text}");
        }
    }

    #[test]
    fn bounds_hold_for_both_ends_and_the_two_words_outside_them() {
        let kind = milliseconds(10, 1000).or_zero().or_never();
        assert_eq!(u32::parse(b"10ms", &kind), Ok(10));
        assert_eq!(u32::parse(b"1s", &kind), Ok(1000));
        assert_eq!(u32::parse(b"0", &kind), Ok(0));
        assert_eq!(u32::parse(b"Never", &kind), Ok(u32::MAX));
        assert_eq!(u32::parse(b"9", &kind), Err(ValueError::OutOfRange));
        assert_eq!(u32::parse(b"1001", &kind), Err(ValueError::OutOfRange));
        assert_eq!(u32::parse(b"never", &milliseconds(10, 1000)), Err(ValueError::Malformed));
        assert_eq!(u32::parse(b"0", &milliseconds(10, 1000)), Err(ValueError::OutOfRange));
    }

    #[test]
    fn a_ratio_may_be_written_with_a_point() {
        let kind = permille(1000, 4000);
        assert_eq!(u32::parse(b"1600", &kind), Ok(1600));
        assert_eq!(u32::parse(b"1.6", &kind), Ok(1600));
        assert_eq!(u32::parse(b"1.625", &kind), Ok(1625));
        assert_eq!(u32::parse(b"2", &kind), Err(ValueError::OutOfRange));
        assert_eq!(u32::parse(b"1.6250", &kind), Err(ValueError::Malformed));
        assert_eq!(u32::parse(b"1.", &kind), Err(ValueError::Malformed));
    }

    #[test]
    fn switches_know_four_pairs_of_words() {
        for text in ["1", "on", "TRUE", "Yes"] {
            assert_eq!(bool::parse(text.as_bytes(), &Kind::Switch), Ok(true));
        }
        for text in ["0", "OFF", "false", "no"] {
            assert_eq!(bool::parse(text.as_bytes(), &Kind::Switch), Ok(false));
        }
        assert_eq!(bool::parse(b"2", &Kind::Switch), Err(ValueError::Malformed));
    }

    #[test]
    fn five_numbers_or_one_for_all() {
        let kind = Kind::Five { min: 0, max: 100 };
        assert_eq!(<[u32; 5]>::parse(b"1, 2,3,4,5", &kind), Ok([1, 2, 3, 4, 5]));
        assert_eq!(<[u32; 5]>::parse(b"7", &kind), Ok([7; 5]));
        for text in ["1,2", "1,2,3,4", "1,2,3,4,5,6", "", ",", "1,,3,4,5"] {
            assert_eq!(<[u32; 5]>::parse(text.as_bytes(), &kind), Err(ValueError::Malformed), "{text}");
        }
        assert_eq!(<[u32; 5]>::parse(b"1,2,3,4,101", &kind), Err(ValueError::OutOfRange));
    }

    #[test]
    fn a_set_of_sizes_is_kept_in_order_and_without_doubles() {
        let kind = Kind::Sizes { min: 1025, max: 32_768 };
        let parse = |text: &str| <[u32; SIZES]>::parse(text.as_bytes(), &kind);
        assert_eq!(parse("9000, 4360,9000,2K"), Ok([2048, 4360, 9000, 0, 0, 0, 0, 0]));
        assert_eq!(parse("NONE"), Ok([0; SIZES]));
        assert_eq!(parse("1100,1200,1300,1400,1500,1600,1700,1800").unwrap()[7], 1800);
        for text in ["1024", "0", "32769", "8G", "1100,1200,1300,1400,1500,1600,1700,1800,1900"] {
            assert_eq!(parse(text), Err(ValueError::OutOfRange), "{text}");
        }
        for text in ["", ",", "4360,", "4360;9000", "page"] {
            assert_eq!(parse(text), Err(ValueError::Malformed), "{text}");
        }
        for set in [[4360, 2000, 0, 0, 0, 0, 0, 0], [0, 2000, 0, 0, 0, 0, 0, 0], [2000, 2000, 0, 0, 0, 0, 0, 0]] {
            assert!(!set.is_within(&kind), "{set:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_set_of_sizes_is_read_as_it_was_written(sizes in proptest::collection::btree_set(1025_u32..=32_768, 0..=SIZES)) {
            let (kind, mut set) = (Kind::Sizes { min: 1025, max: 32_768 }, [0; SIZES]);
            sizes.iter().zip(&mut set).for_each(|(size, slot)| *slot = *size);
            proptest::prop_assert!(set.is_within(&kind));
            let mut text = String::new();
            set.show(&kind, &mut text).unwrap();
            proptest::prop_assert_eq!(<[u32; SIZES]>::parse(text.as_bytes(), &kind), Ok(set));
        }
    }

    #[test]
    fn class_sets_take_ranges_and_masks() {
        assert_eq!(u128::parse(b"0-3,7", &Kind::Classes), Ok(0x8f));
        assert_eq!(u128::parse(b"0x8F", &Kind::Classes), Ok(0x8f));
        assert_eq!(u128::parse(b"none", &Kind::Classes), Ok(0));
        assert_eq!(u128::parse(b"0-127", &Kind::Classes), Ok(u128::MAX));
        assert_eq!(u128::parse(b"127", &Kind::Classes), Ok(1 << 127));
        assert_eq!(u128::parse(b"128", &Kind::Classes), Err(ValueError::OutOfRange));
        for text in ["", "0x", "3-1", "1-", "-", "a", "1,,2"] {
            assert_eq!(u128::parse(text.as_bytes(), &Kind::Classes), Err(ValueError::Malformed), "{text}");
        }
        assert_eq!(
            u128::parse(&[b"0x1".as_slice(), &[b'0'; 32]].concat(), &Kind::Classes),
            Err(ValueError::OutOfRange)
        );
    }

    #[test]
    fn class_sets_are_written_as_a_user_would() {
        for (set, text) in [(0, "none"), (0x8f, "0-3,7"), (1 << 127 | 1, "0,127"), (u128::MAX, "0-127")] {
            let mut shown = String::new();
            set.show(&Kind::Classes, &mut shown).unwrap();
            assert_eq!(shown, text);
        }
    }

    #[test]
    fn decimals_are_written_in_full() {
        for value in [0, 9, 10, u64::MAX] {
            let mut text = String::new();
            write_decimal(&mut text, value).unwrap();
            assert_eq!(text, value.to_string());
        }
    }
}
