"""Compare the observation normaliser with NumPy."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from fsrl_ext.net import ObservationNormaliser


def test_the_normaliser_adds_up_batches():
    rng = np.random.default_rng(0)
    batches = [rng.normal(3.0, [0.1, 5.0], (n, 2)).astype(np.float32) for n in (1, 40, 300)]
    normaliser = ObservationNormaliser(2)
    first = torch.tensor([[1.0, -2.0]])
    torch.testing.assert_close(normaliser(first), first, rtol=1e-6, atol=0)
    for batch in batches:
        normaliser.update(torch.from_numpy(batch))
    together = np.concatenate(batches).astype(np.float64)
    np.testing.assert_allclose(normaliser.mean, together.mean(0), rtol=1e-12)
    np.testing.assert_allclose(normaliser.variance, together.var(0), rtol=1e-10)
    seen = normaliser(together)
    assert seen.dtype == torch.float32
    np.testing.assert_allclose(seen.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(seen.std(0, correction=0), 1.0, rtol=1e-4)
    assert normaliser(np.full((1, 2), 1e6)).abs().max() == 10.0
    other = ObservationNormaliser(2)
    other.load_state_dict(normaliser.state_dict())
    assert torch.equal(other(together), seen)


def test_a_settled_normaliser_does_not_change():
    normaliser = ObservationNormaliser(2, horizon=3)
    assert not normaliser.settled
    normaliser.update(torch.randn(4, 2))
    assert normaliser.settled
    before = {key: value.clone() for key, value in normaliser.state_dict().items()}
    normaliser.update(torch.randn(4, 2))
    assert all(torch.equal(value, before[key]) for key, value in normaliser.state_dict().items())


@pytest.mark.parametrize("constant", [0.0, 1e-3, -0.5, 9.81, 3e4])
def test_an_entry_that_never_varied_is_not_blown_up_when_it_varies(constant):
    normaliser = ObservationNormaliser(1)
    normaliser.update(torch.full((1000, 1), constant))
    assert normaliser(torch.tensor([[constant]])).abs() <= 1e-6
    # float32 leaves up to half a unit in the last place of the constant's mean.
    moved = normaliser(torch.tensor([[constant + 1.0]]))
    np.testing.assert_allclose(moved, 1 / max(1.0, abs(constant)), rtol=1e-3)


def test_rounding_of_a_constant_is_not_taken_for_variation():
    rng = np.random.default_rng(0)
    obs = (1000 + rng.normal(0, 2e-5, (1000, 1))).astype(np.float32)
    assert obs.std() > 0
    normaliser = ObservationNormaliser(1)
    normaliser.update(torch.from_numpy(obs))
    np.testing.assert_allclose(normaliser(torch.tensor([[1001.0]])), 1e-3, rtol=1e-2)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1e-3), (1e-3, 3e-4), (1.0, 1e-3), (1000.0, 0.1), (0.0, 1e3)])
def test_small_variation_that_is_real_is_scaled(mean, std):
    obs = np.random.default_rng(0).normal(mean, std, (5000, 1)).astype(np.float32)
    normaliser = ObservationNormaliser(1)
    normaliser.update(torch.from_numpy(obs))
    np.testing.assert_allclose(normaliser(obs).std(), 1.0, rtol=0.06)


def test_one_observation_scales_nothing_up():
    normaliser = ObservationNormaliser(3)
    normaliser.update(torch.tensor([[0.0, 0.5, -20.0]]))
    seen = normaliser(torch.tensor([[0.1, 0.6, -18.0]]))
    np.testing.assert_allclose(seen, [[0.1, 0.1, 0.1]], rtol=1e-5)


def test_statistics_that_were_saved_before_load_and_act_the_same():
    saved = {
        "count": torch.tensor(360_000.0, dtype=torch.float64),
        "mean": torch.tensor([9.81, 0.09], dtype=torch.float64),
        "variance": torch.tensor([0.0, 2.68], dtype=torch.float64),
    }
    normaliser = ObservationNormaliser(2)
    normaliser.load_state_dict(saved)
    obs = torch.tensor([[9.81, 1.5]])
    before = ((obs - saved["mean"].float()) * (saved["variance"] + 1e-8).rsqrt().float()).clamp(-10, 10)
    assert torch.equal(normaliser(obs), before)
    assert set(normaliser.state_dict()) == set(saved)


def test_what_a_normaliser_keeps_follows_its_buffers():
    # The factors are kept between two calls.
    normaliser, obs = ObservationNormaliser(2), torch.tensor([[1.0, 2.0], [3.0, -4.0], [5.0, 0.0]])
    before = normaliser(obs)
    normaliser.update(obs)
    after = normaliser(obs)
    assert not torch.equal(after, before)
    other, copied = ObservationNormaliser(2), deepcopy(normaliser)
    assert torch.equal(other(obs), before)
    other.load_state_dict(normaliser.state_dict())
    assert torch.equal(other(obs), after)
    assert torch.equal(copied(obs), after)
    copied.update(2.0 * obs)
    assert not torch.equal(copied(obs), after)
    assert torch.equal(normaliser(obs), after)
    assert torch.equal(normaliser.double()(obs), after)
