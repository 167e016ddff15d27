.DEFAULT_GOAL := help
.PHONY: help build tools demo dev test unit acceptance chaos soak fuzz bench check catalog clean

PLUGIN  := bin/vault-plugin-secrets-precision
PACKAGE := github.com/precision-access/vault-plugin-secrets-precision
VERSION ?= v0.1.0
FUZZTIME ?= 20s
# The Kubernetes that tests run on: 1.37 or 1.34, each from a module of tests/tools.
KUBERNETES ?= 1.37
export PRECISION_KUBERNETES := $(KUBERNETES)
SOAKTIME ?= 10m

# Everything but the acceptance tests.
UNITS = $(shell go list ./... | grep -vE '/tests(/judge|/chaos|/kubernetes|/postgresql|/vault)?$$')

# What the proofs have counted, for showing it at the end.
export PRECISION_FIGURES := $(CURDIR)/.cache/figures

# A test runner on PATH or the one that "make tools" has built.
export PATH := $(PATH):$(CURDIR)/.cache/bin

help: ## Show what there is to make
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the plugin into bin/
	@CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X $(PACKAGE).Version=$(VERSION)" -o $(PLUGIN) ./cmd/vault-plugin-secrets-precision

tools: ## Build or find the servers and tools that demo and tests use, once
	@scripts/tools.sh vault minio etcd kubernetes-$(KUBERNETES) helm postgresql awscli moto judge gotestsum staticcheck govulncheck

demo: ## Watch one exact credential from "vault read" to dead, on real servers; or STORY=reset
	@scripts/tools.sh vault $(if $(filter reset,$(STORY)),,minio)
	@$(MAKE) --no-print-directory build
	@go build -o .cache/bin/demo ./scripts/demo
	@.cache/bin/demo $(PLUGIN) $(STORY)

dev: ## Start the same servers, and leave them running to play with
	@scripts/tools.sh vault minio moto
	@$(MAKE) --no-print-directory build
	@go build -o .cache/bin/dev ./scripts/dev
	@.cache/bin/dev $(PLUGIN)

test: ## Run all tests
	@scripts/tools.sh vault minio etcd kubernetes-$(KUBERNETES) helm postgresql awscli moto judge gotestsum
	@rm -f $(PRECISION_FIGURES)
	@$(MAKE) --no-print-directory unit acceptance chaos
	@echo; echo "What the proofs counted:"; cat $(PRECISION_FIGURES)

unit: ## Run the unit tests, with the race detector
	@scripts/tools.sh gotestsum
	@gotestsum --format pkgname-and-test-fails -- -race $(UNITS)

acceptance: ## Run the tests of the plugin in a real Vault, against real targets
	@scripts/tools.sh vault minio etcd kubernetes-$(KUBERNETES) helm postgresql awscli moto judge gotestsum
	@gotestsum --format testname -- -race -count=1 -timeout 60m -p 3 ./tests ./tests/judge ./tests/kubernetes ./tests/postgresql ./tests/vault

chaos: ## Run the proofs that nothing outlives its lease, while things die
	@scripts/tools.sh vault minio moto gotestsum
	@gotestsum --format standard-verbose -- -race -count=1 -timeout 45m -parallel 6 ./tests/chaos

soak: ## Mint and revoke at full load for SOAKTIME, and watch what the plugin takes
	@scripts/tools.sh vault minio moto
	@$(MAKE) --no-print-directory build
	@go run ./scripts/soak $(PLUGIN) $(SOAKTIME)

fuzz: ## Fuzz what parses input from outside, FUZZTIME each
	@scripts/fuzz.sh $(FUZZTIME)

bench: ## Measure the engine beside Vault's own AWS engine, and what has to stay fast in memory
	@scripts/tools.sh vault minio
	@$(MAKE) --no-print-directory build
	@go build -o .cache/bin/bench ./scripts/bench
	@.cache/bin/bench $(PLUGIN)
	@go test -run '^$$' -bench . -benchmem . ./internal/...

check: ## Check format, vet, staticcheck, known vulnerabilities, tidy modules
	@scripts/tools.sh staticcheck govulncheck
	@scripts/check.sh

catalog: ## Write the catalogue of AWS's actions anew, from its pinned sources and tables
	@go generate ./internal/provider/aws/catalog

clean: ## Remove what was built, the servers too
	@rm -rf bin .cache
