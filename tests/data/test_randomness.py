"""The global generators go on from where they were."""

import random

import numpy as np
import torch

from fsrl_ext.data.randomness import GlobalRandomness, private_randomness, seed_globals


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


def test_a_seed_determines_all_generators():
    seed_globals(2**40 + 7)
    expected = draws()
    assert draws() != expected
    seed_globals(2**40 + 7)
    assert draws() == expected


def test_private_draws_depend_on_their_seed_alone_and_change_nothing():
    seed_globals(1)
    expected = draws()
    seed_globals(1)
    with private_randomness(5):
        private = draws()
    assert draws() == expected != private
    with private_randomness(5):
        assert draws() == private
