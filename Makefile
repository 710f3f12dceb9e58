# make demo: the main job.  make test: the tests.  Both set up .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

SOURCES := pyproject.toml setup.py $(wildcard fastdrop/*.pyx fastdrop/*.h fastdrop/kernels/*)

.PHONY: demo test clean

demo: $(VENV)/.plot
	$(BIN)/fastdrop train --out demo

test: $(VENV)/.test
	$(BIN)/python -m pytest

# an editable install with the extra of the stamp's name, anew when a source of the build changes
$(VENV)/.%: $(SOURCES) | $(VENV)/.tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(VENV)/.tools:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "$(PYTHON) is missing: install Python 3.11 or later, or say make PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is too old: fastdrop needs Python 3.11 or later (make PYTHON=...)"; exit 2; }
	@command -v $(firstword $(CC)) >/dev/null || { \
	    echo "a C compiler is missing: install gcc or clang (Debian: apt install build-essential)"; exit 2; }
	@$(PYTHON) -c 'import sysconfig, pathlib, sys; \
	    sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' || { \
	    echo "Python.h is missing: install Python's headers (Debian: apt install python3-dev)"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' || { \
	    echo "venv is missing: install it (Debian: apt install python3-venv)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) build dist demo *.egg-info fastdrop/_core.c fastdrop/*.so
