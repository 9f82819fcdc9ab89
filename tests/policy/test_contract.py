"""What every policy keeps to, CVPO included."""

import math
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import tianshou.data.buffer.manager
import tianshou.policy.base
import torch
from tianshou.data import Batch
from tianshou.policy.base import policy_within_training_step
from toys.cmdps import two_state_optimum, two_state_values
from toys.policies import (
    GAMMA,
    LAGRANGIAN,
    OFFPOLICY,
    ONPOLICY,
    ONPOLICY_LAGRANGIAN,
    POLICIES,
    T,
    assert_same_state,
    build,
    learner,
    tensors,
)
from toys.training import collect, collector_for, deterministic, measure, train, update

from fsrl_ext.data import CostVectorReplayBuffer
from fsrl_ext.errors import NonFiniteError

every = pytest.mark.parametrize("name", list(POLICIES))
off_policy = pytest.mark.parametrize("name", list(OFFPOLICY))
lagrangian = pytest.mark.parametrize("name", [*LAGRANGIAN, *ONPOLICY_LAGRANGIAN])


def optimisers(policy):
    return {k: v for k, v in vars(policy).items() if isinstance(v, torch.optim.Optimizer)}


@every
def test_same_seed_same_parameters(name):
    def run():
        policy = learner(name)
        train(policy, collector_for(policy), cycles=3, updates=4)
        return policy.state_dict()

    assert_same_state(run(), run())


@every
def test_a_loaded_policy_goes_on_as_the_saved_one(name, tmp_path):
    """Through ``weights_only`` files: networks, targets, optimisers, multipliers, entropy weight, delay."""
    policy = build(name, cost_limit=2.0)
    collector = collector_for(policy)
    train(policy, collector, cycles=3, updates=3)
    torch.save(
        [policy.state_dict(), {k: v.state_dict() for k, v in optimisers(policy).items()}],
        tmp_path / "saved.pt",
    )
    state, optims = torch.load(tmp_path / "saved.pt", weights_only=True)
    other = build(name, cost_limit=2.0, lr=1.0)
    other.load_state_dict(state)
    for key, optim in optimisers(other).items():
        optim.load_state_dict(deepcopy(optims[key]))
    np.testing.assert_array_equal(deterministic(policy), deterministic(other))
    results = []
    for one in (policy, other):
        update(one, collector)  # the first look at the buffer starts a cycle
        one.load_state_dict(state)
        for key, optim in optimisers(one).items():
            optim.load_state_dict(deepcopy(optims[key]))  # or both would share their moments
        collector.buffer._random_state.seed(1)
        torch.manual_seed(1)
        update(one, collector, 3)
        results.append(one.state_dict())
    assert_same_state(*results)
    if name not in ("cvpo", "cpo"):
        assert results[0]["multipliers.multipliers"] > 0


@every
@pytest.mark.parametrize("cost_limit", [5.0, (5.0, 2.0)])
def test_one_cost_and_two(name, cost_limit):
    num_costs = np.size(cost_limit)
    policy = build(name, cost_limit=cost_limit, num_costs=num_costs, ensemble=2)
    collector = collector_for(policy, num_costs=num_costs)
    train(policy, collector, cycles=2, updates=2)
    stats = train(policy, collector, cycles=1, updates=2)
    multiplier = "constraint/multiplier"
    for metric in (multiplier, "constraint/episode_cost" if name in ONPOLICY else "q/cost"):
        assert {k for k in stats.metrics if k.startswith(metric)} == (
            {metric} if num_costs == 1 else {f"{metric}_0", f"{metric}_1"}
        )
    assert all(math.isfinite(x) for x in stats.metrics.values())
    assert policy.cost_limit == tuple(np.atleast_1d(cost_limit))


@every
def test_finds_the_constrained_optimum_of_two_states(name):
    """Limit 4 of at most 20: near the optimum in cost, in return, and in what it does in both states."""
    best = two_state_optimum(4.0 / T, GAMMA)
    best_return = T * two_state_values(best, GAMMA)[2][0]
    policy = learner(name, cost_limit=4.0)
    train(policy, collector_for(policy))
    episode_return, episode_cost = measure(policy)
    assert episode_cost == pytest.approx([4.0], rel=0.2)
    assert episode_return >= 0.88 * best_return
    np.testing.assert_allclose(deterministic(policy), best, atol=0.15)


@lagrangian
def test_a_slack_limit_is_no_limit(name):
    """No cost at all, a limit far away and an infinite one: the same parameters, bit for bit."""

    def run(cost_limit, cost_scale):
        policy = build(name, cost_limit=cost_limit, multiplier_gains=(0.1, 0.1, 0.1))
        train(policy, collector_for(policy, cost_scale=cost_scale), cycles=3, updates=4)
        return {k: v for k, v in policy.state_dict().items() if k.startswith("actor")}

    plain = run(math.inf, 1.0)
    assert_same_state(plain, run(1e9, 1.0))
    # Without costs their critics learn other values, which the actor never sees.
    assert_same_state(plain, run(0.0, 0.0))


def test_cvpo_does_not_feel_a_slack_limit():
    def run(cost_limit):
        policy = build("cvpo", cost_limit=cost_limit)
        train(policy, collector_for(policy), cycles=3, updates=4)
        return deterministic(policy)

    np.testing.assert_allclose(run(math.inf), run(1e9), atol=1e-5)


@every
def test_a_zero_limit_ends_near_zero_cost(name):
    gains = {} if name in ("cvpo", "cpo") else {"multiplier_gains": (2.0, 0.2, 0.0)}
    policy = learner(name, cost_limit=0.0, **gains)
    train(policy, collector_for(policy), cycles=12)
    assert deterministic(policy).max() < 0.3


@every
def test_without_a_limit_the_best_action_is_found(name):
    policy = learner(name, cost_limit=math.inf)
    train(policy, collector_for(policy), cycles=12)
    assert deterministic(policy).min() > 0.75


@off_policy
def test_time_limits_bootstrap_and_terminal_states_do_not(name):
    """One-step targets where the target critic says 7 for reward and 3 for cost everywhere."""
    policy = build(name, estimation_step=1, **({"entropy": "fixed", "alpha": 1e-8} if name == "sac" else {}))
    buffer = CostVectorReplayBuffer(20, 1)
    for terminated, truncated in ((False, False), (False, True), (True, False)):
        buffer.add(
            Batch(
                obs=np.zeros((1, 2)), act=np.zeros((1, 1)), rew=[1.0], cost=[[0.5]],
                terminated=[terminated], truncated=[truncated], obs_next=np.zeros((1, 2)), info={},
            )
        )  # fmt: skip
    with torch.no_grad():
        last = policy.target_critic.layers[-1]
        last.weight.zero_()
        last.bias[0], last.bias[1] = 7.0, 3.0
    indices = np.arange(3)
    returns = policy.process_fn(buffer[indices], buffer, indices).returns
    bootstrapped = [1 + GAMMA * 7, 0.5 + GAMMA * 3]
    torch.testing.assert_close(
        returns, torch.tensor([bootstrapped, bootstrapped, [1.0, 0.5]]), atol=1e-5, rtol=1e-5
    )


@every
def test_actions_stay_inside_the_space(name):
    space = gym.spaces.Box(np.array([-3.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32))
    policy = build(name, space=space)
    with torch.no_grad():
        for parameter in policy.actor.parameters():
            parameter.mul_(30.0)
    obs = np.random.default_rng(0).uniform(-1, 1, (500, 2)).astype(np.float32)
    for training in (False, True):
        with policy_within_training_step(policy, enabled=training):
            mapped = policy.map_action(policy(Batch(obs=obs, info={})).act)
        assert mapped.shape == (500, 2)
        assert all(space.contains(x) for x in mapped.astype(np.float32))
    assert np.ptp(mapped, axis=0).min() > 0.5


@off_policy
def test_critics_see_actions_as_executed(name):
    policy = build(name)
    collector = collector_for(policy)
    collect(policy, collector)
    collector.buffer._meta.act[:] *= 50.0
    seen = []
    for module in (policy.critic, policy.target_critic):
        module.register_forward_pre_hook(lambda _, args: seen.append(args[1].detach().abs().max().item()))
    update(policy, collector, 2)
    assert max(seen) == 1.0


@every
def test_explores_in_training_steps_alone(name):
    policy = build(name)
    batch = Batch(obs=np.zeros((3, 2), np.float32), info={})
    assert torch.equal(policy(batch).act, policy(batch).act)
    with policy_within_training_step(policy):
        assert not torch.equal(policy(batch).act, policy(batch).act)


@every
@pytest.mark.parametrize("field", ["rew", "cost"])
def test_nan_leaves_everything_as_it_was(name, field):
    policy = build(name)
    collector = collector_for(policy)
    collect(policy, collector)
    update(policy, collector)
    getattr(collector.buffer._meta, field)[:] = np.nan
    before = tensors(policy)
    with pytest.raises(NonFiniteError, match="returns" if name in ONPOLICY else "critic loss"):
        update(policy, collector)
    assert_same_state(before, tensors(policy))


@every
def test_a_limit_can_change_while_training(name):
    policy = build(name, cost_limit=5.0)
    bound, threshold = policy.cost_bound.clone(), policy.cost_threshold.clone()
    policy.cost_limit = 15.0
    torch.testing.assert_close(policy.cost_bound, 3 * bound)
    torch.testing.assert_close(policy.cost_threshold, 3 * threshold)
    assert policy.cost_limit == (15.0,)
    with pytest.raises(ValueError, match="cost_limit"):
        policy.cost_limit = (1.0, 2.0)


@every
def test_unknown_settings_and_unusable_spaces_are_refused(name):
    with pytest.raises(TypeError, match="has no argument or setting 'gama'; did you mean gamma"):
        build(name, gama=0.9)
    with pytest.raises(ValueError, match="bounded"):
        build(name, space=gym.spaces.Box(-np.inf, np.inf, (1,)))


@every
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_learns_on_the_device(name):
    policy = build(name, cost_limit=2.0, device="cuda", ensemble=2)
    stats = train(policy, collector_for(policy), cycles=3, updates=4)
    assert all(v.is_cuda for v in tensors(policy).values())
    assert all(math.isfinite(x) for x in stats.metrics.values())


@every
def test_starts_and_learns_without_a_compiler(name, monkeypatch):
    # What Tianshou compiles in every process, for seconds: nobody here may need it.
    def called(*args):
        raise AssertionError("compiled code of Tianshou is used")

    for module, function in (
        (tianshou.policy.base, "_gae_return"),
        (tianshou.policy.base, "_nstep_return"),
        (tianshou.data.buffer.manager, "_prev_index"),
        (tianshou.data.buffer.manager, "_next_index"),
    ):
        monkeypatch.setattr(module, function, called)
    policy = learner(name)
    train(policy, collector_for(policy), cycles=1, updates=1)
