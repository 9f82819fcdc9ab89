"""Costs that are selected by name, from dictionaries and from safety-gymnasium's separate costs."""

from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
from scipy.optimize import minimize
from toys.envs import NamedCostsEnv
from toys.simulators import assert_passes_checker

from fsrl_ext.cost_names import cost_keys, cost_label, labelled
from fsrl_ext.env import CostError, CostWrapper, MissingCostError, can_terminate, env_fn, make
from fsrl_ext.env.two_costs import TwoCostsEnv

A = np.array([-0.5], np.float32)  # right 0.25, left 0.5625, left_far 0.1875


def first_cost(env):
    env.reset(seed=0)
    return env.step(A)[4]["cost"]


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        (None, [0.25, 0.5625, 0.1875]),
        (("left_far", "right"), [0.1875, 0.25]),
        (("left",), 0.5625),  # a name that a cost has is no prefix
        ("left_", 0.1875),
        (("l", "right"), [0.75, 0.25]),  # the sum of both
    ],
)
def test_a_dictionary_of_costs_gives_those_that_are_asked_for(costs, expected):
    env = make("ToyNamed-v0", costs=costs)
    cost = first_cost(env)
    np.testing.assert_allclose(cost, expected, rtol=1e-6)
    if np.size(expected) == 1:
        assert type(cost) is float
    else:
        assert (cost.dtype, cost.shape) == (np.float32, (len(expected),))
    names = ("right", "left", "left_far") if costs is None else (costs,) if isinstance(costs, str) else costs
    assert env.cost_names == names


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        (("right", "up"), "^costs must be of right, left, left_far for ToyNamed-v0, .* got 'up'$"),
        (
            ("l", "left_far"),
            "^costs must not share a cost of ToyNamed-v0, got 'l' and 'left_far', .*'left_far'$",
        ),
        ((), "^costs must hold at least one name, got none$"),
        (("right", "right"), "^costs must differ, got right, right$"),
        (("a,b",), "^costs must be names of letters.*, got 'a,b'$"),
        (("0",), "^costs must be names of letters.*, got '0'$"),
    ],
)
def test_names_that_cannot_be_used_are_one_line(costs, message):
    with pytest.raises(ValueError, match=message):
        first_cost(make("ToyNamed-v0", costs=costs))


@pytest.mark.parametrize("task", ["SafetyCarCircle-v0", "SafetyHopperVelocity-v1", "KnownOptimum-v0"])
def test_a_cost_without_named_parts_says_so(task):
    with pytest.raises(
        ValueError, match=f"^costs must not be given for {task}, whose cost has no named parts"
    ):
        make(task, costs=("hazards",))


@pytest.mark.parametrize("costs", [None, ("right",)])
def test_a_cost_that_appears_or_vanishes_is_an_error_and_no_zero(costs):
    def second_step(names):
        env = CostWrapper(NamedCostsEnv((("right", "left"), names)), env_id="Named-v0", costs=costs)
        env.reset(seed=0)
        env.step(A)
        return env.step(A)[4]["cost"]

    np.testing.assert_allclose(second_step(("left", "right")), [0.25, 0.5625][: 2 if costs is None else 1])
    with pytest.raises(MissingCostError, match=r"Named-v0, step 2: .* right, left as .*, got left$"):
        second_step(("left",))
    with pytest.raises(CostError, match=r"Named-v0, step 2: .* got right, left, left_far$"):
        second_step(("right", "left", "left_far"))


@pytest.mark.parametrize("value", ["much", None, [1.0, 2.0]])
def test_a_named_cost_must_be_a_number(value):
    class Odd(NamedCostsEnv):
        def step(self, action):
            *rest, _ = super().step(action)
            return *rest, {"cost": {"right": value}}

    for costs in (None, ("right",)):
        with pytest.raises(CostError, match=r"Odd-v0, step 1: .*numbers"):
            first_cost(CostWrapper(Odd(), env_id="Odd-v0", costs=costs))


def play(env, steps=250):
    """Return observations, rewards and infos of random actions, which the seed repeats."""
    env.reset(seed=3)
    played = []
    for _ in range(steps):
        action = env.action_space.sample()
        action *= 0.2
        action[0] = 1.0  # forwards, where the obstacles are
        obs, reward, terminated, truncated, info = env.step(action)
        played.append((obs, reward, info))
        if terminated or truncated:
            env.reset()
    return played


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("task", "costs"),
    [("SafetyCarButton1-v0", ("hazards", "gremlins", "buttons")), ("SafetyPointGoal2-v0", ("vases", "haz"))],
)
def test_separate_costs_of_safety_gymnasium_are_those_of_the_info(task, costs, fast):
    steps = 250 if fast else 40
    plain, named = make(task, fast=fast), make(task, fast=fast, costs=costs)
    total = np.zeros(len(costs))
    for one, other in zip(play(plain, steps), play(named, steps), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1] == other[1]
        parts = {k: v for k, v in one[2].items() if k.startswith("cost_")}
        assert one[2]["cost"] == parts["cost_sum"]  # the sum stays the default
        expected = [sum(v for k, v in parts.items() if k.startswith(f"cost_{name}")) for name in costs]
        np.testing.assert_array_equal(other[2]["cost"], expected)
        total += other[2]["cost"]
    assert total.any() or not fast
    assert named.cost_names == costs


def test_an_unknown_separate_cost_is_named_when_the_environment_is_built():
    message = (
        "^costs must be of hazards, vases_contact, vases_velocity for SafetyPointGoal2-v0, .* got 'gremlins'$"
    )
    with pytest.raises(ValueError, match=message):
        make("SafetyPointGoal2-v0", costs=("hazards", "gremlins"))


def test_copies_of_an_environment_have_its_costs():
    for task, costs in (("ToyNamed-v0", ("l", "right")), ("KnownOptimumTwoCosts-v0", ("second",))):
        build = pickle.loads(pickle.dumps(env_fn(task, costs=costs)))
        expected = first_cost(make(task, costs=costs)) if task == "ToyNamed-v0" else 0.0625 * 3
        if task != "ToyNamed-v0":
            env = build()
            env.reset(seed=0)
            assert env.step(np.array([-0.5, 0.5]))[4]["cost"] == pytest.approx(expected)
            assert can_terminate(env) is False
            assert gym.make(env.spec).unwrapped.cost_names == ("second",)
        else:
            np.testing.assert_array_equal(first_cost(build()), expected)


def test_labels_have_names_or_numbers():
    assert cost_keys(None, 2) == ["0", "1"]
    assert [cost_label(None, n, 0) for n in (1, 2)] == ["cost", "cost 0"]
    assert [cost_label(("a", "b"), 2, 1), cost_label(("a",), 1, 0)] == ["cost b", "cost a"]
    assert labelled(["1", "2"], ("a", "b")) == ["a 1", "b 2"]
    assert labelled(["1", "2"], None) == ["1", "2"]


def test_no_pair_of_throttles_beats_the_optimum_of_two_costs():
    def play_constant(x):
        env = TwoCostsEnv()
        env.reset(seed=0)
        steps = [env.step(2 * np.asarray(x) - 1) for _ in range(40)]
        return sum(s[1] for s in steps), sum(np.asarray(s[4]["cost"], dtype=float) for s in steps)

    limits = np.array([3.0, 6.0])
    throttles, best = TwoCostsEnv().optimum(limits)
    found = minimize(
        lambda x: -play_constant(x)[0],
        [0.1, 0.1],
        bounds=[(0, 1)] * 2,
        constraints={"type": "ineq", "fun": lambda x: limits - play_constant(x)[1]},
    )
    np.testing.assert_allclose(found.x, throttles, atol=1e-4)
    reward, costs = play_constant(throttles)
    assert reward == pytest.approx(best)
    np.testing.assert_allclose(costs, limits, rtol=1e-5)
    assert_passes_checker(TwoCostsEnv())
    with pytest.raises(ValueError, match=r"cost_limit must be 2 numbers >= 0, got \(1.0,\)"):
        TwoCostsEnv().optimum((1.0,))
