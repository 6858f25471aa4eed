//! Rows as a table for people and as `report.json` for programs.

use crate::row::Row;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Writes `report.json` into a folder: the rows as a list. Returns its path.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write(folder: &Path, rows: &[Row]) -> Result<PathBuf> {
    let path = folder.join("report.json");
    let write = || {
        fs::create_dir_all(folder)?;
        fs::write(&path, serde_json::to_string_pretty(rows)? + "\n")
    };
    write().with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// All rows, aligned.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = [
        "bench", "what", "value", "versus", "", "ratio", "bar", "met",
    ]
    .map(String::from);
    let lines: Vec<[String; 8]> = std::iter::once(head)
        .chain(rows.iter().map(cells))
        .collect();
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    let aligned = lines.iter().map(|line| {
        let cells = line
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (text, width))| {
                // Numbers end where numbers end.
                match column {
                    2 | 3 | 5 | 6 => format!("{text:>width$}"),
                    _ => format!("{text:<width$}"),
                }
            });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    aligned.collect::<Vec<_>>().join("\n")
}

fn cells(row: &Row) -> [String; 8] {
    let ratio = |ratio: Option<f64>| ratio.map_or_else(String::new, |it| format!("{it:.3}"));
    let versus = row.versus.as_ref();
    [
        row.bench.to_owned(),
        row.what.clone(),
        human(row.value, &row.unit),
        versus.map_or_else(String::new, |it| human(it.value, &row.unit)),
        versus.map_or_else(String::new, |it| it.name.clone()),
        ratio(row.ratio),
        row.bar.map_or_else(String::new, |bar| format!("≤ {bar}")),
        row.met
            .map_or("", |met| if met { "yes" } else { "NO" })
            .to_owned(),
    ]
}

fn human(value: f64, unit: &str) -> String {
    let (value, unit) = match unit {
        "s" | "cpu-s" if value >= 10.0 => (value, "s"),
        "s" | "cpu-s" if value >= 1e-3 => (value * 1e3, "ms"),
        "s" | "cpu-s" => (value * 1e6, "µs"),
        "bytes" if value >= 1e6 => (value / 1e6, "MB"),
        "bytes" => (value, "B"),
        other => (value, other),
    };
    format!("{value:.1} {unit}")
}
