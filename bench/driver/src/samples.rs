//! Samples that programs print, several programs in turn, and their medians.

use crate::row::Row;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

/// How often each program runs.
pub(crate) const ROUNDS: usize = 3;

/// One line of a program's output.
#[derive(Deserialize)]
struct Line {
    what: String,
    value: f64,
    unit: String,
    /// What came out, in words; empty where nothing is said.
    #[serde(default)]
    work: String,
}

/// Everything that one program printed, by what it measured.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<String, Measured>);

#[derive(Debug, Default)]
struct Measured {
    values: Vec<f64>,
    unit: String,
    work: String,
}

/// Runs programs in turn, so that what else happens on the machine meets all of them. The order is the order of the answer.
///
/// # Errors
/// A program fails, or prints what is no sample.
pub(crate) fn in_turn<const N: usize>(mut programs: [Command; N]) -> Result<[Samples; N]> {
    let mut all: [Samples; N] = std::array::from_fn(|_| Samples::default());
    for _ in 0..ROUNDS {
        for (program, samples) in programs.iter_mut().zip(&mut all) {
            samples.collect(program)?;
        }
    }
    Ok(all)
}

impl Samples {
    fn collect(&mut self, program: &mut Command) -> Result<()> {
        let name = program.get_program().to_string_lossy().into_owned();
        let output = program
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("start {name}"))?;
        ensure!(output.status.success(), "{name}: {}", output.status);
        for text in String::from_utf8_lossy(&output.stdout).lines() {
            self.read(text)
                .with_context(|| format!("{name} printed what is no sample: {text}"))?;
        }
        Ok(())
    }

    fn read(&mut self, text: &str) -> Result<()> {
        let line: Line = serde_json::from_str(text)?;
        let measured = self.0.entry(line.what).or_default();
        measured.values.push(line.value);
        measured.unit = line.unit;
        measured.work = line.work;
        Ok(())
    }

    /// A row of one thing that was measured.
    ///
    /// # Errors
    /// It was not measured.
    pub(crate) fn row(&self, bench: &'static str, what: &str) -> Result<Row> {
        let (value, unit) = (self.median(what)?, &self.measured(what)?.unit);
        Ok(Row::new(bench, what, value, unit))
    }

    /// The same beside what a rival measured under the same name.
    ///
    /// # Errors
    /// One of them has not measured it, or they did not do the same work.
    pub(crate) fn beside(
        &self,
        bench: &'static str,
        what: &str,
        name: &str,
        rival: &Self,
    ) -> Result<Row> {
        let (own, other) = (&self.measured(what)?.work, &rival.measured(what)?.work);
        ensure!(
            own == other,
            "{what}: not the same work: {own} here, {other} by {name}"
        );
        Ok(self.row(bench, what)?.versus(name, rival.median(what)?))
    }

    /// The median of one thing that was measured.
    ///
    /// # Errors
    /// It was not measured.
    pub(crate) fn median(&self, what: &str) -> Result<f64> {
        median(&self.measured(what)?.values).with_context(|| format!("{what} was not measured"))
    }

    fn measured(&self, what: &str) -> Result<&Measured> {
        self.0
            .get(what)
            .with_context(|| format!("{what} was not measured"))
    }
}

/// The middle one, the upper of two.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn samples(values: &[f64], work: &str) -> Samples {
        let mut samples = Samples::default();
        for value in values {
            let line =
                serde_json::json!({"what": "check", "value": value, "unit": "s", "work": work});
            samples.read(&line.to_string()).unwrap();
        }
        samples
    }

    #[test]
    fn medians_are_compared() {
        let (own, rival) = (samples(&[9.0, 1.0, 2.0], "x"), samples(&[8.0], "x"));
        let row = own.beside("plan", "check", "rival", &rival).unwrap();
        assert_eq!((row.value, row.ratio), (2.0, Some(0.25)));
    }

    #[test]
    fn different_work_is_not_compared() {
        let (own, rival) = (samples(&[1.0], "2 nodes"), samples(&[2.0], "3 nodes"));
        let error = own.beside("plan", "check", "rival", &rival).unwrap_err();
        assert!(error.to_string().contains("2 nodes here, 3 nodes by rival"));
    }
}
