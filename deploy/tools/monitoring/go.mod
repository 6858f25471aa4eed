// Where the definitions of ServiceMonitor and PrometheusRule come from, for `../../check`. Nothing of it is built.
module tieline.dev/deploy/tools/monitoring

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
