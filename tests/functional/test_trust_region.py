"""Conjugate gradient and Fisher-vector products are exact; a failed line search changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fsrl_ext.functional.conjugate_gradient import FisherVectorProduct, conjugate_gradient, flat_gradient
from fsrl_ext.functional.constrained_step import constrained_step
from fsrl_ext.functional.trust_region import Surrogates, line_search


def spd(size, generator, condition=100.0):
    rotation = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    values = torch.logspace(0, math.log10(condition), size, dtype=torch.float64)
    return rotation @ torch.diag(values) @ rotation.T


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_cg_solves_and_its_residual_is_the_true_one(generator):
    for size in (1, 5, 30):
        matrix, y = spd(size, generator), torch.randn(size, generator=generator, dtype=torch.float64)
        result = conjugate_gradient(matrix.mv, y, max_iterations=10 * size, tolerance=1e-10)
        assert result.status == "converged"
        torch.testing.assert_close(result.solution, torch.linalg.solve(matrix, y), rtol=1e-7, atol=1e-9)
        true = float((matrix @ result.solution - y).norm() / y.norm())
        assert result.residual == pytest.approx(true, abs=1e-13)


def test_cg_stopped_early_says_how_far_it_came(generator):
    matrix, y = spd(30, generator, 1e4), torch.randn(30, generator=generator, dtype=torch.float64)
    result = conjugate_gradient(matrix.mv, y, max_iterations=8)
    assert (result.status, result.iterations) == ("max_iterations", 8)
    true = float((matrix @ result.solution - y).norm() / y.norm())
    assert result.residual == pytest.approx(true, rel=1e-9)
    assert result.residual > 1e-3


def test_cg_degenerate_inputs(generator):
    zero = conjugate_gradient(lambda p: 2 * p, torch.zeros(3))
    assert (zero.status, zero.residual, zero.iterations) == ("converged", 0.0, 0)
    indefinite = conjugate_gradient(lambda p: p * torch.tensor([1.0, -2.0]), torch.tensor([1.0, 0.1]))
    assert indefinite.status == "indefinite"
    assert torch.isfinite(indefinite.solution).all()
    assert conjugate_gradient(lambda p: p * math.nan, torch.ones(2)).status == "non_finite"
    broken = conjugate_gradient(lambda p: p, torch.tensor([1.0, math.nan]))
    assert broken.status == "non_finite"
    assert broken.solution.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="max_iterations must be a whole number >= 1, got 0"):
        conjugate_gradient(lambda p: p, torch.ones(2), max_iterations=0)
    with pytest.raises(ValueError, match="tolerance must be >= 0"):
        conjugate_gradient(lambda p: p, torch.ones(2), tolerance=math.nan)


class Gaussian(nn.Module):
    """A small policy with a mean from a network and a standard deviation that is the same in all states."""

    def __init__(self):
        super().__init__()
        self.forwards = 0
        self.body = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
        self.log_std = nn.Parameter(torch.tensor([-0.5, 0.3], dtype=torch.float64))

    def forward(self, obs):
        self.forwards += 1
        return torch.distributions.Independent(
            torch.distributions.Normal(self.body(obs), self.log_std.exp().expand(len(obs), 2)), 1
        )


@pytest.fixture
def policy():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Gaussian()


def mean_kl(policy, obs):
    new = policy(obs)
    old = torch.distributions.Independent(
        torch.distributions.Normal(new.base_dist.loc.detach(), new.base_dist.scale.detach()), 1
    )
    return torch.distributions.kl_divergence(old, new).mean()


def test_fisher_is_that_of_a_gaussian_and_takes_one_forward_pass(policy, generator):
    """F is the mean over states of J_mu^T Sigma^-1 J_mu, and 2 for each log standard deviation."""
    obs = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    parameters = list(policy.parameters())
    product = FisherVectorProduct(mean_kl(policy, obs), parameters, damping=0.25)
    size = sum(p.numel() for p in parameters)
    explicit = torch.stack([product(e) for e in torch.eye(size, dtype=torch.float64)])
    assert policy.forwards == 1
    fisher = torch.zeros(size, size, dtype=torch.float64)
    for mean in policy(obs).base_dist.loc:
        for value, std in zip(mean, policy.log_std.detach().exp(), strict=True):
            row = flat_gradient(value, parameters, retain_graph=True) / std
            fisher += torch.outer(row, row) / len(obs)
    assert parameters[0] is policy.log_std
    fisher[:2, :2] += 2.0 * torch.eye(2)
    torch.testing.assert_close(explicit, fisher + 0.25 * torch.eye(size, dtype=torch.float64))
    with torch.no_grad():
        assert not product(torch.ones(size, dtype=torch.float64)).requires_grad


def test_fisher_refusals():
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="damping must be >= 0"):
        FisherVectorProduct(weight.square().sum(), [weight], damping=-1.0)
    with pytest.raises(ValueError, match="kl must be a 0-dim tensor"):
        FisherVectorProduct(weight.square(), [weight])
    with pytest.raises(ValueError, match="kl must depend"):
        FisherVectorProduct(torch.zeros(()), [weight])
    with pytest.raises(ValueError, match="kl must be curved"):
        FisherVectorProduct(weight.sum(), [weight])


def bits(parameters):
    return [p.detach().clone().view(torch.int32) for p in parameters]


@pytest.fixture
def parameters():
    """Parameters with values that arithmetic does not restore: minus zero, NaN, the smallest number, 1/3."""
    odd = torch.tensor([-0.0, math.nan, 1e-45, 1 / 3, 3e38])
    return [nn.Parameter(odd), nn.Parameter(torch.randn(3, 2).T), nn.Parameter(torch.tensor(0.1))]


STEP = torch.linspace(-1, 1, 12)
GOOD = Surrogates(reward=0.0, costs=(0.0,), kl=0.0)


@pytest.mark.parametrize(
    ("trial", "reason"),
    [
        ({"kl": 0.011}, "kl"),
        ({"reward": 0.0}, "reward"),
        ({"costs": (0.3,)}, "cost"),
        ({"kl": math.nan}, "non_finite"),
        ({"reward": math.inf}, "non_finite"),
        ({"costs": (math.nan,)}, "non_finite"),
    ],
)
def test_failed_search_leaves_every_bit(parameters, trial, reason):
    old, calls = bits(parameters), []

    def evaluate():
        calls.append(bits(parameters))
        if len(calls) == 1:
            return GOOD
        return Surrogates(**{"reward": 1.0, "costs": (0.0,), "kl": 0.001, **trial})

    result = line_search(parameters, STEP, evaluate, kl_bound=0.01, cost_slack=[0.2], max_backtracks=4)
    assert (result.fraction, result.after, result.rejections) == (0.0, GOOD, (reason,) * 5)
    assert len(calls) == 6
    assert not torch.equal(calls[1][0], old[0])  # it did try
    assert all(torch.equal(x, y) for x, y in zip(bits(parameters), old, strict=True))


def test_nothing_is_tried_from_or_with_values_that_are_not_finite(parameters):
    old = bits(parameters)
    broken = Surrogates(reward=math.nan, costs=(), kl=0.0)
    result = line_search(parameters, STEP, lambda: broken, kl_bound=0.01)
    assert result.rejections == ("non_finite",)
    better = iter(Surrogates(reward=float(k), costs=(), kl=0.0) for k in range(3))
    result = line_search(parameters, STEP * math.nan, lambda: next(better), kl_bound=0.01)
    assert (result.fraction, result.rejections) == (0.0, ("non_finite",))
    assert all(torch.equal(x, y) for x, y in zip(bits(parameters), old, strict=True))


def test_an_error_on_the_way_leaves_every_bit(parameters):
    old, answers = bits(parameters), iter([GOOD])
    with pytest.raises(StopIteration):
        line_search(parameters, STEP, lambda: next(answers), kl_bound=0.01, cost_slack=[0.0])
    assert all(torch.equal(x, y) for x, y in zip(bits(parameters), old, strict=True))


def test_the_longest_acceptable_step_is_taken():
    """With KL = x^2 / 2 the bound 0.04 allows |x| <= 0.28."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def evaluate():
        assert not torch.is_grad_enabled()
        x = float(weight.detach())
        return Surrogates(reward=x, costs=(x,), kl=x * x / 2)

    step = torch.ones(1, dtype=torch.float64)
    result = line_search([weight], step, evaluate, kl_bound=0.04, cost_slack=[0.15], shrink=0.5)
    assert result.fraction == 0.125
    assert float(weight.detach()) == 0.125
    assert result.rejections == ("kl", "kl", "cost")
    assert result.after == Surrogates(reward=0.125, costs=(0.125,), kl=0.125**2 / 2)
    # Reward may fall in a recovery, and only then.
    for improve, fraction in ((True, 0.0), (False, 1.0)):
        result = line_search(
            [weight], -step / 10, evaluate, kl_bound=0.04, cost_slack=[0.0], improve_reward=improve
        )
        assert result.fraction == fraction


def test_line_search_refusals():
    weight = nn.Parameter(torch.zeros(2))
    for setting, value in {
        "kl_bound": 0.0, "shrink": 1.0, "max_backtracks": -1, "cost_slack": [-0.1],
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"{setting} must be"):
            line_search([weight], torch.ones(2), lambda: GOOD, **{"kl_bound": 0.01, setting: value})
    with pytest.raises(ValueError, match="step must have"):
        line_search([weight], torch.ones(3), lambda: GOOD, kl_bound=0.01, cost_slack=[0.0])
    with pytest.raises(ValueError, match="cost_slack must have 1 entries"):
        line_search([weight], torch.ones(2), lambda: GOOD, kl_bound=0.01)


def test_together_they_make_one_update_of_cpo(policy, generator):
    """The step from conjugate gradient is that of the explicit Fisher matrix, and the search accepts it."""
    obs = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    parameters = list(policy.parameters())
    product = FisherVectorProduct(mean_kl(policy, obs), parameters, damping=0.1)
    old = policy(obs)
    noise = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    actions = (old.base_dist.loc + old.base_dist.scale * noise).detach()
    advantage = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    advantage[1] += 2 * advantage[0]  # what pays also costs
    advantage -= advantage.mean(1, keepdim=True)
    old_log_prob = old.log_prob(actions).detach()

    def surrogates(with_gradient):
        ratio = (policy(obs).log_prob(actions) - old_log_prob).exp()
        reward, cost = (ratio * advantage).mean(1)
        if with_gradient:
            return reward, cost
        new = policy(obs)
        return Surrogates(
            reward=float(reward),
            costs=(float(cost),),
            kl=float(torch.distributions.kl_divergence(frozen, new).mean()),
        )

    frozen = torch.distributions.Independent(
        torch.distributions.Normal(old.base_dist.loc.detach(), old.base_dist.scale.detach()), 1
    )
    reward, cost = surrogates(True)
    g = flat_gradient(-reward, parameters, retain_graph=True)
    a = flat_gradient(cost, parameters)[None]
    matrix = torch.stack([product(e) for e in torch.eye(len(g), dtype=torch.float64)])
    b = 0.6 * (0.02 * a @ torch.linalg.solve(matrix, a[0])).sqrt()

    def solve(z):
        return conjugate_gradient(product, z, max_iterations=60, tolerance=1e-12).solution

    step = constrained_step(g, a, b, kl_bound=0.01, inverse_metric=solve)
    exact = constrained_step(g, a, b, kl_bound=0.01, inverse_metric=lambda z: torch.linalg.solve(matrix, z))
    torch.testing.assert_close(step.step, exact.step, rtol=1e-6, atol=1e-9)
    assert step.case == "active"
    assert float(step.step @ matrix @ step.step) / 2 == pytest.approx(0.01, rel=1e-8)
    result = line_search(
        parameters,
        step.step,
        lambda: surrogates(False),
        kl_bound=0.01,
        cost_slack=(-b).clamp(min=0).tolist(),
    )
    assert result.fraction > 0.0
    assert result.after.kl <= 0.01
    assert result.after.costs[0] < result.before.costs[0] - 0.5 * float(b)
    assert result.after.reward > result.before.reward
