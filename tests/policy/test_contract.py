"""How every policy acts and learns: the same promises for all of them."""

import math

import gymnasium as gym
import numpy as np
import pytest
import tianshou.data.buffer.manager
import tianshou.policy.base
import torch
from tianshou.data import Batch
from tianshou.policy.base import policy_within_training_step
from toys.cmdps import two_state_optimum, two_state_values
from toys.every import EVERY, META, data_for, learn, make
from toys.policies import (
    GAMMA,
    LAGRANGIAN,
    OFFPOLICY,
    ONPOLICY,
    ONPOLICY_LAGRANGIAN,
    POLICIES,
    RAW,
    T,
    assert_same_state,
    build,
    learner,
    tensors,
)
from toys.training import collect, collector_for, deterministic, measure, train, update

from fsrl_ext.data import CostVectorReplayBuffer
from fsrl_ext.errors import NonFiniteError

every = pytest.mark.parametrize("name", EVERY)
single_task = pytest.mark.parametrize("name", list(POLICIES))
off_policy = pytest.mark.parametrize("name", list(OFFPOLICY))
lagrangian = pytest.mark.parametrize("name", [*LAGRANGIAN, *ONPOLICY_LAGRANGIAN])

# What these policies log of their constraints beside what all of them do.
CHANGES = {"predicted_change", "played_change", "played_per_predicted", "unpredicted_change"}
OWN_NAMES = {
    "cvpo": {"critic_level", "measured_cost", "extra_margin", "extra_share"},
    "cpo": CHANGES | {"extra_margin"},
    META: CHANGES,
}


@every
def test_same_seed_same_parameters(name):
    def run():
        policy = make(name, cost_limit=2.0)
        start = tensors(policy)
        learn(policy, data_for(policy))
        return start, policy.state_dict()

    (start, first), (_, second) = run(), run()
    assert_same_state(first, second)
    assert any(not torch.equal(value, first[key]) for key, value in start.items())


@every
@pytest.mark.parametrize("cost_limit", [2.0, (2.0, math.inf)])
def test_all_log_their_constraints_under_the_same_names(name, cost_limit):
    """Several costs have numbered names, and a cost without a limit has no surplus.

    What one kind of policy alone knows has further names.
    """
    num_costs = np.size(cost_limit)
    policy = make(name, cost_limit=cost_limit, num_costs=num_costs)
    metrics = learn(policy, data_for(policy, num_costs=num_costs), cycles=3, updates=4)
    logged = ["multiplier", "episode_cost"]
    if name in (*OFFPOLICY, "cpo"):
        logged.append("expected_cost")  # of critics or surrogates
    endings = [""] if num_costs == 1 else ["_0", "_1"]
    names = {f"constraint/{x}{ending}" for x in logged for ending in endings}
    surplus = f"constraint/surplus{endings[0]}"
    logged = {x for x in metrics if x.startswith("constraint/")}
    assert logged >= names | {surplus}
    own = {x.removeprefix("constraint/").rstrip("_01") for x in logged - names - {surplus}}
    assert own <= OWN_NAMES.get(name, {"critic_level"} if name in OFFPOLICY else set())
    assert ("critic_level" in own) == (name in OFFPOLICY)
    assert {k for k, x in metrics.items() if not math.isfinite(x)} <= {"estep/cost_threshold_1"}
    # An untrained policy is above the limit. CVPO's E-step compares critics, which are untrained as well.
    assert metrics[f"constraint/episode_cost{endings[0]}"] > 2.0
    assert metrics[surplus] > 0.0 or name == "cvpo"
    if num_costs == 2:
        assert metrics["constraint/multiplier_1"] == 0.0


@single_task
def test_critics_of_an_ensemble_learn_one_cost_and_two(name):
    for cost_limit in (5.0, (5.0, 2.0)):
        num_costs = np.size(cost_limit)
        policy = build(name, cost_limit=cost_limit, num_costs=num_costs, ensemble=2)
        metrics = learn(policy, collector_for(policy, num_costs=num_costs))
        stem = "loss/critic_cost" if name in ONPOLICY else "q/cost"
        assert {k for k in metrics if k.startswith(stem)} == (
            {stem} if num_costs == 1 else {f"{stem}_0", f"{stem}_1"}
        )
        assert all(math.isfinite(x) for x in metrics.values())
        assert policy.cost_limit == tuple(np.atleast_1d(cost_limit))


@single_task
def test_finds_the_constrained_optimum_of_two_states(name):
    """The policy comes near the optimum in cost, in return and in what it does in both states.

    The limit is 4, and an episode costs at most 20. The returns of DDPG's seeds are 0.86 to 0.95 of the
    optimum, and the other policies' are larger.
    """
    best = two_state_optimum(4.0 / T, GAMMA)
    best_return = T * two_state_values(best, GAMMA)[2][0]
    policy = learner(name, cost_limit=4.0)
    train(policy, collector_for(policy))
    episode_return, episode_cost = measure(policy)
    assert episode_cost == pytest.approx([4.0], rel=0.2)
    assert episode_return >= 0.85 * best_return
    np.testing.assert_allclose(deterministic(policy), best, atol=0.15)


@single_task
def test_a_zero_limit_ends_near_zero_cost(name):
    gains = {} if name in ("cvpo", "cpo") else {"multiplier_gains": (2.0, 0.2, 0.0)}
    policy = learner(name, cost_limit=0.0, **gains)
    train(policy, collector_for(policy), cycles=12)
    assert deterministic(policy).max() < 0.3


@single_task
def test_without_a_limit_the_best_action_is_found(name):
    policy = learner(name, cost_limit=math.inf)
    train(policy, collector_for(policy), cycles=12)
    assert deterministic(policy).min() > 0.75


@lagrangian
def test_a_slack_limit_is_no_limit(name):
    """Without cost, with a limit far away and without a limit, the parameters are the same bit for bit."""

    def run(cost_limit, cost_scale):
        policy = build(name, cost_limit=cost_limit, multiplier_gains=(0.1, 0.1, 0.1))
        learn(policy, collector_for(policy, cost_scale=cost_scale), cycles=3, updates=4)
        return {k: v for k, v in policy.state_dict().items() if k.startswith("actor")}

    plain = run(math.inf, 1.0)
    assert_same_state(plain, run(1e9, 1.0))
    # Without costs their critics learn other values, which the actor never sees.
    assert_same_state(plain, run(0.0, 0.0))


@single_task
@pytest.mark.parametrize("limit", [2.0, 0.0])
def test_units_of_reward_and_cost_change_nothing(name, limit):
    """Rewards are multiplied, and costs together with their limit.

    Powers of two leave no rounding, so the multipliers and the actor are then the same bit for bit.
    """

    def run(reward_scale, cost_scale):
        policy = build(name, cost_limit=limit * cost_scale)
        collector = collector_for(policy, reward_scale=reward_scale, cost_scale=cost_scale)
        torch.manual_seed(0)
        metrics = learn(policy, collector, cycles=3, updates=4)
        names = {"estep/temperature", "constraint/multiplier"} & metrics.keys()
        actor = {k: v for k, v in tensors(policy).items() if k.startswith("actor")}
        return actor, torch.tensor([metrics[x] for x in sorted(names)])

    actor, numbers = run(1.0, 1.0)
    assert (numbers > 0).all()
    for scales in ((128.0, 1 / 128), (1 / 128, 128.0)):
        same_actor, same_numbers = run(*scales)
        assert_same_state(actor, same_actor)
        assert torch.equal(numbers, same_numbers)
    for scales in ((100.0, 0.01), (0.01, 100.0)):
        same_actor, same_numbers = run(*scales)
        for key, value in actor.items():
            torch.testing.assert_close(same_actor[key], value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(same_numbers, numbers, rtol=1e-4, atol=0.0)


@every
def test_a_limit_can_change_while_training(name):
    """A new limit acts at the next update, exactly as one that the policy was built with."""
    cycles = 1 if name == META else 2

    def run(first, then):
        policy = make(name, cost_limit=first)
        policy.cost_limit = then
        collector = data_for(policy)
        learn(policy, collector, cycles=1)
        policy.cost_limit = 0.0
        learn(policy, collector, cycles=cycles, updates=20)
        return policy

    tightened, same = run(0.0, 1e9), run(1e9, 1e9)
    assert_same_state(tightened.state_dict(), same.state_dict())
    slack = make(name, cost_limit=1e9)
    collector = data_for(slack)
    learn(slack, collector, cycles=1)
    learn(slack, collector, cycles=cycles, updates=20)
    changed = [k for k, v in tensors(tightened).items() if not torch.equal(v, slack.state_dict()[k])]
    assert any(k.startswith("meta_actor" if name == META else "actor") for k in changed)


@every
def test_bound_and_threshold_follow_the_limit(name):
    policy = make(name, cost_limit=5.0)
    bound, threshold = policy.cost_bound.clone(), policy.cost_threshold.clone()
    policy.cost_limit = 15.0
    torch.testing.assert_close(policy.cost_bound, 3 * bound)
    torch.testing.assert_close(policy.cost_threshold, 3 * threshold)
    assert policy.cost_limit == (15.0,)
    for refused in ((1.0, 2.0), -1.0, math.nan):
        with pytest.raises(ValueError, match="cost_limit must"):
            policy.cost_limit = refused
        assert policy.cost_limit == (15.0,)


@every
@pytest.mark.parametrize("field", ["rew", "cost"])
def test_nan_leaves_everything_as_it_was(name, field):
    policy = make(name)
    collector = data_for(policy)
    learn(policy, collector, cycles=1)
    if name == META:  # whose collectors keep no data of a finished task
        collector.start(0.5, range(5))
        collector.collect()
    getattr(collector.buffer, field)[:] = np.nan
    before = tensors(policy)
    with pytest.raises(NonFiniteError, match="returns" if name in ONPOLICY else "critic loss"):
        update(policy, collector)
    assert_same_state(before, tensors(policy))


@off_policy
@pytest.mark.parametrize("time_limits", ["bootstrap", "end"])
def test_terminal_states_do_not_bootstrap_and_time_limits_do_unless_they_are_ends(name, time_limits):
    """One-step targets are right where the target critic says 7 for reward and 3 for cost everywhere."""
    entropy = {"entropy": "fixed", "alpha": 1e-8} if name == "sac" else {}
    policy = build(name, estimation_step=1, time_limits=time_limits, **RAW, **entropy)
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
    bootstrapped, ended = [1 + GAMMA * 7, 0.5 + GAMMA * 3], [1.0, 0.5]
    at_the_limit = bootstrapped if time_limits == "bootstrap" else ended
    expected = torch.tensor([bootstrapped, at_the_limit, ended])
    torch.testing.assert_close(returns, expected, atol=1e-5, rtol=1e-5)


@single_task
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
    collector.buffer.act[:] *= 50.0
    seen = []
    for module in (policy.critic, policy.target_critic):
        module.register_forward_pre_hook(lambda _, args: seen.append(args[1].detach().abs().max().item()))
    update(policy, collector, 2)
    assert max(seen) == 1.0


@every
def test_explores_in_training_steps_alone(name):
    policy = make(name)
    batch = Batch(obs=np.zeros((3, 2), np.float32), info={})
    assert torch.equal(policy(batch).act, policy(batch).act)
    with policy_within_training_step(policy):
        assert not torch.equal(policy(batch).act, policy(batch).act)


@pytest.mark.parametrize("name", ["cvpo", "sac", *ONPOLICY])
def test_samples_outside_of_training_where_that_is_asked_for(name):
    policy = build(name, deterministic_eval=False)
    batch = Batch(obs=np.zeros((3, 2), np.float32), info={})
    assert not torch.equal(policy(batch).act, policy(batch).act)
    assert policy.samples_in_evaluations
    assert not build(name).samples_in_evaluations


@every
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_learns_on_the_device(name):
    policy = make(name, cost_limit=2.0, device="cuda", **({} if name == META else {"ensemble": 2}))
    metrics = learn(policy, data_for(policy), cycles=3, updates=4)
    assert all(v.is_cuda for v in tensors(policy).values())
    assert all(math.isfinite(x) for x in metrics.values())


@every
def test_starts_and_learns_without_a_compiler(name, monkeypatch):
    """Nothing calls the functions that Tianshou compiles in every process, for seconds."""

    def called(*args):
        raise AssertionError("compiled code of Tianshou is used")

    for module, function in (
        (tianshou.policy.base, "_gae_return"),
        (tianshou.policy.base, "_nstep_return"),
        (tianshou.data.buffer.manager, "_prev_index"),
        (tianshou.data.buffer.manager, "_next_index"),
    ):
        monkeypatch.setattr(module, function, called)
    policy = make(name)
    learn(policy, data_for(policy), cycles=1, updates=1)
