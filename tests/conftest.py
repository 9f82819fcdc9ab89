"""Fixtures of every test session."""

from __future__ import annotations

import signal

import pytest
import torch
from toys.tasks import register_toys


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
