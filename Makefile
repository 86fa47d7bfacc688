# Two commands matter: `make demo` and `make test`. Each sets up everything it needs, in ./.venv.
PYTHON ?= python3
VENV   ?= .venv
LOWEST := .venv-lowest
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help demo test test-all test-lowest browser lint fix docs setup clean

help:
	@echo "make demo         export, serve, judge and report on the embedded model (build/demo/)"
	@echo "make test         lint, types and all tests but the slow ones"
	@echo "make test-all     the slow tests and test-lowest too"
	@echo "make test-lowest  serving's tests with the oldest libraries that pyproject.toml allows"
	@echo "make browser      Chromium for the tests of pages, by apt-get; without one they are skipped"
	@echo "make lint         style, spelling, wording and types only"
	@echo "make fix          mend what the linters can mend themselves"
	@echo "make docs         the documentation as a site, in build/site/"
	@echo "make clean        remove build/, $(VENV)/ and $(LOWEST)/"

TWO := -n 2 --dist loadfile
# Real servers, browsers and clocks are at work: a test that a busy machine disturbed passes by itself; a fault fails again.
again = { echo "==> Once more and by themselves, the tests that failed"; $(1) --last-failed --last-failed-no-failures none --maxfail 5; }

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "elude needs Python 3.11 or newer; this is $$($(PYTHON) --version). Run: make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "==> Setting up $(VENV) (a minute or two, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $@

demo: $(READY)
	@$(BIN)/elude demo --out build/demo

lint: $(READY)
	@echo "==> Style"
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet .
	@echo "==> Spelling and wording"
	@git ls-files -z -- '*.py' '*.md' '*.toml' '*.yml' '*.js' '*.j2' | xargs -0 $(BIN)/codespell && $(BIN)/python tests/prose.py
	@echo "==> Types"
	@$(BIN)/mypy

fix: $(READY)
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet . ; echo "What ruff can mend is mended; make lint says what is left."

docs: $(READY)
	@$(BIN)/zensical build --strict && echo "Open build/site/index.html"

test: lint
	@echo "==> Tests"
	@$(BIN)/pytest $(TWO) -m "not slow" || $(call again,$(BIN)/pytest)

$(LOWEST)/.ready: $(READY) pyproject.toml tests/lowest.py
	@echo "==> Setting up $(LOWEST) (a minute, once)"
	@$(BIN)/python tests/lowest.py $(LOWEST)
	@touch $@

test-lowest: $(LOWEST)/.ready
	@echo "==> Serving with the lowest versions"
	@$(LOWEST)/bin/python -m pytest $(TWO) -m "not slow" tests/handlers tests/attacks/test_hostile_*.py \
	  || $(call again,$(LOWEST)/bin/python -m pytest)

test-all: test test-lowest
	@echo "==> Slow tests"
	@$(BIN)/pytest $(TWO) -m slow || $(call again,$(BIN)/pytest)

browser:
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null || command -v google-chrome > /dev/null \
	  || { echo "==> Installing Chromium" && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium > /dev/null; }

clean:
	rm -rf build $(VENV) $(LOWEST)
