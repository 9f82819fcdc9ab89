"""A served process has the library, its own variables and random numbers, and nothing of the tests."""

import os
import sys

import numpy as np
import torch

from toys.server import served_context


def tell(connection):
    draws = float(np.random.random()), float(torch.rand(1))  # noqa: NPY002 - the global generator
    modules = {"fsrl_ext.experiment", "toys.tasks"} & set(sys.modules)
    connection.send((os.environ.get("TOYS_MOMENT"), modules, draws))


def test_a_served_process_is_like_a_new_one(monkeypatch):
    context, told = served_context(), []
    for moment in ("first", "second"):
        monkeypatch.setenv("TOYS_MOMENT", moment)
        here, there = context.Pipe()
        process = context.Process(target=tell, args=(there,))
        process.start()
        there.close()
        told.append(here.recv())
        process.join()
        assert process.exitcode == 0
    assert [x[0] for x in told] == ["first", "second"]
    assert all(x[1] == {"fsrl_ext.experiment"} for x in told)
    assert len({draw for x in told for draw in x[2]}) == 4
