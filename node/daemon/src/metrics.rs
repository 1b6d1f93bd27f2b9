//! A writer for the Prometheus text format, version 0.0.4.
//!
//! Invariants: a family's HELP and TYPE lines come once and before its samples, names are legal, and label
//! values and help texts are escaped. A broken name is a bug of ours and panics, in tests first of all.
//!
//! Left out on purpose: registries and atomic counters. Who counts, keeps the numbers; this only prints them.

use std::collections::BTreeSet;
use std::fmt::Write;

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until a restart.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound.
    Histogram,
}

/// The counts of one histogram; `counts[i]` observations were at most `bounds[i]` and above the bound before it.
#[derive(Debug, Clone, Copy)]
pub struct Buckets<'a> {
    /// Upper bounds, ascending, in the family's unit.
    pub bounds: &'a [f64],
    /// One count a bound, and one more for what was above them all.
    pub counts: &'a [u64],
    /// Sum of all observations, in the family's unit.
    pub sum: f64,
}

/// The text as it grows.
#[derive(Debug, Default)]
pub struct MetricsText {
    out: String,
    families: BTreeSet<String>,
}

impl MetricsText {
    /// An empty text.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a family; its samples follow through the answer.
    ///
    /// # Panics
    /// When the name is illegal, or was begun before, or a counter's does not end in `_total`.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        assert!(is_name(name), "{name:?} is no metric name");
        assert!(kind != Kind::Counter || name.ends_with("_total"), "{name}: a counter ends in _total");
        assert!(self.families.insert(name.to_owned()), "{name} was begun twice");
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.out.push_str("# HELP ");
        self.out.push_str(name);
        self.out.push(' ');
        escape(&mut self.out, help, false);
        self.out.push_str("\n# TYPE ");
        self.out.push_str(name);
        self.out.push(' ');
        self.out.push_str(kind);
        self.out.push('\n');
        Family { text: self, name }
    }

    /// A counter of one sample without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, Kind::Counter, help).count(&[], value);
    }

    /// A gauge of one sample without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, Kind::Gauge, help).value(&[], value);
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }
}

/// One family, open for samples.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut MetricsText,
    name: &'a str,
}

impl Family<'_> {
    /// A whole number, printed exactly.
    pub fn count(&mut self, labels: &[(&str, &str)], value: u64) -> &mut Self {
        self.sample("", labels, None, format_args!("{value}"))
    }

    /// Any number.
    pub fn value(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.sample("", labels, None, format_args!("{}", Number(value)))
    }

    /// A histogram's buckets, sum and count.
    ///
    /// # Panics
    /// When there is not one count more than bounds, or the bounds do not ascend.
    pub fn histogram(&mut self, labels: &[(&str, &str)], buckets: Buckets<'_>) -> &mut Self {
        assert_eq!(buckets.counts.len(), buckets.bounds.len() + 1, "{}: one count a bound and one above", self.name);
        assert!(buckets.bounds.is_sorted_by(|a, b| a < b), "{}: the bounds ascend", self.name);
        let mut total = 0_u64;
        let bounds = buckets.bounds.iter().copied().chain([f64::INFINITY]);
        for (bound, count) in bounds.zip(buckets.counts) {
            total = total.saturating_add(*count);
            self.sample("_bucket", labels, Some(bound), format_args!("{total}"));
        }
        self.sample("_sum", labels, None, format_args!("{}", Number(buckets.sum)));
        self.sample("_count", labels, None, format_args!("{total}"))
    }

    fn sample(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        le: Option<f64>,
        value: std::fmt::Arguments<'_>,
    ) -> &mut Self {
        let out = &mut self.text.out;
        out.push_str(self.name);
        out.push_str(suffix);
        let mut separator = '{';
        for (label, text) in labels {
            assert!(is_name(label) && !label.contains(':') && *label != "le", "{label:?} is no label name");
            out.push(separator);
            separator = ',';
            out.push_str(label);
            out.push_str("=\"");
            escape(out, text, true);
            out.push('"');
        }
        if let Some(bound) = le {
            write!(out, "{separator}le=\"{}\"", Number(bound)).expect("a string takes any text");
            separator = ',';
        }
        if separator == ',' {
            out.push('}');
        }
        writeln!(out, " {value}").expect("a string takes any text");
        self
    }
}

struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            v if v.is_nan() => f.write_str("NaN"),
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            v => write!(f, "{v}"),
        }
    }
}

fn is_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(legal)
}

fn escape(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_print_as_the_format_says() {
        let mut text = MetricsText::new();
        text.counter("holdfast_puts_total", "Objects put.", 3);
        text.gauge("holdfast_ready", "1 when \"ready\"\nand \\ able.", 1.0);
        text.family("holdfast_device_bytes", Kind::Gauge, "Bytes.")
            .count(&[("device", "/dev/\"x\\y\n"), ("state", "live")], u64::MAX)
            .value(&[], f64::NAN);
        assert_eq!(
            text.finish(),
            "# HELP holdfast_puts_total Objects put.\n# TYPE holdfast_puts_total counter\nholdfast_puts_total 3\n\
             # HELP holdfast_ready 1 when \"ready\"\\nand \\\\ able.\n# TYPE holdfast_ready gauge\nholdfast_ready 1\n\
             # HELP holdfast_device_bytes Bytes.\n# TYPE holdfast_device_bytes gauge\n\
             holdfast_device_bytes{device=\"/dev/\\\"x\\\\y\\n\",state=\"live\"} 18446744073709551615\n\
             holdfast_device_bytes NaN\n"
        );
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_at_infinity() {
        let mut text = MetricsText::new();
        text.family("holdfast_seconds", Kind::Histogram, "Latency.")
            .histogram(&[("op", "put")], Buckets { bounds: &[0.005, 1.0], counts: &[2, 3, 1], sum: 4.5 });
        assert_eq!(
            text.finish().lines().skip(2).collect::<Vec<_>>(),
            [
                "holdfast_seconds_bucket{op=\"put\",le=\"0.005\"} 2",
                "holdfast_seconds_bucket{op=\"put\",le=\"1\"} 5",
                "holdfast_seconds_bucket{op=\"put\",le=\"+Inf\"} 6",
                "holdfast_seconds_sum{op=\"put\"} 4.5",
                "holdfast_seconds_count{op=\"put\"} 6",
            ]
        );
    }

    #[test]
    fn broken_names_are_refused() {
        for name in ["", "9lives", "a-b", "ü"] {
            assert!(!is_name(name), "{name:?}");
        }
        assert!(is_name("holdfast:a_9"));
    }

    #[test]
    #[should_panic(expected = "begun twice")]
    fn a_family_comes_once() {
        let mut text = MetricsText::new();
        text.gauge("a", "A.", 1.0);
        text.gauge("a", "A.", 2.0);
    }
}
