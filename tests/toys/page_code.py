"""Runs the Python of the documentation, in a process of its own, because pages register tasks and algorithms.

``python page_code.py PAGE...`` runs the blocks of each page in order, in one namespace for each page, and
writes one line of JSON for each block: page, line, and the error or null. Trainings are cut short.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sys
import traceback
import types
import unittest.mock
from pathlib import Path

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHORT = {
    "steps": 400, "step_per_collect": 200, "num_envs": 2, "hidden_sizes": (8,), "selections": 1,
    "selection_episodes": 1, "selection_min_episodes": 1, "final_episodes": 1, "warmup_steps": 0,
    "num_tasks": 1, "inner_steps": 1,
}  # fmt: skip


def python_blocks(text):
    """The Python blocks of a page, as pairs of line number and code."""
    return [(text.count("\n", 0, block.start(1)) + 1, block[1]) for block in BLOCK.finditer(text)]


@contextlib.contextmanager
def short_trainings(**settings):
    """Shorten trainings, evaluations and adaptations of whoever imports them while the block lasts.

    :param settings: replace those of `SHORT`; ``None`` leaves a setting as it is asked for.
    """
    # The package is imported here, so that tests can import this module for its blocks alone.
    from fsrl_ext import experiment
    from fsrl_ext.experiment.settings import list_settings

    make_config, evaluate = experiment.make_config, experiment.evaluate
    short = {name: value for name, value in {**SHORT, **settings}.items() if value is not None}

    def short_config(policy, task, **settings):
        known = list_settings(policy)
        return make_config(policy, task, **{**settings, **{key: short[key] for key in short.keys() & known}})

    def short_evaluate(run, **settings):
        return evaluate(run, **{**settings, "episodes": 2})

    few = {"episodes": 1, "step_per_collect": 200}
    shortened = {
        "make_config": short_config,
        "evaluate": short_evaluate,
        "adapt": functools.partial(experiment.adapt, **few),
        "evaluate_suite": functools.partial(experiment.evaluate_suite, num_tasks=1, **few),
    }
    with unittest.mock.patch.multiple(experiment, **shortened):
        yield


def run_pages(pages):
    """Yields page, line and traceback (None if there is no error) of every block of the pages."""
    with short_trainings():
        for page in pages:
            module = sys.modules["page"] = types.ModuleType("page")
            for line, code in python_blocks(Path(page).read_text()):
                error = None
                try:
                    # Empty lines before the code let tracebacks name the lines of the page.
                    with contextlib.redirect_stdout(sys.stderr):
                        exec(compile("\n" * (line - 1) + code, str(page), "exec"), module.__dict__)
                except BaseException:
                    error = traceback.format_exc()
                yield str(page), line, error


if __name__ == "__main__":
    for result in run_pages(sys.argv[1:]):
        print(json.dumps(result), flush=True)
