# `make run` and `make test` are all a newcomer needs; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# machine: OCR and counting rewards; human: waits for clicks; simulated: simulated people click.
REWARD ?= machine
NAME ?= demo
PORT ?= 8000
# Where pip looks for torch first, e.g. TORCH_INDEX=--index-url=... for a CPU-only build.
TORCH_INDEX ?=
ARGS ?=
# Processes that share the tests' files; auto: as many as there are cores.
TESTS_AT_ONCE ?= auto
STAMP := $(VENV)/.installed

.PHONY: run test test-compose eval soak bench-server bench-ui bench-live bench-clicks bench-surrogate bench-generator bench-gpu lint setup clean
.DEFAULT_GOAL := help

help:
	@echo "make run    train the embedded model against the reward server, end with a report"
	@echo "make run REWARD=human|simulated    the same with likes and dislikes as the reward"
	@echo "make test   all checks and tests"
	@echo "make bench-ui  how fast the labeling page is, in Chromium"
	@echo "make bench-live    two people in Chromium and a trainer: do the pictures become what they like"
	@echo "make bench-clicks    how many clicks it takes to teach a hidden taste"
	@echo "make bench-surrogate    what phi learns from 480 groups; variants side by side"
	@echo "make bench-generator    which step of a run's generator lags behind phi"
	@echo "make test-compose    the stack of containers, for real (docker, about 15 minutes)"
	@echo "make soak   kill servers, scorers and the database under load; account for every item"
	@echo "make bench-gpu   seconds and GB by phase of full-size models on this GPU (ARGS=--tiny: on a CPU)"
	@echo "make bench-server    what the reward server costs over the engine alone"
	@echo "make eval   measure all rows of the table again (long)"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt $(TORCH_INDEX) torch
	$(BIN)/python -m pip install -q -c constraints.txt '.[server,trainer,dev]'
	touch $@

run: $(STAMP)
	$(BIN)/python -m trainer demo --reward $(REWARD) --name $(NAME) --port $(PORT) $(ARGS)

eval: $(STAMP)
	$(BIN)/python -m trainer demo --eval-only --port $(PORT) $(ARGS)

bench-ui: $(STAMP)
	$(BIN)/python -m benchmarks.ui $(ARGS)

bench-live: $(STAMP)
	$(BIN)/python -m benchmarks.live $(ARGS)

bench-clicks: $(STAMP)
	$(BIN)/python -m benchmarks.clicks $(ARGS)

bench-surrogate: $(STAMP)
	$(BIN)/python -m benchmarks.surrogate $(ARGS)

bench-generator: $(STAMP)
	$(BIN)/python -m benchmarks.generator runs/$(NAME) $(ARGS)

soak: $(STAMP)
	$(BIN)/python -m benchmarks.soak $(ARGS)

bench-gpu: $(STAMP)
	$(BIN)/python -m benchmarks.gpu $(ARGS)

bench-server: $(STAMP)
	$(BIN)/python -m benchmarks.server $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-compose: $(STAMP)
	TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/python -m tests.compose

clean:
	rm -rf $(VENV) build *.egg-info
