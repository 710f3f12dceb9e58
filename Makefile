# make demo: the main job.  make test: the tests.  Both set up .venv first.
# make test-sanitizers, make test-aarch64: the kernels again, as a developer wants them tested.
# make docs: the site; make figures: its pictures.
# make wheels, make test-wheels: what is released, into dist/ (Debian 12); make sdist: of it, the sources.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# two processes: many tests wait for others that they started
SIDE_BY_SIDE := -n 2 --dist worksteal

SOURCES := pyproject.toml setup.py $(wildcard fastdrop/compiled/*.pyx fastdrop/compiled/*.pxd fastdrop/compiled/*.h \
    fastdrop/compiled/pool.c fastdrop/compiled/kernels/*)

KERNELS := $(wildcard fastdrop/compiled/kernels/*.c)
CTEST := tests/compiled/c/test_kernels.c $(KERNELS) -Ifastdrop/compiled -std=c11 -Wall -Wextra -Werror -ffp-contract=off
# the tests that reach compiled code in all its ways; the others would only repeat that, slowly
SANITIZED := tests/masks tests/layers tests/compiled tests/test_recorded.py tests/test_numpy_errors.py \
    $(patsubst %,tests/training/test_%.py,batches blocks changed_in_place losses models optimizers)
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -g -O1

.PHONY: demo test bench docs linkcheck figures test-sanitizers test-aarch64 sdist wheels test-wheels clean

# 400 digits, a quarter of them with wrong labels: 7 rates and 5 seeds. docs/reference/results.md tells why.
demo: $(VENV)/.plot $(VENV)/.report
	$(BIN)/python examples/noisy_digits.py demo/digits.npz
	$(BIN)/fastdrop train --data demo/digits.npz --hidden 100,100 --epochs 60 --batch-size 32 \
	    --dropout 0.1,0.2,0.3,0.4,0.5,0.6,0.7 --seeds 5 \
	    --out demo --report demo/report.html --force

test: $(VENV)/.test
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# this machine's figures, with the frameworks that .venv has, into its folder in docs/bench; and
# the tables and pictures of all machines
bench: $(VENV)/.plot
	$(BIN)/fastdrop bench --out docs/bench
	$(BIN)/python benchmarks/readme_table.py
	$(BIN)/python benchmarks/speed_picture.py

# the site, into build/docs; any warning is an error
docs: $(VENV)/.docs
	rm -rf docs/reference/api/generated    # pages of names that are no more
	$(BIN)/python -m sphinx -b html -j auto -E -W --keep-going -n -q docs build/docs

# asks other sites for the pages that ours links to
linkcheck: $(VENV)/.docs
	$(BIN)/python -m sphinx -b linkcheck -q docs build/linkcheck

# the pictures of the documentation that need no long runs
figures: $(VENV)/.plot
	$(BIN)/python benchmarks/speed_picture.py
	$(BIN)/python examples/gallery.py docs/figures/gallery.png
	$(BIN)/python examples/mask_pictures.py docs/figures
	$(BIN)/python benchmarks/shared_masks.py --report docs/results/shared_masks_*.json

# C tests, and the Python tests of compiled code, under AddressSanitizer and
# UndefinedBehaviorSanitizer; threads under ThreadSanitizer (gcc)
test-sanitizers: $(VENV)/.test build/cases.bin
	$(CC) $(CTEST) $(SANITIZE) -lm -o build/test_kernels_asan
	build/test_kernels_asan tests/masks/known_answers.txt build/cases.bin
	$(CC) tests/compiled/c/test_pool.c fastdrop/compiled/pool.c -Ifastdrop/compiled -std=gnu11 -Wall -Wextra -Werror \
	    -fsanitize=thread -g -O1 -pthread -o build/test_pool
	TSAN_OPTIONS=die_after_fork=0 build/test_pool
	rm -rf build/temp.* build/lib.* build/asan    # objects of other flags
	CFLAGS="$(SANITIZE)" $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	    --target build/asan .
	rm -rf build/temp.* build/lib.*
	# libstdc++ beside it, or the first C++ exception of another package ends the process
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so.6)" \
	    ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
	    PYTHONPATH=build/asan $(BIN)/pytest $(SIDE_BY_SIDE) -m "not slow" $(SANITIZED)

# C test built for NEON and run under an emulator
# (Debian: apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static)
test-aarch64: build/cases.bin
	aarch64-linux-gnu-gcc $(CTEST) -O3 -static -lm -o build/test_kernels_aarch64
	qemu-aarch64-static -cpu neoverse-n1 build/test_kernels_aarch64 tests/masks/known_answers.txt build/cases.bin

wheels:
	PYTHON=$(PYTHON) tools/build-wheels

test-wheels:
	PYTHON=$(PYTHON) tools/test-wheels

sdist:
	PYTHON=$(PYTHON) tools/build-wheels sdist

build/cases.bin: tests/compiled/c/make_cases.py tests/reference.py $(VENV)/.test
	@mkdir -p build
	$(BIN)/python tests/compiled/c/make_cases.py $@

# an editable install, anew when a source of the build changes
$(VENV)/.installed: $(SOURCES) | $(VENV)/.tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# what the extra of the stamp's name brings to that
$(VENV)/.%: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'fastdrop-nn[$*]'
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

# what all targets and .ci/run have made, but bench's figures, which are tracked
clean:
	rm -rf $(VENV) .venv-installed .venv-newest-jax \
	    build dist demo fastdrop_nn.egg-info \
	    docs/_inventories docs/tutorials docs/reference/api/generated docs/sg_execution_times.rst \
	    fastdrop/compiled/_*.c fastdrop/compiled/_*.so \
	    .hypothesis tests/.hypothesis .mypy_cache .pytest_cache .ruff_cache __pycache__
	find fastdrop tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +
	find . -maxdepth 1 -name .benchmarks -empty -delete    # not with what somebody saved there
