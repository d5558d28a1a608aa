# make demo   sets the host up, brings the stack up, replays two prompt sets under two profiles
# make test   everything that is tested, on a real kernel with netem and a real Docker Engine
# make netem-stack   the stack's own tests of links and model on a kernel with netem
# make bench  on a running stack: what selecting experts costs, as a share of a layer's time, and
#             how many more tokens a second eight clients get than one; beside it, what metrics cost
# make down   stops the stack

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.PHONY: demo test netem-stack bench down setup

PATH := $(CURDIR)/.venv/bin:$(PATH)
# JUnit XML reports of the last `make test`, one a pytest run
REPORTS := .build/reports

setup:
	@./setup.sh

# prompts of each set; the table of the runs is in runs/demo/report/table.md
LIMIT := 20

demo: setup
	@wdmoe up
	rm -rf runs/demo
	for profile in near-far block-fading; do
	    wdmoe profile use $$profile
	    for prompts in compare facts; do
	        wdmoe replay $$prompts --limit $(LIMIT) --out runs/demo/$$profile-$$prompts
	    done
	done
	wdmoe report runs/demo/* --out runs/demo/report
	echo
	echo "Look next: wdmoe top (what it does right now), runs/demo/report/index.html (figures),"
	for service in grafana:3000 prometheus:9090; do
	    address=$$(docker compose port $${service/:/ } 2>/dev/null) || continue
	    echo "http://$$address ($${service%:*})"
	done

test:
	@./setup.sh --tests
	rm -rf $(REPORTS)
	mkdir -p $(REPORTS)
	ruff check
	ruff format --check
	mypy
	python -m pytest tests/unit --junitxml=$(REPORTS)/unit.xml
	python -m pytest tests/net tests/stack --junitxml=$(REPORTS)/host.xml
	tests/netem_kernel/run python -m pytest tests/net --junitxml=$(REPORTS)/netem.xml

# Apart from `make test` until the stack comes up in time again on User-Mode Linux's one processor:
# its devices had reported nothing after four minutes.
netem-stack: setup
	@tests/netem_kernel/run python -m pytest tests/stack/test_model.py tests/stack/test_shaping.py \
	    tests/stack/test_links.py

bench:
	@python -m benchmarks.selection
	python -m benchmarks.batching
	python -m benchmarks.metrics

down:
	@wdmoe down
