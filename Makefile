# One entry for every habit. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help demo demo-nodes test test-all test-unit test-nodes lab bench lint crds docs fmt tools control-plane image manifests chart

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: ## three sites and the company VPN on this machine, in one go (KEEP=1 leaves it running)
	@tests/run demo

demo-nodes: ## the same on real Kubernetes nodes, installed by helm; needs root (KEEP=1, CNI=bridge|flannel|plain, PROXY=nftables|iptables)
	@tests/run demo-nodes

test: ## what a change can break: unit, golden, API and lab tests; ends with "N passed, N failed"
	@tests/run test

test-all: ## the whole matrix: every case of every suite, before an issue is called resolved
	@tests/run test-all

test-nodes: ## the suites on real Kubernetes nodes only; needs root
	@tests/run test-nodes

test-unit: ## unit, golden and property tests only
	@tests/run test-unit

lab: ## one lab suite with all its cases: make lab SUITE=lab_mesh FILTER=words
	@tests/run suite $(SUITE) $(FILTER)

bench: ## this checkout beside its rivals: a table and target/bench/report.json (ONLY=plan runs one)
	@tests/run bench $(ONLY)

lint: ## formatting, clippy, crate edges, generated files, licences
	@tests/run lint

crds: ## write crds/yaml/ from the Rust types
	cargo run --quiet -p xtask -- crds

docs: ## write docs/api.md, docs/metrics.md and the table of reasons, and what they are made from
	UPDATE_EXPECTED=1 cargo test --quiet --workspace --lib metrics_txt
	cargo run --quiet -p xtask -- docs

fmt: ## format all Rust code
	cargo fmt --all

tools: ## install what tests and demo need from Debian, where it is missing
	@tests/run tools

control-plane: ## build etcd, kube-apiserver, kube-controller-manager and kubectl into the cache
	@tests/control-plane/build

image: ## the image for amd64 and arm64 as an OCI archive with SBOMs, into target/image (ARGS="--arch amd64 --profile dev")
	@nice cargo run --quiet -p xtask -- image $(ARGS)

manifests: crds ## write deploy/manifests/ from the Helm chart
	@deploy/render

chart: ## lint the Helm chart and check what it renders against a real API server
	@deploy/check
