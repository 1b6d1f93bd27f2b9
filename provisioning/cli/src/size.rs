//! Sizes as people write them: `4GiB`, `512MiB`, `64 KiB`, plain bytes.
//!
//! Left out on purpose: decimal units and fractions. A device's size is a multiple of its extents, and
//! `4GB` for 4,000,000,000 is more often a slip than a wish.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use thiserror::Error;

const UNITS: [(&str, u32); 5] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("PiB", 50)];

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

/// Text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum SizeError {
    #[error("a size is a number with an optional unit: 4GiB, 512MiB, 65536")]
    Form,
    #[error("the unit is one of KiB, MiB, GiB, TiB, PiB (powers of 1024)")]
    Unit,
    #[error("the size exceeds 2^63 bytes")]
    TooLarge,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = (&text[..digits], text[digits..].trim_start());
        if number.is_empty() {
            return Err(SizeError::Form);
        }
        let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
        let shift = match unit {
            "" | "B" => 0,
            unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(SizeError::Unit)?.1,
        };
        match number.checked_mul(1 << shift) {
            Some(bytes) if bytes < 1 << 63 => Ok(Self(bytes)),
            _ => Err(SizeError::TooLarge),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().rev().find(|(_, shift)| self.0 != 0 && self.0.is_multiple_of(1 << shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"4GiB\", or a number of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes).map(Size).map_err(|_| E::custom(SizeError::Form))
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                if bytes < 1 << 63 { Ok(Size(bytes)) } else { Err(E::custom(SizeError::TooLarge)) }
            }
        }

        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_as_people_write_them() {
        let table = [
            ("0", 0),
            ("65536", 65536),
            ("17B", 17),
            ("64KiB", 64 << 10),
            ("512MiB", 512 << 20),
            (" 4 GiB ", 4 << 30),
            ("4gib", 4 << 30),
            ("3TiB", 3 << 40),
            ("8191PiB", 8191 << 50),
        ];
        for (text, bytes) in table {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn other_text_is_refused_with_the_rule() {
        let table = [
            ("", SizeError::Form),
            ("GiB", SizeError::Form),
            ("-4GiB", SizeError::Form),
            ("4GB", SizeError::Unit),
            ("4.5GiB", SizeError::Unit),
            ("4Gi B", SizeError::Unit),
            ("4é", SizeError::Unit),
            ("8192PiB", SizeError::TooLarge),
            ("99999999999999999999", SizeError::TooLarge),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<Size>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_size_survives_its_own_text() {
        for bytes in [0, 1, 1000, 1024, 1536, 4 << 30, (4 << 30) + 4096, 5 << 50] {
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
        assert_eq!(Size(4 << 30).to_string(), "4GiB");
        assert_eq!(Size(1536).to_string(), "1536");
    }
}
