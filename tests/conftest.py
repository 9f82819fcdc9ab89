"""Fixtures of every test session."""

from __future__ import annotations

import multiprocessing
import signal
import types

import pytest
import torch
from toys.server import served_context, stop_server
from toys.tasks import register_toys

from fsrl_ext.data import transport


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _signals_as_in_a_terminal():
    """Undoes what ``nohup`` and a shell's ``&`` do, which let a process ignore some signals."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def _toy_tasks():
    register_toys()


@pytest.fixture(autouse=True, scope="session")
def _processes_come_from_a_server():
    """Spares the processes that collect and play beside the learner their imports.

    The fixture ``new_interpreters`` lets them start as they do for a user.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "multiprocessing", types.SimpleNamespace(get_context=served_context))
        yield
    stop_server()


@pytest.fixture
def new_interpreters(monkeypatch):
    """Lets processes start with a new interpreter each, as they do for a user."""
    monkeypatch.setattr(transport, "multiprocessing", multiprocessing)
