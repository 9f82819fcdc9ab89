"""Tensors drawn at random: sizes that do not go together are named, and those that do give finite numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsrl_ext.functional.constrained_step import constrained_step
from fsrl_ext.functional.estep import solve_dual
from fsrl_ext.functional.gaussian import kl_divergence, log_density, squash
from fsrl_ext.functional.multiplier import dual_ascent, initial_multipliers, lagrangian_loss, pid_control
from fsrl_ext.functional.returns import as_cost_limits, cost_threshold, nstep_targets

SIZE = st.integers(1, 4)
QUICK = settings(max_examples=40, deadline=None, derandomize=True)


@QUICK
@given(SIZE, SIZE, SIZE, SIZE)
def test_gaussians(batch, dim, other_batch, other_dim):
    mean, std = torch.zeros(batch, dim), torch.ones(batch, dim)
    other = torch.ones(other_batch, other_dim)
    for function, arguments, name in (
        (log_density, (mean, std, other), "act"),
        (squash, (mean, std, other), "noise"),
        (kl_divergence, (mean, std, mean, other), "other_std"),
    ):
        if other.shape == mean.shape:
            values = function(*arguments)
            for value in values if isinstance(values, tuple) else (values,):
                assert torch.isfinite(value).all()
        else:
            with pytest.raises(ValueError, match=rf"^{name} must have shape .*got \[{other_batch}, "):
                function(*arguments)


@QUICK
@given(SIZE, SIZE, SIZE)
def test_multipliers(num_costs, num_limits, num_stored):
    state, cost, limit = initial_multipliers(num_stored), torch.ones(num_costs), torch.ones(num_limits)
    gains = {"gains": (1.0, 0.1, 0.0), "smoothing": 0.0}
    for function, more in ((dual_ascent, {"lr": 0.1}), (pid_control, gains)):
        if num_costs == num_limits == num_stored:
            assert function(state, cost, limit, multiplier_max=9.0, **more).multipliers.shape == (num_costs,)
        else:
            with pytest.raises(ValueError, match=r"(limit|state) must"):
                function(state, cost, limit, multiplier_max=9.0, **more)
    if num_costs != num_limits:
        with pytest.raises(ValueError, match="multipliers must have shape"):
            lagrangian_loss(torch.zeros(()), cost, limit, rescale=True)


@QUICK
@given(SIZE, SIZE, SIZE, st.sampled_from(["alive", "terminated", "bootstrap", "bonus"]), SIZE)
def test_nstep_targets(steps, batch, signals, name, wrong):
    arguments = {
        "signals": torch.ones(steps, batch, signals), "alive": torch.ones(steps, batch, dtype=torch.bool),
        "terminated": torch.zeros(batch, dtype=torch.bool), "bootstrap": torch.ones(batch, signals),
        "bonus": torch.zeros(steps, batch),
    }  # fmt: skip
    assert torch.isfinite(nstep_targets(**arguments, gamma=0.9)).all()
    for bad in (arguments[name].repeat_interleave(1 + wrong, 0), arguments[name].long()):
        with pytest.raises(ValueError, match=f"^{name} must"):
            nstep_targets(**{**arguments, name: bad}, gamma=0.9)


@QUICK
@given(SIZE, SIZE, SIZE, SIZE, SIZE)
def test_estep_and_constrained_step(states, actions, costs, other, limits):
    q_reward, q_cost = torch.randn(states, actions), torch.randn(costs, other, actions)
    if other == states and limits == costs:
        weights = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=torch.zeros(limits)).weights
        torch.testing.assert_close(weights.sum(1), torch.ones(states))
    else:
        with pytest.raises(ValueError, match=r"^(q_cost|cost_threshold) must"):
            solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=torch.zeros(limits))
    g, a, b = torch.randn(states), torch.randn(costs, other), torch.zeros(limits)
    if other == states and limits == costs:
        assert torch.isfinite(constrained_step(g, a, b, kl_bound=0.1).step).all()
    else:
        with pytest.raises(ValueError, match=r"^(a|b) must have shape"):
            constrained_step(g, a, b, kl_bound=0.1)


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@QUICK
@given(NUMBERS, st.integers(-3, 1000), NUMBERS)
def test_cost_thresholds(limit, steps, gamma):
    usable = limit >= 0 and steps >= 1 and 0 <= gamma <= 1
    if usable:
        assert 0 <= cost_threshold(limit, max_episode_steps=steps, gamma=gamma) <= max(limit, 1e-300)
    else:
        with pytest.raises(ValueError, match=r"(cost_limit|max_episode_steps|gamma) must be .*, got "):
            cost_threshold(limit, max_episode_steps=steps, gamma=gamma)


@QUICK
@given(st.one_of(st.text(), st.booleans(), st.none(), st.lists(st.one_of(NUMBERS, st.text())), NUMBERS))
def test_cost_limits(value):
    numbers = value if isinstance(value, list) else [value]
    usable = numbers and all(type(x) is float and x >= 0 for x in numbers)
    if usable:
        assert as_cost_limits(value) == tuple(numbers)
    else:
        with pytest.raises(ValueError, match=r"^cost_limit must be >= 0 .*, got "):
            as_cost_limits(value)
