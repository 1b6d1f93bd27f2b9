# One line a target where possible; logic lives in Rust, or beside the tests that need it.
DATA ?= ./var
S3_ADDR ?= 127.0.0.1:9000
ADMIN_ADDR ?= 127.0.0.1:9001
# Raw devices, "/dev/x /dev/y": used instead of files in DATA. CLAIM=1 overwrites what is on them.
DEVICES ?=
# Size of each file-backed device, such as 4GiB; fixed when it is made.
DEVICE_SIZE ?=
CLAIM ?=
# A rack of so many nodes instead of one host, each a process with DEVICES_PER_NODE file-backed devices.
NODES ?=
DEVICES_PER_NODE ?= 3
# More flags for `holdfast dev` or for the benches.
ARGS ?=

HOLDFAST = target/release/holdfast
RAW_DEVICES = $(foreach device,$(DEVICES),--raw-device $(device))

.DEFAULT_GOAL := help
.PHONY: help run build test unit clients schedules soak mutants bench bench-store fuzz lint fmt clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: build ## Start a server on DATA (./var); also S3_ADDR, ADMIN_ADDR, DEVICE_SIZE=4GiB, DEVICES="/dev/x ...", CLAIM=1, ARGS; NODES=6 DEVICES_PER_NODE=3: a rack
ifeq ($(NODES),)
	@exec $(HOLDFAST) dev --data $(DATA) --s3-addr $(S3_ADDR) --admin-addr $(ADMIN_ADDR) $(if $(DEVICE_SIZE),--device-size $(DEVICE_SIZE)) $(RAW_DEVICES) $(if $(filter 1,$(CLAIM)),--claim) $(ARGS)
else
	@exec $(HOLDFAST) rack --data $(DATA)/rack --nodes $(NODES) --devices-per-node $(DEVICES_PER_NODE) $(if $(DEVICE_SIZE),--device-size $(DEVICE_SIZE)) $(ARGS)
endif

build: ## Build the release binary
	cargo build --release -p cli

test: unit build clients ## Every test: the workspace's, then real clients against the real binary

unit: ## The workspace's own tests
	@provisioning/catalog/tests/setup
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace; else cargo test --workspace; fi

clients: build ## Real S3 clients against the real binary
	@hwtests/clients/setup
	@hwtests/clients/run $(ARGS)

schedules: ## Interleavings of the shard store from a fresh seed (SHUTTLE_ITERATIONS=1000 each way), and of the executor's sleep
	cargo run -p schedules --bin schedules -- run all $(or $(SHUTTLE_ITERATIONS),1000)
	cargo test -p schedules --features loom --test unpark

soak: ## The shard store against its model under crashes and faults, from fresh seeds; MINUTES=n, ARGS="--seed n" replays one
	@cargo build --release -p simulation --bin soak
	@target/release/soak --minutes $(or $(MINUTES),5) $(ARGS)

mutants: ## Whether the simulation finds deliberately broken stores; ARGS="--reduce --only name"
	@cargo build --release -p simulation --features mutants --bin mutants
	@target/release/mutants $(ARGS)

bench: build ## Print the figures that docs/ names
	cargo run --release -p benches --bin bench -- $(ARGS)

bench-store: ## Print the figures of one device's store, each beside fio on the same disk
	@cargo build --release -p benches --bin storebench --bin storebench-memory
	@target/release/storebench $(ARGS)

fuzz: ## Fuzz every decoder of outside bytes; SECONDS=30 each, TARGET=name for one alone
	@SECONDS_EACH=$(SECONDS) TARGET=$(TARGET) hwtests/fuzz/run

lint: ## Formatting and lints, warnings refused
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## Format the sources
	cargo fmt --all

clean: ## Remove what was built; DATA stays
	cargo clean
