# What a person runs; each target makes the environment first where it is missing or requirements.lock is newer.
SHELL := bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: setup demo test lint lint-style lint-types lint-rules docs dist test-wheel bench example dvc-without-git
setup: .venv/complete dvc-without-git

# Snakemake, since DVC runs one stage after the other: as many models train at a time as there are cores.
demo: setup
	snakemake --cores all --rerun-incomplete --quiet rules progress host -- reports/demo/index.html
	acf report --experiment demo

test: setup
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 40 --durations-min 3

# `make -j lint` checks types and rules side by side.
lint: lint-style lint-types lint-rules
lint-style: setup
	ruff check . && ruff format --check .
lint-types: setup
	mypy
lint-rules: setup
	snakefmt --check Snakefile workflow && snakemake --lint

# The documentation as a site, in site/; any warning is an error. Its notebook is executed, which takes a minute.
docs: setup
	python -m mkdocs build --quiet

# The sdist and the wheel, in dist/.
dist: setup
	python -m build --no-isolation

# What is in both, and the wheel in an environment of its own.
test-wheel: setup
	OMP_NUM_THREADS=1 pytest -m wheel tests/wheel

# `startup` asks both engines about the demo; `sampling` and `evaluation` measure the flows named here.
bench: demo
	pip install --quiet --no-deps --no-build-isolation -r benchmarks/requirements.txt
	acf prepare --dataset fashion-mnist
	dvc repro report@demo train-digits@{resflow,acf-l2,acf-dot,acf-sinkhorn}-0 \
	  train-digits-dense@idensenet{,-l2,-dot,-sinkhorn}-0
	for name in training_step operations peer scaling startup shared_machine sampling evaluation conversion performance; do \
	  python benchmarks/$$name.py || exit; done

# The model that ships with the package, which is trained and evaluated where that has not been done.
example: setup
	dvc repro evaluate-digits@acf-sinkhorn-0
	acf export --experiment digits --variant acf-sinkhorn --seed 0 --licence mit --replace --to src/acf/examples/digits

# DVC asks for git; a copy without it (an unpacked archive) is told to it once, in a file that git would ignore.
dvc-without-git: .venv/complete
	git rev-parse --git-dir > /dev/null 2>&1 || dvc config --local core.no_scm true

# Python compiles a module when it is first imported, which most of those installed never are.
.venv/complete: requirements.lock pyproject.toml
	python3.11 -m venv .venv && pip install --no-compile -r $< && pip install --no-deps --no-build-isolation -e . && touch $@
