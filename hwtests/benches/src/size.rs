//! Sizes as people write them: `4KiB`, `1MiB`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

const UNITS: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a size like 4KiB, 1MiB or 512B");
        let (unit, shift) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(wrong)?;
        let number: u64 = text[..text.len() - unit.len()].trim().parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Size).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.into_iter().find(|(_, shift)| self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift));
        let (unit, shift) = whole.unwrap_or(("B", 0));
        f.pad(&format!("{} {unit}", self.0 >> shift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_written() {
        for (text, bytes, shown) in
            [("4KiB", 4096, "4 KiB"), ("1 MiB", 1 << 20, "1 MiB"), ("100B", 100, "100 B"), ("2GiB", 2 << 30, "2 GiB")]
        {
            let size: Size = text.parse().expect("a size");
            assert_eq!((size.0, size.to_string()), (bytes, shown.to_owned()));
        }
        for wrong in ["", "4", "KiB", "4KB", "-1KiB", "99999999999GiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
