"""The M-step's parts agree with torch.distributions and with fits whose answer is known."""

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from fsrl_ext.functional.gaussian import decoupled_kl, sample_actions
from fsrl_ext.functional.mstep import (
    categorical_mstep_loss,
    mstep_loss,
    update_kl_multipliers,
    weighted_moments,
)

B, N, A = 5, 7, 3


def gaussian(seed, full):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(B, A, generator=generator, dtype=torch.float64)
    std = torch.rand(B, A, generator=generator, dtype=torch.float64) + 0.3
    if not full:
        return mean, std
    lower = 0.4 * torch.randn(B, A, A, generator=generator, dtype=torch.float64).tril(-1)
    return mean, lower + torch.diag_embed(std)


def distribution(mean, scale):
    if scale.dim() == 2:
        scale = torch.diag_embed(scale)
    return MultivariateNormal(mean, scale_tril=scale)


def weighted_log_likelihood(weights, actions, mean_old, scale_old, mean, scale):
    """Compute ``mean_i sum_j q_ij [log N(a_ij; mu, Sigma_old) + log N(a_ij; mu_old, Sigma)]`` by samples."""
    samples = actions.transpose(0, 1)
    log_prob = distribution(mean, scale_old).log_prob(samples)
    log_prob = log_prob + distribution(mean_old, scale).log_prob(samples)
    return (weights * log_prob.T).sum(-1).mean()


def unconstrained(weights, actions, mean_old, scale_old, mean, scale):
    """Compute the M-step's loss with both multipliers at zero."""
    moments, none = weighted_moments(weights, actions, mean_old, scale_old), torch.zeros(2).double()
    settings = {"kl": none, "kl_bound": none, "multipliers": none}
    return mstep_loss(moments, mean_old, scale_old, mean, scale, **settings)


@pytest.mark.parametrize("full", [False, True])
def test_decoupled_kl_is_the_kl_with_the_other_part_fixed(full):
    """Each part is KL(old || new) with only the mean, or only the covariance, of the new policy."""
    old, new = gaussian(1, full), gaussian(2, full)
    kl_mean, kl_scale = decoupled_kl(*old, *new)
    reference = distribution(*old)
    only_mean = kl_divergence(reference, distribution(new[0], old[1])).mean()
    only_scale = kl_divergence(reference, distribution(old[0], new[1])).mean()
    torch.testing.assert_close(kl_mean, only_mean)
    torch.testing.assert_close(kl_scale, only_scale)


def test_diagonal_and_full_agree_on_a_diagonal_covariance():
    (mean_old, std_old), (mean, std) = gaussian(3, False), gaussian(4, False)
    diagonal = decoupled_kl(mean_old, std_old, mean, std)
    full = decoupled_kl(mean_old, torch.diag_embed(std_old), mean, torch.diag_embed(std))
    torch.testing.assert_close(diagonal, full)


@pytest.mark.parametrize("full", [False, True])
def test_samples_have_the_gaussians_moments(full):
    mean, scale = gaussian(5, full)
    generator = torch.Generator().manual_seed(0)
    samples = sample_actions(mean, scale, 200_000, generator)
    torch.testing.assert_close(samples.mean(1), mean, atol=0.02, rtol=0)
    covariance = distribution(mean, scale).covariance_matrix
    centred = samples - samples.mean(1, keepdim=True)
    measured = centred.transpose(1, 2) @ centred / samples.shape[1]
    torch.testing.assert_close(measured, covariance, atol=0.03, rtol=0)


@pytest.mark.parametrize("full", [False, True])
def test_maximum_of_the_weighted_likelihood_is_the_weighted_fit(full):
    """The optimum is the weighted mean and the weighted second moment about the *old* mean."""
    mean_old, scale_old = gaussian(6, full)
    generator = torch.Generator().manual_seed(1)
    actions = sample_actions(mean_old, scale_old, 64, generator)
    weights = torch.rand(B, 64, generator=generator, dtype=torch.float64)
    weights = weights / weights.sum(1, keepdim=True)
    mean = torch.einsum("bn,bna->ba", weights, actions)
    centred = actions - mean_old.unsqueeze(1)
    second = torch.einsum("bn,bna,bnc->bac", weights, centred, centred)
    if full:
        scale = torch.linalg.cholesky(second)
    else:
        scale = second.diagonal(dim1=1, dim2=2).sqrt()
    step = unconstrained(weights, actions, mean_old, scale_old, mean, scale)
    gradient = step.grad_scale.tril() if full else step.grad_scale
    torch.testing.assert_close(step.grad_mean, torch.zeros_like(mean), atol=1e-10, rtol=0)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-10, rtol=0)


@pytest.mark.parametrize("full", [False, True])
def test_mean_and_covariance_get_their_own_gradients(full):
    """The mean's gradient does not depend on the new covariance, nor the other way round."""
    mean_old, scale_old = gaussian(7, full)
    mean, scale = gaussian(8, full)
    actions = sample_actions(mean_old, scale_old, N, torch.Generator().manual_seed(2))
    weights = torch.full((B, N), 1.0 / N, dtype=torch.float64)
    problem = weights, actions, mean_old, scale_old
    base = unconstrained(*problem, mean, scale)
    other_mean, other_scale = (
        unconstrained(*problem, mean + 1.0, scale),
        unconstrained(*problem, mean, 3 * scale),
    )
    torch.testing.assert_close(other_scale.grad_mean, base.grad_mean)
    torch.testing.assert_close(other_mean.grad_scale, base.grad_scale)
    assert not torch.allclose(other_mean.grad_mean, base.grad_mean)
    assert not torch.allclose(other_scale.grad_scale, base.grad_scale)


def test_kl_multiplier_moves_with_the_violation_and_never_winds_up():
    alpha, bound = torch.tensor([1.0, 0.0]), torch.tensor([0.1, 0.1])
    speed = {"lr": torch.tensor([0.5, 0.25]), "multiplier_max": torch.tensor([10.0, 20.0])}
    up = update_kl_multipliers(alpha, torch.tensor([0.2, 0.0]), bound, **speed)
    torch.testing.assert_close(up, torch.tensor([1.5, 0.0]))
    # After many slack steps the stored value is zero, so one violated step raises it at once.
    for _ in range(100):
        alpha = update_kl_multipliers(alpha, torch.zeros(2), bound, **speed)
    alpha = update_kl_multipliers(alpha, 3 * bound, bound, **speed)
    torch.testing.assert_close(alpha, torch.tensor([1.0, 0.5]))
    alpha = update_kl_multipliers(alpha, 1e6 * bound, bound, **speed)
    torch.testing.assert_close(alpha, torch.tensor([10.0, 20.0]))


def test_kl_multiplier_survives_a_non_finite_kl_and_mutates_nothing():
    alpha = torch.tensor([0.5, 0.7])
    kept = alpha.clone()
    kl = torch.tensor([float("nan"), float("inf")])
    out = update_kl_multipliers(
        alpha, kl, torch.ones(2), lr=torch.ones(2), multiplier_max=torch.tensor([5.0, 5.0])
    )
    torch.testing.assert_close(out, kept)
    torch.testing.assert_close(alpha, kept)


@pytest.mark.parametrize("full", [False, True])
def test_mstep_loss_and_gradients_are_those_of_the_likelihood_and_the_penalties(full):
    mean_old, scale_old = gaussian(0, full)
    mean, scale = (x.requires_grad_() for x in gaussian(1, full))
    actions = sample_actions(mean_old, scale_old, N)
    weights = torch.rand(B, N, dtype=torch.float64).softmax(-1)
    bounds, multipliers = torch.tensor([0.01, 0.002]).double(), torch.tensor([0.7, 3.0]).double()
    kl = torch.stack(decoupled_kl(mean_old, scale_old, mean, scale))
    likelihood = weighted_log_likelihood(weights, actions, mean_old, scale_old, mean, scale)
    expected = -likelihood + multipliers @ (kl - bounds)
    gradients = torch.autograd.grad(expected, (mean, scale))
    with torch.no_grad():
        step = mstep_loss(
            weighted_moments(weights, actions, mean_old, scale_old),
            mean_old,
            scale_old,
            mean,
            scale,
            kl=kl,
            kl_bound=bounds,
            multipliers=multipliers,
        )
    torch.testing.assert_close(step.loss, expected.detach())
    torch.testing.assert_close(step.grad_mean, gradients[0])
    # Entries above a Cholesky factor's diagonal are zeros of the actor and have no gradient.
    torch.testing.assert_close(
        step.grad_scale.tril() if full else step.grad_scale, gradients[1].tril() if full else gradients[1]
    )


@pytest.mark.parametrize("full", [False, True])
def test_with_known_moments_uniform_weights_have_no_noise(full):
    """Weights that change nothing leave exactly the Gaussian's own moments, whatever the samples are."""
    mean, scale = gaussian(11, full)
    actions = sample_actions(mean, scale, N, torch.Generator().manual_seed(0))
    weights = torch.full((B, N), 1 / N, dtype=torch.float64)
    moments = weighted_moments(weights, actions, mean, scale, control_variate=True)
    covariance = scale @ scale.mT if full else scale.square()
    torch.testing.assert_close(moments.first, torch.zeros_like(mean), atol=1e-14, rtol=0)
    torch.testing.assert_close(moments.second, covariance)


@pytest.mark.parametrize("full", [False, True])
def test_known_moments_change_no_expectation_and_reduce_noise(full):
    mean, scale = (x[:1].expand(20_000, *x.shape[1:]) for x in gaussian(12, full))
    actions = sample_actions(mean, scale, 8, torch.Generator().manual_seed(1))
    weights = (0.4 * actions.sum(-1)).softmax(-1)
    plain, known = (weighted_moments(weights, actions, mean, scale, control_variate=x) for x in (False, True))
    for one, other in zip(plain, known, strict=True):
        error = (one.std(0) + other.std(0)) / one.shape[0] ** 0.5
        assert ((one.mean(0) - other.mean(0)).abs() < 4 * error).all()
        assert (other.std(0) < 0.75 * one.std(0)).all()


def categorical(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, A, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("alpha", [0.0, 1.7])
def test_the_gradient_in_the_logits_is_that_of_the_loss(alpha):
    """For discrete actions, against automatic differentiation of the loss as it is written."""
    weights, log_old = categorical(1).softmax(-1), categorical(2).log_softmax(-1)
    logits = categorical(3).requires_grad_()
    log_probs = logits.log_softmax(-1)
    kl = (log_old.exp() * (log_old - log_probs)).sum(-1).mean()
    loss = -(weights * log_probs).sum(-1).mean() + alpha * (kl - 0.01)
    step = categorical_mstep_loss(
        weights,
        log_old,
        log_probs.detach(),
        kl=kl.detach().reshape(1),
        kl_bound=torch.tensor([0.01], dtype=torch.float64),
        multipliers=torch.tensor([alpha], dtype=torch.float64),
    )
    torch.testing.assert_close(step.loss, loss.detach())
    torch.testing.assert_close(step.grad_logits, torch.autograd.grad(loss, logits)[0])


def test_the_best_probabilities_are_the_weights_and_lie_between_them_and_the_old_ones_with_a_multiplier():
    weights, log_old = categorical(4).softmax(-1), categorical(5).log_softmax(-1)
    none = torch.zeros(1, dtype=torch.float64)
    for alpha in (0.0, 3.0):
        best = (weights + alpha * log_old.exp()) / (1.0 + alpha)
        step = categorical_mstep_loss(
            weights, log_old, best.log(), kl=none, kl_bound=none, multipliers=none + alpha
        )
        torch.testing.assert_close(step.grad_logits, torch.zeros_like(best), atol=1e-12, rtol=0)
