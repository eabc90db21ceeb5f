# SPDX-License-Identifier: GPL-3.0-or-later
# Two commands do everything: `make demo` and `make test`. `make check` is the quick part of the tests.

OUT ?= out
JOURNEY = target/debug/journey

.PHONY: demo test check bench conformance build setup clean

# The main job, in virtual machines: from upstream's packages to a verified, patched Xen host.
demo: build
	$(JOURNEY) demo --out $(OUT)

# The tests: the quick part, then the journey. Further stories are told singly: $(JOURNEY) tell --help
test: check build
	$(JOURNEY) demo --out $(OUT)

# Format, lints, unit tests and each program's command line tests.
check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked

# Times and sizes as ratios beside a peer; needs what `make demo` made.
bench: build
	$(JOURNEY) bench --out $(OUT)

# The public TUF conformance suite against our client: make conformance SUITE=<a checkout of tuf-conformance>.
# It fakes the clock of the client with Debian's package faketime.
conformance: setup
	cargo build --locked -p signing --example tuf-client
	python3 -m venv target/conformance
	target/conformance/bin/pip install --quiet "$(SUITE)"
	target/conformance/bin/pytest -q "$(SUITE)/tuf_conformance" --entrypoint "$(CURDIR)/target/debug/examples/tuf-client"

# The crates of all platforms, which the image's programs are locked to.
build: setup
	cargo fetch --locked
	cargo build --workspace --locked

# Names and installs what is missing from Debian's packages.
setup:
	@sh tests/setup

clean:
	cargo clean
	rm -rf $(OUT)
