//! Aligned tables: columns as wide as their longest cell, numbers to the right.

/// One column.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) right: bool,
}

/// A column of text.
pub(crate) const fn text(name: &'static str) -> Column {
    Column { name, right: false }
}

/// A column of numbers.
pub(crate) const fn number(name: &'static str) -> Column {
    Column { name, right: true }
}

/// Head and rows as lines without trailing blanks.
pub(crate) fn render<const N: usize>(columns: &[Column; N], rows: &[[String; N]]) -> String {
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.chain([columns[at].name.len()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let cells = cells.iter().zip(columns).zip(widths).map(|((cell, column), width)| {
            let pad = " ".repeat(width - cell.chars().count().min(width));
            if column.right { format!("{pad}{cell}") } else { format!("{cell}{pad}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = line(std::array::from_fn(|at| columns[at].name));
    let body = rows.iter().map(|row| line(std::array::from_fn(|at| row[at].as_str())));
    std::iter::once(head).chain(body).collect::<Vec<_>>().join("\n")
}

/// Bytes for people: three digits and a binary unit.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ if value < 100.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// A stretch of time for people.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let table = render(
            &[text("NAME"), number("SIZE"), text("NOTE")],
            &[["a".into(), "1".into(), String::new()], ["longer".into(), "1000".into(), "x".into()]],
        );
        assert_eq!(table, "NAME    SIZE  NOTE\na          1\nlonger  1000  x");
    }

    #[test]
    fn sizes_keep_three_digits() {
        let shown = [0, 999, 1000, 1 << 20, 1536 << 20, 100 << 30, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "0.98 KiB", "1.00 MiB", "1.50 GiB", "100 GiB", "16384 PiB"]);
    }

    #[test]
    fn spans_are_short() {
        assert_eq!([5, 65, 7200, 200_000].map(span), ["5 s", "1 min", "2 h", "2 d"]);
    }
}
