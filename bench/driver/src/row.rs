//! One line of the report: what was measured, against what, and whether that is good enough.

use serde::Serialize;

/// One measured value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// The bench.
    pub(crate) bench: &'static str,
    /// What was measured.
    pub(crate) what: String,
    /// The median, in `unit`.
    pub(crate) value: f64,
    /// `s` (seconds), `cpu-s` (seconds of CPU time) or `bytes`.
    pub(crate) unit: String,
    /// What it is compared with.
    pub(crate) versus: Option<Versus>,
    /// `value` divided by the other's.
    pub(crate) ratio: Option<f64>,
    /// The greatest ratio that is good enough; none where the ratio is for information.
    pub(crate) bar: Option<f64>,
    /// Whether the ratio is good enough.
    pub(crate) met: Option<bool>,
}

/// The other side of a ratio.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Versus {
    /// Who, and what it did where that differs.
    pub(crate) name: String,
    /// Its value, in the row's unit.
    pub(crate) value: f64,
}

impl Row {
    /// A value by itself.
    pub(crate) fn new(bench: &'static str, what: &str, value: f64, unit: &str) -> Self {
        Self {
            bench,
            what: what.to_owned(),
            value,
            unit: unit.to_owned(),
            versus: None,
            ratio: None,
            bar: None,
            met: None,
        }
    }

    /// The same beside another value.
    pub(crate) fn versus(self, name: impl Into<String>, value: f64) -> Self {
        Self {
            versus: Some(Versus {
                name: name.into(),
                value,
            }),
            ratio: Some(self.value / value),
            ..self
        }
    }

    /// The same with a bar for the ratio.
    pub(crate) fn at_most(self, bar: f64) -> Self {
        Self {
            met: self.ratio.map(|ratio| ratio <= bar),
            bar: Some(bar),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn row(value: f64, other: f64) -> Row {
        Row::new("plan", "check", value, "s").versus("rival", other)
    }

    #[test]
    fn a_bar_is_met_by_a_ratio_that_is_not_above_it() {
        assert_eq!(row(1.0, 4.0).at_most(0.25).met, Some(true));
        assert_eq!(row(1.1, 4.0).at_most(0.25).met, Some(false));
        assert_eq!(row(1.1, 4.0).met, None);
    }

    #[test]
    fn a_row_without_a_rival_meets_no_bar() {
        assert_eq!(Row::new("plan", "check", 1.0, "s").at_most(1.0).met, None);
    }

    #[test]
    fn a_report_names_every_field() {
        let text = serde_json::to_value(row(1.0, 4.0).at_most(0.5)).unwrap();
        let expected = serde_json::json!({
            "bench": "plan", "what": "check", "value": 1.0, "unit": "s", "versus": {"name": "rival", "value": 4.0},
            "ratio": 0.25, "bar": 0.5, "met": true,
        });
        assert_eq!(text, expected);
    }
}
