# make demo   the main job on a real alloy, from nothing to a report
# make test   lint, types and all tests
# make docs   every code block and example, then the pages
# make dist   wheel and source archive, of the version that the git tag says
#
# All need Python 3.11 or newer, nothing else; they create and fill .venv by themselves.
# Another Python:            make test PYTHON=python3.12
# More arguments for pip:    make test PIP_ARGS="--proxy ..."
# Some of the tests:         make test PYTEST_ARGS="tests/crystal -k hcp"

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
PYTEST_WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
DEMO_STUDY := examples/cu70ni30.toml
DEMO_OUT := demo-output
OS_RELEASE := /etc/os-release

PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
RUFF_CHECK = $(BIN)/python -m ruff check .
RUFF_FORMAT = $(BIN)/python -m ruff format --check .
MYPY = $(BIN)/python -m mypy ase_kinoson

# $(call check_python,COMMAND) fails with one sentence unless COMMAND is Python 3.11 or newer.
define check_python
@command -v $(1) >/dev/null 2>&1 || { \
	echo "error: no command '$(1)' found; ase_kinoson needs Python 3.11 or newer: install it, or name it, as in 'make $(or $(MAKECMDGOALS),test) PYTHON=python3.12'" >&2; exit 1; }
@$(1) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "error: '$(1)' is $$($(1) --version 2>&1), but ase_kinoson needs Python 3.11 or newer: name one, as in 'make $(or $(MAKECMDGOALS),test) PYTHON=python3.12' (remove $(VENV) first if it holds the old one)" >&2; exit 1; }
endef

# The report is tested in a headless browser. Debian's is installed where that can be done without asking anybody;
# where there is none, that test is skipped. Another one is named as in ASE_KINOSON_BROWSER=/opt/chrome/chrome.
define browser
@for b in "$$ASE_KINOSON_BROWSER" chromium chromium-browser google-chrome google-chrome-stable; do \
	[ -n "$$b" ] && command -v "$$b" >/dev/null 2>&1 && exit 0; done; \
if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && grep -q '^ID=debian' $(OS_RELEASE) 2>/dev/null; then \
	echo "Installing chromium, which the report is tested in"; \
	{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core; } \
		>$(VENV)/browser.log 2>&1 || echo "chromium could not be installed (see $(VENV)/browser.log): the report is not tested in a browser"; \
else echo "No chromium or google-chrome found: the report is not tested in a browser (install one, or name it in ASE_KINOSON_BROWSER)"; fi
endef

.DELETE_ON_ERROR:
.PHONY: help browser demo test test-lowest test-newest test-plain coverage mutants reliability lint types docs dist clean

help:
	@echo "make demo    run the main job on Cu70Ni30 and say where the report is"
	@echo "make test    lint, types and all tests, warnings as errors"
	@echo "make test-lowest, make test-newest   the tests with the lowest versions accepted, and with the newest there are"
	@echo "make test-plain   the tests without any optional package"
	@echo "make coverage     which lines the tests run; fails below 95 % of a package of the physics"
	@echo "make mutants      how many small changes of three central files the tests see (an hour)"
	@echo "make reliability  faults, hostile files, properties, mutants and error bars, counted (two hours)"
	@echo "make lint    ruff check and ruff format --check"
	@echo "make types   mypy"
	@echo "make docs    every code block of the pages runs, then the pages as HTML, warnings as errors"
	@echo "make dist    wheel and source archive in dist/"
	@echo "make clean   remove what the targets above wrote, .venv included"
	@echo "All of them set up .venv by themselves; choose the Python with PYTHON=python3.12."

$(BIN)/python:
	$(call check_python,$(PYTHON))
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "error: '$(PYTHON) -m venv' failed; see the message above (some systems keep the venv module in a package of its own, such as python3-venv)" >&2; exit 1; }

# Installation is stamped: it runs again only when the dependencies change.
$(VENV)/.stamp-demo: pyproject.toml constraints.txt | $(BIN)/python
	$(call check_python,$(BIN)/python)
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.stamp-test: pyproject.toml constraints.txt | $(BIN)/python
	$(call check_python,$(BIN)/python)
	$(PIP_INSTALL) -e ".[test,fast,sqs,dask,maps]"
	@touch $(VENV)/.stamp-demo $@

$(VENV)/.stamp-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(call check_python,$(BIN)/python)
	$(PIP_INSTALL) -e ".[docs,test,fast,sqs,dask,maps]"
	@touch $(VENV)/.stamp-demo $(VENV)/.stamp-test $@

demo: $(VENV)/.stamp-demo
	$(BIN)/ase-kinoson run $(DEMO_STUDY) --out $(DEMO_OUT)
	@echo "The report is $(CURDIR)/$(DEMO_OUT)/report.html"

lint: $(VENV)/.stamp-test
	$(RUFF_CHECK)
	$(RUFF_FORMAT)

types: $(VENV)/.stamp-test
	$(MYPY)

docs: $(VENV)/.stamp-docs
	MPLBACKEND=Agg OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile docs README.md
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html
	@echo "The pages are $(CURDIR)/docs/_build/html/index.html"

dist: $(VENV)/.stamp-test
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

browser: | $(BIN)/python
	$(call browser)

# One recipe, so that the order holds under make -j too and the closing line of pytest comes last.
test: $(VENV)/.stamp-test
	$(RUFF_CHECK)
	$(RUFF_FORMAT)
	$(MYPY)
	$(call browser)
	MPLBACKEND=Agg OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

# Both have environments of their own. What old versions of others warn about new ones is not our business: warnings of
# deprecation are no errors there.
VERSION_TESTS = -m pytest -n $(PYTEST_WORKERS) -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning
EXTRAS = .[test,fast,sqs,dask,maps]

test-lowest:
	$(call check_python,$(PYTHON))
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install $(PIP_ARGS) -c constraints-lowest.txt -e "$(EXTRAS)"
	MPLBACKEND=Agg OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python $(VERSION_TESTS) $(PYTEST_ARGS)

test-newest:
	$(call check_python,$(PYTHON))
	$(PYTHON) -m venv $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install $(PIP_ARGS) --upgrade --upgrade-strategy eager -e "$(EXTRAS)"
	MPLBACKEND=Agg OMP_NUM_THREADS=1 $(VENV)-newest/bin/python $(VERSION_TESTS) $(PYTEST_ARGS)

# What a user has after `pip install ase-kinoson`, and the runner of the tests.
test-plain:
	$(call check_python,$(PYTHON))
	$(PYTHON) -m venv $(VENV)-plain
	$(VENV)-plain/bin/python -m pip install $(PIP_ARGS) -c constraints.txt -e . pytest pytest-xdist hypothesis
	MPLBACKEND=Agg OMP_NUM_THREADS=1 $(VENV)-plain/bin/python -m pytest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

$(VENV)/.stamp-measure: $(VENV)/.stamp-test
	$(PIP_INSTALL) -e ".[measure,test,fast,sqs,dask,maps]"
	@touch $@

# Bodies of loops that numba compiles are not counted (pyproject.toml): no Python runs there.
COVERED = crystal barriers kinetics kinosons
coverage: $(VENV)/.stamp-measure
	rm -f .coverage .coverage.*
	MPLBACKEND=Agg OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --cov --cov-report= $(PYTEST_ARGS)
	$(BIN)/python -m coverage report --skip-covered
	for part in $(COVERED); do $(BIN)/python -m coverage report --include="ase_kinoson/$$part/*" --fail-under=95 --format=total || exit 1; done

mutants: $(VENV)/.stamp-measure
	$(BIN)/python benchmarks/mutants.py

reliability: $(VENV)/.stamp-measure
	$(BIN)/python benchmarks/reliability.py

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(VENV)-plain .coverage .coverage.* $(DEMO_OUT) build dist docs/_build docs/auto_examples docs/generated .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find ase_kinoson tests examples docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
