"""What every test file may use."""

from __future__ import annotations

import aim
import pytest
import torch
from toy import DiscreteEnv, EarlyEndEnv, ForgetfulEnv, LineEnv, NoCostEnv

from fsrl_ext.env import register_task


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _toy_tasks():
    """Toy tasks under ids of their own; episodes of 20 steps."""
    rows = {
        "ToyLine-v0": (LineEnv, {}, False),
        "ToyLineTwoCosts-v0": (LineEnv, {"num_costs": 2}, False),
        "ToyLineNaN-v0": (LineEnv, {"nan_at": 100}, False),
        "ToyEarlyEnd-v0": (EarlyEndEnv, {}, True),
        "ToyForgetful-v0": (ForgetfulEnv, {}, False),
        "ToyNoCost-v0": (NoCostEnv, {}, False),
        "ToyDiscrete-v0": (DiscreteEnv, {}, False),
    }
    for name, (cls, kwargs, early) in rows.items():
        register_task(name, entry_point=cls, kwargs=kwargs, can_terminate=early, max_episode_steps=20)
    aim.register()
