"""Fixtures of every test session."""

from __future__ import annotations

import pytest
import torch
from toys.tasks import register_toys


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _toy_tasks():
    register_toys()
