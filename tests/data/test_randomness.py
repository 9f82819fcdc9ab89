"""The global generators go on from where they were."""

import random

import numpy as np
import torch

from fsrl_ext.data.randomness import GlobalRandomness


def draws():
    # The global generator is what is tested.
    numbers = [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()]  # noqa: NPY002
    return [*numbers, torch.rand(1).item(), torch.randn(1).item()]


def test_what_is_drawn_after_loading_is_what_was_drawn_after_saving():
    draws()
    state = GlobalRandomness().state_dict()
    expected = draws()
    assert draws() != expected
    GlobalRandomness().load_state_dict(state)
    assert draws() == expected
