# `make demo` and `make test` do all their own set-up. See README.md.

SHELL := /bin/bash
.DEFAULT_GOAL := help
CLUSTER := dev/cluster/cluster

.PHONY: help build image cluster install demo down test test-pure test-http2 test-api test-node test-cluster fuzz bench lint generate clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

build: ## Build the executable for development
	cargo build --locked

image: ## Build the static executable and the image (target/image)
	@dev/image.sh

cluster: ## Start a Kubernetes on this machine, or use the one that there is
	@$(CLUSTER) up

install: ## Install the operator on it
	@dev/install.sh

demo: ## Brokers on a real Kubernetes, traffic, a scale-up and a scale-down
	@dev/demo.sh

down: ## Take away what `make demo` made
	@dev/down.sh

test: ## Every test: pure, against a real API server, on real nodes
	@dev/test.sh pure http2 api node cluster

test-pure: ## Only the tests that need nothing
	@dev/test.sh pure

test-http2: ## Only the test that needs h2spec
	@dev/test.sh http2

test-api: ## Only the tests that need an API server
	@dev/test.sh api

test-node: ## Only the tests that need nodes
	@dev/test.sh node

test-cluster: ## Only the tests of the development cluster
	@dev/test.sh cluster

fuzz: ## Each fuzz target for FUZZ_SECONDS (600), at low priority
	@dev/fuzz.sh

bench: ## Compare with Kafka, NATS JetStream and grpc-go (QUICK=1: in five minutes)
	@QUICK=$(QUICK) dev/bench.sh

lint: ## Formatting, clippy, documentation, licences, generated files, charts
	@dev/lint.sh

generate: ## Write what is generated from the code: crds/, charts
	@dev/generate.sh

clean: ## Remove what was built
	cargo clean
