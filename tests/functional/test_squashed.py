"""Squashed Gaussians against torch's own and against a numerical integral."""

import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from fsrl_ext.functional.gaussian import squash


def test_density_agrees_with_torch():
    torch.manual_seed(0)
    mean, std, noise = torch.randn(3, 64, 3).double()
    std = std.abs() + 0.1
    act, log_prob = squash(mean, std, noise)
    reference = TransformedDistribution(Independent(Normal(mean, std), 1), TanhTransform(cache_size=1))
    raw = mean + std * noise
    torch.testing.assert_close(act, raw.tanh())
    # Through torch's cache: an atanh of the rounded action would lose digits.
    transformed = reference.transforms[0](raw)
    torch.testing.assert_close(log_prob, reference.log_prob(transformed))


def test_density_integrates_to_one():
    mean, std = torch.tensor([[0.4]]).double(), torch.tensor([[0.7]]).double()
    act = torch.linspace(-1 + 1e-6, 1 - 1e-6, 200_001).double()[:, None]
    noise = (act.atanh() - mean) / std
    _, log_prob = squash(mean.expand_as(noise), std.expand_as(noise), noise)
    assert abs(torch.trapezoid(log_prob.exp(), act[:, 0]).item() - 1) < 1e-4


def test_gradients_by_finite_differences():
    torch.manual_seed(1)
    noise = torch.randn(5, 2).double()
    inputs = (torch.randn(5, 2).double().requires_grad_(), (torch.rand(5, 2).double() + 0.2).requires_grad_())
    assert torch.autograd.gradcheck(lambda mean, std: squash(mean, std, noise), inputs)


def test_far_from_the_middle_everything_stays_finite():
    mean = torch.tensor([[-80.0], [80.0]], requires_grad=True)
    act, log_prob = squash(mean, torch.full((2, 1), 0.5), torch.randn(2, 1))
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(mean.grad).all()
    assert act.abs().max() <= 1
