"""Processes forked from a server that has imported the library, in place of new interpreters.

A new interpreter takes about four seconds of processor time for its imports, a forked process milliseconds.
"""

from __future__ import annotations

import os
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess

import numpy as np
import pytest
import torch

IMPORTED = ["fsrl_ext.experiment"]


class ServedProcess(ForkServerProcess):
    """A process of the server, like a new one in its environment variables and its random numbers.

    What the tests have imported, registered and patched is not in it.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._variables = dict(os.environ)

    def run(self):
        os.environ.clear()
        os.environ.update(self._variables)
        # Processes of one server would begin with the same random numbers, which no two new ones do.
        np.random.seed()  # noqa: NPY002 - the global generator
        torch.seed()
        super().run()


class ServedContext(ForkServerContext):
    """Stands for ``multiprocessing.get_context("spawn")``."""

    Process = ServedProcess


def served_context(method="spawn"):
    """Return the context of the served processes, whose server runs from the first call on.

    :param method: how the library asks for new interpreters.
    """
    assert method == "spawn"
    forkserver.set_forkserver_preload(IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        # The server imports what this process would import, from any current folder.
        patch.setenv("PYTHONPATH", os.pathsep.join(x for x in sys.path if x))
        forkserver.ensure_running()
    return ServedContext()


def stop_server():
    """End the server, if it runs, and wait for it, so that its time counts as that of the tests."""
    forkserver._forkserver._stop()
