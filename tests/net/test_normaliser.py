"""Compare the observation normaliser with NumPy."""

import numpy as np
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
