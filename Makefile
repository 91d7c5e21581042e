# glmasr: `make` lists what there is; settings are Hydra overrides in ARGS="…".
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
ARGS ?=
# OpenMP threads that spin for ever cost 3-5x on a shared machine, threads that never spin 1.5x on a quiet one.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 20000
export PYTHONUNBUFFERED = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export ORT_DISABLE_TELEMETRY = 1

help:  ## this list
	@echo 'make TARGET [ARGS="setting=value …"]   e.g. make pretrain ARGS="data=folder data.path=/my/audio name=mine"'
	@grep -hE '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z_-]+):.*## (.*)/  \1\t\2/' | expand -t 20

setup: $(VENV)/.installed  ## a virtual environment with everything in it

$(VENV)/.installed: pyproject.toml
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): torch and the rest, some 7 GB, a few minutes"
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: setup  ## the whole way on real speech: pretrain, fine-tune twice, benchmark against Whisper
	$(PY) scripts/pretrain.py name=demo/pretrain
	$(PY) scripts/finetune.py name=demo/scratch bundle=null
	$(PY) scripts/finetune.py name=demo/pretrained bundle=runs/demo/pretrain/bundle
	$(PY) scripts/benchmark.py name=demo 'bundle=[runs/demo/scratch/bundle,runs/demo/pretrained/bundle]'
	@echo 'The report: runs/demo/report/report.html (and .md, .json)'

prepare: setup  ## a corpus verified and measured: catalog and data report (conf/prepare.yaml)
	$(PY) scripts/prepare.py $(ARGS)

shards: setup  ## a corpus packed for a cluster or other toolkits (conf/shards.yaml)
	$(PY) scripts/shards.py $(ARGS)

clusters: setup  ## a codebook that pretrainings share (conf/clusters.yaml)
	$(PY) scripts/clusters.py $(ARGS)

pretrain: setup  ## an encoder from unlabelled audio (conf/pretrain.yaml)
	$(PY) scripts/pretrain.py $(ARGS)

bundle: setup  ## the encoder of a pretraining that is under way, to fine-tune (conf/bundle.yaml)
	$(PY) scripts/bundle.py $(ARGS)

finetune: setup  ## a recognizer from a small labelled set (conf/finetune.yaml)
	@if [[ "$(ARGS)" != *bundle=* && "$(ARGS)" != *--* && ! -d runs/pretrain/bundle ]]; then \
	  $(PY) scripts/door.py finetune $(ARGS) || exit; \
	  echo 'Nothing pretrained at runs/pretrain/bundle yet: pretraining first (bundle=null would train from scratch)'; \
	  $(PY) scripts/pretrain.py; fi
	$(PY) scripts/finetune.py $(ARGS)

language_model: setup  ## an n-gram model from text, for decoding.lm (conf/language_model.yaml)
	$(PY) scripts/language_model.py $(ARGS)

benchmark: setup  ## error rates with intervals, against Whisper (conf/benchmark.yaml)
	@if [[ "$(ARGS)" != *bundle=* && "$(ARGS)" != *--* && ! -d runs/finetune/bundle ]]; then \
	  $(PY) scripts/door.py benchmark $(ARGS) || exit; \
	  echo 'Nothing fine-tuned at runs/finetune/bundle yet: fine-tuning first (bundle=DIR takes yours)'; \
	  $(MAKE) --no-print-directory finetune ARGS=; fi
	$(PY) scripts/benchmark.py $(ARGS)

label-efficiency: setup  ## what pretraining is worth, by label budget and seed (conf/label_efficiency.yaml)
	$(PY) scripts/label_efficiency.py $(ARGS)

results: setup  ## the figures and the READMEs' tables from docs/results/*.json
	$(PY) -m glmasr.evaluation.results

transcribe: setup  ## files to text: make transcribe ARGS="--bundle DIR FILE… --format srt"
	$(VENV)/bin/glmasr transcribe $(ARGS)

serve: setup  ## a page, OpenAI's API and live captions: make serve ARGS="--bundle DIR --port 7860" (default: the demo's bundle)
	$(VENV)/bin/glmasr serve $(ARGS)

bench: setup  ## speed beside peers, and docs/benchmarks.md drawn from it (ARGS="--manifest FILE" of 8 utterances and more)
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@mkdir -p benchmarks/results
	$(PY) benchmarks/training.py $(ARGS) --json benchmarks/results/training.json
	$(PY) benchmarks/training.py --loading $(ARGS) --json benchmarks/results/loading.json
	$(PY) benchmarks/inference.py --json benchmarks/results/inference.json
	$(PY) benchmarks/scaling.py --json benchmarks/results/scaling.json
	$(PY) benchmarks/frontend.py --json benchmarks/results/frontend.json
	$(PY) benchmarks/tables.py

plan: setup  ## what a training will take, before it is paid for: make plan ARGS="model=nano data_hours=1000000 gpus=1024 gpu=h100"
	$(PY) scripts/plan.py $(ARGS)

chaos: setup  ## kill -9 of random ranks at random steps, then compare with a run left in peace (ARGS="kills=20")
	$(PY) scripts/chaos.py $(ARGS)

slurm-rehearsal: setup  ## a real SLURM on this machine: every way a job can end, tried (ARGS="TERM limit steps=100")
	$(PY) scripts/slurm_rehearsal.py $(ARGS)

test: setup  ## the tests, on all cores (ARGS="tests/model -k mask")
	$(PY) -m pytest -n auto --maxprocesses 8 --dist loadfile $(ARGS)

check: setup  ## style, types, import directions
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright --pythonpath $(PY)
	$(VENV)/bin/lint-imports

clean:  ## remove caches; runs and corpora stay
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	rm -rf .pytest_cache .ruff_cache .import_linter_cache

.PHONY: help setup demo prepare shards clusters pretrain bundle finetune language_model benchmark label-efficiency results transcribe serve bench plan chaos slurm-rehearsal test check clean
