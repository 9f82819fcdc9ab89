# Everything needed is Python 3.11 or 3.12, git and make; the first target that is called installs the rest.
# Without such a Python, uv fetches 3.11 where it is installed.
VENV ?= .venv
PYTHON ?= $(shell for name in python3.11 python3.12 python3 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
	&& command -v $$name && break; done)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install train test check docs clean

install: $(STAMP)

# torch goes first: the version in constraints.txt is fixed before anything else asks for "torch".
# safety-gymnasium 1.0.0 pins a pygame without wheels, and on Python 3.12 bullet-safety-gym a pybullet without
# wheels, so they go in without their dependency lists; the extras have what they really need.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@if [ -x $(BIN)/python ]; then true; \
	elif [ -n "$(PYTHON)" ]; then "$(PYTHON)" -m venv $(VENV); \
	elif command -v uv >/dev/null; then uv venv --quiet --seed --python 3.11 $(VENV); \
	else echo "Python 3.11 or 3.12 is needed: install it, or uv (pip install uv), which fetches one" >&2; exit 1; fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bullet,safety,sweep,export,dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt safety-gymnasium gymnasium-robotics bullet-safety-gym
	touch $(STAMP)

train: $(STAMP)
	$(BIN)/fsrl-ext train cvpo SafetyCarCircle-v0 --cost-limit 10 --steps 150000 --seed 0 --out runs

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

docs: $(STAMP)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -E -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf $(VENV) build docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache
