# Everything needed is Python 3.11, git and make; the first target that is called installs the rest.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install train test check docs clean

install: $(STAMP)

# torch goes first: the version in constraints.txt is fixed before anything else asks for "torch".
# safety-gymnasium 1.0.0 pins a pygame without wheels, so it and gymnasium-robotics go in without
# their dependency lists; the extra [safety] has what they really need.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bullet,safety,sweep,export,dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt safety-gymnasium gymnasium-robotics
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
