"""Against ``torch.distributions``, and the KL divergence's curvature."""

import torch
from torch.distributions import Independent, Normal
from torch.distributions import kl_divergence as reference

from fsrl_ext.functional.gaussian import entropy, kl_divergence, log_density


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(7, 3, dtype=torch.float64, generator=generator)
    return mean, torch.rand(7, 3, dtype=torch.float64, generator=generator) + 0.1


def test_density_divergence_and_entropy_are_those_of_torch():
    (mean, std), (other_mean, other_std), act = draw(0), draw(1), draw(2)[0]
    p, q = Independent(Normal(mean, std), 1), Independent(Normal(other_mean, other_std), 1)
    torch.testing.assert_close(log_density(mean, std, act), p.log_prob(act))
    torch.testing.assert_close(kl_divergence(mean, std, other_mean, other_std), reference(p, q))
    torch.testing.assert_close(entropy(std), p.entropy())


def test_divergence_vanishes_with_its_gradient_between_equals():
    mean, std = (x.requires_grad_() for x in draw(0))
    divergence = kl_divergence(mean.detach(), std.detach(), mean, std)
    assert torch.equal(divergence, torch.zeros(7, dtype=torch.float64))
    for gradient in torch.autograd.grad(divergence.sum(), (mean, std)):
        assert gradient.abs().max() < 1e-14
