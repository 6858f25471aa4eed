//! The metrics reference: what the programs serve, as their tests keep it beside their sources, and the alerts of the chart.

use super::cell;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

const HEAD: &str = "\
# Metrics reference

<!-- Generated from operator/metrics.txt, agent/metrics.txt and the chart's rules/alerts.yaml by `make docs`. Do not edit. -->

`/metrics` speaks OpenMetrics, on each node's loopback: port 21980 for the agent, 21981 for the operator (`agent.metricsPort` and
`operator.port` in the chart). `metrics.expose=true` serves them on the nodes' addresses, without authentication;
`metrics.serviceMonitor.enabled`, `metrics.prometheusRule.enabled` and `metrics.dashboards.enabled` bring what Prometheus and Grafana need.
Labels are few and fixed: no object names, no error texts.
";
const ALERTS: &str = "deploy/helm/tieline/rules/alerts.yaml";

/// One metric, as a scrape sees it.
#[derive(Debug, PartialEq, Eq)]
struct Metric {
    /// The name that queries use: a counter's with `_total`.
    name: String,
    /// What alerts may use of it.
    series: BTreeSet<String>,
    kind: String,
    help: String,
    labels: Vec<String>,
}

/// An alert of the chart.
struct Alert {
    name: String,
    severity: String,
    expression: String,
    patience: String,
    summary: String,
}

/// The page.
pub(super) fn page(root: &Path) -> Result<String> {
    let read = |path: &str| {
        std::fs::read_to_string(root.join(path)).with_context(|| format!("reading {path}"))
    };
    let alerts = alerts(&read(ALERTS)?)?;
    let mut page = HEAD.to_owned();
    let mut known = BTreeSet::new();
    for (program, served) in [
        ("agent", "agent/metrics.txt"),
        ("operator", "operator/metrics.txt"),
    ] {
        let metrics = metrics(&read(served)?);
        ensure!(!metrics.is_empty(), "{served} holds no metric");
        let _ = write!(
            page,
            "\n## tieline-{program}\n\n| name | type | labels | unit | meaning | alerts |\n|---|---|---|---|---|---|\n"
        );
        for metric in &metrics {
            page.push_str(&row(metric, &alerts));
            known.extend(metric.series.iter().cloned());
        }
    }
    for alert in &alerts {
        let unknown: Vec<String> = used(&alert.expression)
            .difference(&known)
            .cloned()
            .collect();
        ensure!(
            unknown.is_empty(),
            "{ALERTS}: {} uses {}, which no program serves",
            alert.name,
            unknown.join(", ")
        );
    }
    page.push_str("\n## Alerts\n\n`metrics.prometheusRule.enabled=true` installs them.\n\n| alert | severity | when | for | meaning |\n|---|---|---|---|---|\n");
    for alert in &alerts {
        let _ = writeln!(
            page,
            "| {} | {} | `{}` | {} | {} |",
            alert.name,
            alert.severity,
            cell(&alert.expression),
            alert.patience,
            cell(&alert.summary)
        );
    }
    Ok(page)
}

fn row(metric: &Metric, alerts: &[Alert]) -> String {
    let by: Vec<&str> = alerts
        .iter()
        .filter(|alert| !used(&alert.expression).is_disjoint(&metric.series))
        .map(|alert| alert.name.as_str())
        .collect();
    let unit = match metric.kind.as_str() {
        _ if metric.name.ends_with("_seconds") => "seconds",
        "info" => "–",
        _ => "1",
    };
    format!(
        "| `{}` | {} | {} | {unit} | {} | {} |\n",
        metric.name,
        metric.kind,
        metric.labels.join(", "),
        cell(&metric.help),
        by.join(", ")
    )
}

/// What an OpenMetrics page declares, in its order.
fn metrics(page: &str) -> Vec<Metric> {
    let mut helps = BTreeMap::new();
    let mut all: Vec<Metric> = Vec::new();
    for line in page.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                helps.insert(name, help.trim_end_matches('.'));
            }
            ["#", "TYPE", base, kind] => {
                let ends: &[&str] = match kind {
                    "counter" => &["_total"],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "info" => &["_info"],
                    _ => &[""],
                };
                let series: BTreeSet<String> =
                    ends.iter().map(|end| format!("{base}{end}")).collect();
                let name = match kind {
                    "histogram" => base.to_owned(),
                    _ => format!("{base}{}", ends[0]),
                };
                all.push(Metric {
                    name,
                    series,
                    kind: kind.to_owned(),
                    help: helps.get(base).copied().unwrap_or_default().to_owned(),
                    labels: Vec::new(),
                });
            }
            _ => {
                // A sample of the metric declared last shows its labels; those of a histogram are its buckets.
                if let (Some(metric), Some((_, rest))) = (all.last_mut(), line.split_once('{'))
                    && let Some((labels, _)) = rest.rsplit_once('}')
                    && metric.labels.is_empty()
                {
                    metric.labels = labels
                        .split("\",")
                        .filter_map(|label| label.split_once('='))
                        .map(|(name, _)| name.to_owned())
                        .filter(|name| name != "le")
                        .collect();
                }
            }
        }
    }
    all
}

/// Our series in an expression.
fn used(expression: &str) -> BTreeSet<String> {
    expression
        .split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
        .filter(|word| word.starts_with("tieline_"))
        .map(str::to_owned)
        .collect()
}

fn alerts(yaml: &str) -> Result<Vec<Alert>> {
    let groups: Vec<Value> =
        serde_norway::from_str(yaml).with_context(|| format!("reading {ALERTS}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    for rule in groups
        .iter()
        .filter_map(|group| group["rules"].as_array())
        .flatten()
    {
        let alert = Alert {
            name: text(&rule["alert"]),
            severity: text(&rule["labels"]["severity"]),
            expression: text(&rule["expr"]),
            patience: rule["for"].as_str().unwrap_or("at once").to_owned(),
            summary: readable(&text(&rule["annotations"]["summary"])),
        };
        ensure!(
            !alert.name.is_empty() && !alert.expression.is_empty(),
            "{ALERTS}: a rule without alert or expr"
        );
        all.push(alert);
    }
    ensure!(!all.is_empty(), "{ALERTS} holds no alert");
    Ok(all)
}

/// `{{ $labels.node }}` as people say it: NODE.
fn readable(template: &str) -> String {
    let mut parts = template.split("{{ $labels.");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (label, rest) = part.split_once(" }}").unwrap_or((part, ""));
        text.push_str(&label.to_uppercase());
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PAGE: &str = "\
# HELP a_writes Requests.
# TYPE a_writes counter
a_writes_total{resource=\"peers\",outcome=\"stored, twice\"} 0
# HELP a_seconds Time.
# TYPE a_seconds histogram
a_seconds_sum 0
a_seconds_bucket{le=\"1.0\"} 0
# EOF
";

    #[test]
    fn a_page_of_metrics_is_read() {
        let found = metrics(PAGE);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].name, "a_writes_total");
        assert_eq!(found[0].help, "Requests");
        assert_eq!(found[0].labels, ["resource", "outcome"]);
        assert_eq!(found[1].name, "a_seconds");
        assert!(found[1].labels.is_empty());
        assert!(found[1].series.contains("a_seconds_bucket"));
    }

    #[test]
    fn alerts_name_the_series_they_use() {
        let names = used("increase(tieline_a_total[10m]) > 0 and tieline_b == 0");
        assert_eq!(
            names.into_iter().collect::<Vec<_>>(),
            ["tieline_a_total", "tieline_b"]
        );
        assert_eq!(readable("{{ $labels.node }} is down"), "NODE is down");
    }
}
