"""Advantages agree with a plain loop, bootstrap at time limits and cuts, and stop at terminal states."""

from __future__ import annotations

import math

import pytest
import torch
from toys.cmdps import TRAP_STEPS, trap_cost, trap_episodes

from fsrl_ext.functional.returns import generalised_advantages


def plain_loop(signals, values, next_values, terminated, ends, gamma, gae_lambda):
    """Compute the advantages for one environment, one signal and one step at a time."""
    steps, envs, count = signals.shape
    advantages = torch.zeros_like(signals)
    for e in range(envs):
        for s in range(count):
            following = 0.0
            for t in reversed(range(steps)):
                bootstrap = 0.0 if terminated[t, e] else float(next_values[t, e, s])
                delta = float(signals[t, e, s]) + gamma[s] * bootstrap - float(values[t, e, s])
                if terminated[t, e] or ends[t, e]:
                    following = 0.0
                following = delta + gamma[s] * gae_lambda[s] * following
                advantages[t, e, s] = following
    return advantages


def draw(steps, envs, count, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (steps, envs, count)
    data = [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(3)]
    chance = torch.rand(2, steps, envs, generator=generator)
    return data, chance[0] < 0.1, chance[1] < 0.1


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 9, 100])
def test_against_a_plain_loop(steps):
    gamma, gae_lambda = (0.99, 0.97, 1.0), (0.95, 0.5, 1.0)
    data, terminated, ends = draw(steps, 3, 3, seed=steps)
    expected = plain_loop(*data, terminated, ends, gamma, gae_lambda)
    result = generalised_advantages(
        *data, terminated=terminated, ends=ends, gamma=gamma, gae_lambda=gae_lambda
    )
    torch.testing.assert_close(result.advantages, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.returns, expected + data[1], rtol=1e-12, atol=1e-12)
    # A buffer may have no axis of environments.
    one = generalised_advantages(
        *(x[:, 1] for x in data),
        terminated=terminated[:, 1],
        ends=ends[:, 1],
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    torch.testing.assert_close(one.advantages, expected[:, 1], rtol=1e-12, atol=1e-12)


def constant(steps, value, next_value, **flags):
    """Compute advantages for reward 1 at every step and the given values."""
    ones = torch.ones(steps, 1, dtype=torch.float64)
    none = torch.zeros(steps, dtype=torch.bool)
    return generalised_advantages(
        ones, value * ones, next_value * ones, **{"terminated": none, "ends": none, **flags}
    )


def test_the_true_value_of_endless_ones_has_no_advantage():
    """The value 1 / (1 - gamma) holds through time limits and the cut after the last row."""
    limit = torch.tensor([False, True, False, False])
    for gae_lambda in (0.0, 0.9, 1.0):
        result = constant(4, 100.0, 100.0, ends=limit, gamma=0.99, gae_lambda=gae_lambda)
        torch.testing.assert_close(result.advantages, torch.zeros(4, 1, dtype=torch.float64))


def test_only_a_terminal_state_is_worth_nothing():
    last = torch.tensor([False, False, True])
    dead = constant(3, 0.0, 10.0, terminated=last, gamma=0.5, gae_lambda=1.0)
    cut = constant(3, 0.0, 10.0, ends=last, gamma=0.5, gae_lambda=1.0)
    unmarked = constant(3, 0.0, 10.0, gamma=0.5, gae_lambda=1.0)
    # The delta of the inner steps is 1 + 5 - 0.
    assert dead.returns.flatten().tolist() == [6 + 3 + 0.25, 6 + 0.5, 1.0]
    assert cut.returns.flatten().tolist() == [6 + 3 + 1.5, 6 + 3, 6.0]
    assert torch.equal(cut.returns, unmarked.returns)


def test_nothing_crosses_an_end():
    data, _, _ = draw(10, 2, 2, seed=0)
    none, ends = torch.zeros(10, 2, dtype=torch.bool), torch.zeros(10, 2, dtype=torch.bool)
    ends[4] = True
    settings = {"terminated": none, "gamma": 0.99, "gae_lambda": 0.95}
    whole = generalised_advantages(*data, ends=ends, **settings).advantages
    settings["terminated"] = none[:5]
    halves = [
        generalised_advantages(*(x[part] for x in data), ends=none[:5], **settings).advantages
        for part in (slice(0, 5), slice(5, 10))
    ]
    torch.testing.assert_close(whole, torch.cat(halves))


def test_values_after_a_terminal_state_are_not_read():
    data, terminated, ends = draw(20, 2, 2, seed=1)
    settings = {"terminated": terminated, "ends": ends, "gamma": 0.9, "gae_lambda": 0.9}
    clean = generalised_advantages(*data, **settings)
    data[2][terminated] = math.nan
    assert terminated.any()
    assert torch.equal(generalised_advantages(*data, **settings).advantages, clean.advantages)


def test_long_rows_in_float32_and_inputs_stay():
    data, _, ends = draw(5000, 1, 2, seed=2, dtype=torch.float32)
    copies = [x.clone() for x in data]
    none = torch.zeros_like(ends)
    # float32 holds this lambda exactly, so only the arithmetic differs.
    settings = {"terminated": none, "ends": none, "gamma": 1.0, "gae_lambda": 1 - 2.0**-10}
    result = generalised_advantages(*data, **settings).advantages
    exact = generalised_advantages(*(x.double() for x in data), **settings).advantages
    assert float((result - exact).abs().max()) < 1e-5 * float(exact.abs().max())
    assert all(torch.equal(x, y) for x, y in zip(data, copies, strict=True))


def test_refusals():
    data, terminated, ends = draw(4, 2, 2, seed=3)
    good = {"terminated": terminated, "ends": ends, "gamma": 0.9, "gae_lambda": 0.9}
    for change, message in (
        ({"gamma": 1.1}, "gamma must be in"),
        ({"gae_lambda": [0.9, math.nan]}, "gae_lambda must be in"),
        ({"gamma": [0.9] * 3}, "gamma must be one number or 2"),
        ({"ends": ends.float()}, "ends must be bool"),
        ({"terminated": terminated[:2]}, "terminated must be bool"),
    ):
        with pytest.raises(ValueError, match=message):
            generalised_advantages(*data, **{**good, **change})
    with pytest.raises(ValueError, match="next_values must have shape"):
        generalised_advantages(data[0], data[1], data[2][:2], **good)


def slope_of_the_episode_cost(gamma, gae_lambda, *, escape, cut, fitted):
    """Return the slope of the cost surrogate in the trap, per episode, relative to the exact slope.

    :param escape: see :class:`toys.cmdps.TrapEpisodes`.
    :param cut: whether the end of a collect cuts every episode at a random step.
    :param fitted: whether the critic knows the mean cost to come of both states; otherwise it says 0.
    """
    share, width, episodes = 0.5, 1e-3, 20_000
    torch.manual_seed(0)
    data = trap_episodes(share, escape, episodes)
    cost = (data.trapped & data.played).double()
    ends = data.terminated.clone()
    ends[-1] = True
    if cut:
        ends[torch.randint(TRAP_STEPS - 1, (episodes,)), torch.arange(episodes)] = True
    values = torch.zeros(2, dtype=torch.float64)
    if fitted:
        to_come = cost.flip(0).cumsum(0).flip(0)
        values = torch.stack([to_come[data.played & (data.trapped == x)].mean() for x in (False, True)])
    next_values = values[data.led_to.long()]
    if gamma == 1.0:
        next_values[-1] = 0.0
    result = generalised_advantages(
        cost[..., None], values[data.trapped.long()][..., None], next_values[..., None],
        terminated=data.terminated, ends=ends, gamma=gamma, gae_lambda=gae_lambda,
    )  # fmt: skip
    # The mean over steps of the gradient of ratio * advantage, times the mean length of an episode
    advantage = result.advantages[..., 0] - result.advantages[data.played].mean()
    score = torch.where(data.risky, 1 / share, -1 / (1 - share))
    slope = (score * advantage)[data.played].mean() * data.played.sum(0).double().mean()
    exact = (trap_cost(share + width, escape) - trap_cost(share - width, escape)) / (2 * width)
    return float(slope) / exact


@pytest.mark.parametrize("escape", [0.0, 0.05])
@pytest.mark.parametrize("fitted", [False, True])
def test_undiscounted_surrogates_have_the_slope_of_the_episode_cost(escape, fitted):
    """Whatever the critic says, and where episodes end early, too."""
    slope = slope_of_the_episode_cost(1.0, 1.0, escape=escape, cut=False, fitted=fitted)
    assert slope == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("escape", [0.0, 0.05])
def test_the_critic_stands_for_what_remains_where_a_collect_cuts_an_episode(escape):
    known, unknown = (
        slope_of_the_episode_cost(1.0, 1.0, escape=escape, cut=True, fitted=fitted)
        for fitted in (True, False)
    )
    # It knows the state and not the remaining time, so part of the slope is lost.
    assert known == pytest.approx(1.0, abs=0.2)
    assert unknown < 0.7 or escape


def test_discount_and_lambda_lose_slope_where_the_cost_follows_late():
    slopes = [
        slope_of_the_episode_cost(gamma, gae_lambda, escape=0.0, cut=False, fitted=fitted)
        for gamma, gae_lambda, fitted in ((0.99, 0.95, False), (0.99, 0.95, True), (1.0, 0.95, False))
    ]
    assert slopes == pytest.approx([0.32, 0.68, 0.36], abs=0.05)
