//! Rounds and what is made of them: one warm-up, then medians of the rest, each round's ratio taken within the round.

use serde::{Deserialize, Serialize};

use crate::table::{aligned, figure};

/// What a ratio, or where there is none a value, should reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
    /// A figure beside the others; nothing is promised of it.
    None,
}

impl Target {
    fn is_met(self, reached: f64) -> bool {
        match self {
            Self::AtLeast(bound) => reached >= bound,
            Self::AtMost(bound) => reached <= bound,
            Self::None => true,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
            Self::None => "-".to_owned(),
        }
    }
}

/// One figure of every round but the warm-up; `None` where fio had none.
pub type Series = Vec<Option<f64>>;

/// What a row is held against.
#[derive(Debug, Clone)]
pub struct Beside {
    /// What it is.
    pub name: String,
    /// Its figures, round by round.
    pub values: Series,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Which measurement; what `--only` takes.
    pub group: String,
    /// What was measured.
    pub name: String,
    /// Of the values.
    pub unit: String,
    /// Round by round.
    pub values: Series,
    /// Median of the values.
    pub value: Option<f64>,
    /// What it is held against.
    pub beside: Option<String>,
    /// Median of that.
    pub beside_value: Option<f64>,
    /// Median of the rounds' ratios.
    pub ratio: Option<f64>,
    /// The least and the greatest of them (of the values where there is nothing beside).
    pub spread: Option<(f64, f64)>,
    /// What the ratio, or the value where there is nothing beside, should reach.
    pub target: Target,
    /// `met`, `missed`, `no fio`, or `-` without a target.
    pub verdict: String,
}

impl Row {
    /// A value that is held against another of the same round.
    #[must_use]
    pub fn ratio(
        group: &str,
        name: impl Into<String>,
        unit: &str,
        values: &[Option<f64>],
        beside: Beside,
        target: Target,
    ) -> Self {
        let pairs = values.iter().zip(&beside.values);
        let ratios: Series = pairs.map(|(value, beside)| Some((*value)? / (*beside)?)).collect();
        let ratio = median(&ratios);
        let row = Self::of(group, name.into(), unit, values, &ratios, target, ratio);
        Self { beside_value: median(&beside.values), beside: Some(beside.name), ratio, ..row }
    }

    /// A value that is held against the target itself.
    #[must_use]
    pub fn plain(group: &str, name: impl Into<String>, unit: &str, values: &[Option<f64>], target: Target) -> Self {
        Self::of(group, name.into(), unit, values, values, target, median(values))
    }

    fn of(
        group: &str,
        name: String,
        unit: &str,
        values: &[Option<f64>],
        judged: &[Option<f64>],
        target: Target,
        reached: Option<f64>,
    ) -> Self {
        let verdict = match (target, reached) {
            (Target::None, _) => "-",
            (_, None) => "no fio",
            (target, Some(reached)) if target.is_met(reached) => "met",
            _ => "missed",
        };
        let sorted = ascending(judged);
        let spread = sorted.first().copied().zip(sorted.last().copied());
        let (value, values) = (median(values), values.to_vec());
        Self {
            group: group.to_owned(),
            name,
            unit: unit.to_owned(),
            values,
            value,
            beside: None,
            beside_value: None,
            ratio: None,
            spread,
            target,
            verdict: verdict.to_owned(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let spread = self.spread.map(|(least, most)| format!("{}-{}", short(Some(least)), short(Some(most))));
        vec![
            self.name.clone(),
            short(self.value),
            self.unit.clone(),
            self.beside.clone().unwrap_or_else(|| "-".to_owned()),
            short(self.beside_value),
            figure(self.ratio, 2),
            spread.unwrap_or_else(|| "-".to_owned()),
            self.target.text(),
            self.verdict.clone(),
        ]
    }
}

/// The rows as a table.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
    aligned(&["", "median", "unit", "beside", "median", "ratio", "spread", "target", "verdict"], &cells)
}

/// Three or four digits, whatever the size.
fn short(value: Option<f64>) -> String {
    let digits = match value {
        Some(value) if value.abs() >= 100.0 => 0,
        Some(value) if value.abs() >= 10.0 => 1,
        Some(value) if value.abs() >= 0.1 => 2,
        _ => 4,
    };
    figure(value, digits)
}

fn ascending(values: &[Option<f64>]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().flatten().collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The median of what is there.
#[must_use]
pub fn median(values: &[Option<f64>]) -> Option<f64> {
    let sorted = ascending(values);
    let (upper, lower) = (sorted.get(sorted.len() / 2)?, sorted.get(sorted.len().saturating_sub(1) / 2)?);
    Some(f64::midpoint(*upper, *lower))
}

/// Runs `round` once for nothing and then `count` times; the outcomes, in order. The number given is 0 for the
/// warm-up.
///
/// # Errors
/// The first failure.
pub fn rounds<T>(count: u32, mut round: impl FnMut(u32) -> Result<T, String>) -> Result<Vec<T>, String> {
    round(0)?;
    (1..=count).map(round).collect()
}

/// One figure of every round.
pub fn series<T>(rounds: &[T], of: impl Fn(&T) -> Option<f64>) -> Series {
    rounds.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_their_round() {
        let beside = Beside { name: "fio".to_owned(), values: vec![Some(1.0), Some(10.0), Some(4.0)] };
        let values = [Some(1.0), Some(5.0), Some(3.0)];
        let row = Row::ratio("g", "n", "u", &values, beside, Target::AtLeast(0.8));
        assert_eq!((row.value, row.beside_value, row.ratio), (Some(3.0), Some(4.0), Some(0.75)));
        assert_eq!((row.spread, row.verdict.as_str()), (Some((0.5, 1.0)), "missed"));
    }

    #[test]
    fn without_fio_there_is_no_verdict() {
        let beside = Beside { name: "fio".to_owned(), values: vec![None, None] };
        let row = Row::ratio("g", "n", "u", &[Some(1.0), Some(2.0)], beside, Target::AtLeast(0.9));
        assert_eq!((row.ratio, row.spread, row.verdict.as_str()), (None, None, "no fio"));
        assert!(table(&[row]).contains("1.50"), "the store's own figure stays");
    }

    #[test]
    fn the_warm_up_is_left_out() {
        assert_eq!(rounds(3, Ok), Ok(vec![1, 2, 3]));
        assert_eq!(rounds(3, |round| if round == 2 { Err("no".to_owned()) } else { Ok(()) }), Err("no".to_owned()));
        assert_eq!(median(&[Some(4.0), None, Some(1.0)]), Some(2.5));
        assert_eq!(Row::plain("g", "n", "u", &[Some(3.0)], Target::AtMost(2.5)).verdict, "missed");
    }
}
