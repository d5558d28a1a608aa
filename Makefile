# make demo   sets the host up, starts the stack, replays two prompt sets under two profiles
# make check  runs linters, types and quick unit tests: about two minutes on two cores
# make test   runs all tests, on a real kernel with netem and a real Docker Engine
# make bench  measures, on a running stack, the cost of selection as a share of a layer's time, the
#             tokens per second of eight clients against one, and the cost of metrics
# make down   stops the stack

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.PHONY: demo check test bench down setup

PATH := $(CURDIR)/.venv/bin:$(PATH)
# JUnit XML reports of the last `make test`, one per pytest run
REPORTS := .build/reports

setup:
	@./setup.sh

# number of prompts of each set; the table of the runs is in runs/demo/report/table.md
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

check:
	@ruff check
	ruff format --check
	mypy
	python -m pytest tests/unit -q -n 2 -m "not slow"

test:
	@./setup.sh --tests
	rm -rf $(REPORTS)
	mkdir -p $(REPORTS)
	ruff check
	ruff format --check
	mypy
	python -m pytest tests/unit --durations=20 --junitxml=$(REPORTS)/unit.xml
	python -m pytest tests/net tests/stack --durations=20 --junitxml=$(REPORTS)/host.xml
	tests/netem_kernel/run python -m pytest tests/net tests/stack/test_model.py \
	    tests/stack/test_shaping.py tests/stack/test_links.py --durations=20 \
	    --junitxml=$(REPORTS)/netem.xml

bench:
	@python -m benchmarks.selection
	python -m benchmarks.batching
	python -m benchmarks.metrics

down:
	@wdmoe down
