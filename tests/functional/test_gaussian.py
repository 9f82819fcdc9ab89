"""Diagonal and squashed Gaussians agree with ``torch.distributions`` and a numerical integral."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution
from torch.distributions import kl_divergence as reference

from fsrl_ext.functional.gaussian import (
    entropy,
    kl_divergence,
    log_density,
    sample_actions,
    squash,
    stratified_noise,
)


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


def test_squashed_density_agrees_with_torch():
    torch.manual_seed(0)
    mean, std, noise = torch.randn(3, 64, 3).double()
    std = std.abs() + 0.1
    act, log_prob = squash(mean, std, noise)
    reference = TransformedDistribution(Independent(Normal(mean, std), 1), TanhTransform(cache_size=1))
    raw = mean + std * noise
    torch.testing.assert_close(act, raw.tanh())
    # torch's cache keeps raw: an atanh of the rounded action would lose digits.
    transformed = reference.transforms[0](raw)
    torch.testing.assert_close(log_prob, reference.log_prob(transformed))


def test_squashed_density_integrates_to_one():
    mean, std = torch.tensor([[0.4]]).double(), torch.tensor([[0.7]]).double()
    act = torch.linspace(-1 + 1e-6, 1 - 1e-6, 200_001).double()[:, None]
    noise = (act.atanh() - mean) / std
    _, log_prob = squash(mean.expand_as(noise), std.expand_as(noise), noise)
    assert abs(torch.trapezoid(log_prob.exp(), act[:, 0]).item() - 1) < 1e-4


def test_gradients_of_squashed_actions_by_finite_differences():
    torch.manual_seed(1)
    noise = torch.randn(5, 2).double()
    inputs = (torch.randn(5, 2).double().requires_grad_(), (torch.rand(5, 2).double() + 0.2).requires_grad_())
    assert torch.autograd.gradcheck(lambda mean, std: squash(mean, std, noise), inputs)


def test_squashed_actions_far_from_the_middle_stay_finite():
    mean = torch.tensor([[-80.0], [80.0]], requires_grad=True)
    act, log_prob = squash(mean, torch.full((2, 1), 0.5), torch.randn(2, 1))
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(mean.grad).all()
    assert act.abs().max() <= 1


def test_stratified_noise_has_one_sample_in_every_interval():
    noise = stratified_noise((50, 8, 3), generator=torch.Generator().manual_seed(0))
    assert noise.shape == (50, 8, 3)
    assert noise.is_contiguous()
    intervals = torch.special.ndtr(noise.double()).mul(8).floor().sort(1).values
    assert torch.equal(intervals, torch.arange(8.0).double()[None, :, None].expand(50, 8, 3))


def test_each_stratified_sample_is_standard_normal_and_its_dimensions_are_independent():
    noise = stratified_noise((4000, 4, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for sample in range(4):
        for dim in range(2):
            assert stats.kstest(noise[:, sample, dim].numpy(), "norm").pvalue > 1e-3
        assert abs(stats.pearsonr(*noise[:, sample].T.numpy()).statistic) < 0.05
    # Samples of a row exclude each other's intervals, so they are correlated, by -1 / (N - 1) in their ranks.
    ranks = noise[:, :2, 0].argsort(1).double()
    assert abs(ranks[:, 0].mean() - 0.5) < 0.05


def test_stratified_samples_make_means_less_noisy():
    """A mean over 8 stratified samples has less variance than one over 64 independent samples."""
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.zeros(4000, 2), torch.ones(4000, 2)

    def variance(count, stratified):
        actions = sample_actions(mean, std, count, generator, stratified=stratified)
        values = (0.3 * actions).exp().sum(-1).mean(1)
        exact = 2 * math.exp(0.3**2 / 2)
        assert values.mean().item() == pytest.approx(exact, abs=5 * values.std().item() / math.sqrt(4000))
        return values.var().item()

    assert variance(8, True) < variance(64, False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", ["smallest", "largest"])
def test_stratified_noise_is_finite_at_the_ends(monkeypatch, dtype, value):
    uniform = 0.0 if value == "smallest" else 1.0 - torch.finfo(dtype).eps / 2
    monkeypatch.setattr(torch, "rand", lambda *shape, **kwargs: torch.full(shape, uniform, dtype=dtype))
    assert stratified_noise((1, 8, 2), dtype=dtype).isfinite().all()
