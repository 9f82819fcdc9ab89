"""Limits on the discounted cost of an episode: what policies measure, and which policy they end with."""

import numpy as np
import pytest
import torch
from tianshou.env import DummyVectorEnv
from tianshou.policy.base import policy_within_training_step
from toys.every import EVERY, META, data_for, make
from toys.policies import GAMMA, ONPOLICY, T, build, learner
from toys.training import collect, collector_for, train, update

from fsrl_ext.cost_names import LimitUnit as UnitOfTables
from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.env.known_optimum import KnownOptimumEnv
from fsrl_ext.functional.returns import LimitUnit
from fsrl_ext.policy import CVPOPolicy

COST_GAMMA = 0.8
DISCOUNTS = (GAMMA, COST_GAMMA)
# What an episode with a cost of one in every step costs.
FULL = (1 - COST_GAMMA**T) / (1 - COST_GAMMA)


def discounted(name, **settings):
    return make(name, limit_unit="discounted", gamma=GAMMA, cost_gamma=COST_GAMMA, **settings)


def test_policies_and_tables_have_the_same_units():
    assert LimitUnit == UnitOfTables


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match=r"limit_unit must be .*episode.*discounted.*, got 'step'"):
        make("cvpo", limit_unit="step")


@pytest.mark.parametrize("name", [x for x in EVERY if x != META])
def test_measured_costs_are_discounted_from_the_first_step_of_each_episode(name):
    policy = discounted(name)
    collector = data_for(policy, discount=DISCOUNTS)
    for _ in range(4):  # of 50 steps in each environment, so that episodes go on from collect to collect
        stats = collect(policy, collector)
        metrics = update(policy, collector).metrics
    np.testing.assert_allclose(policy.episode_cost, stats.discounted_costs.mean(0), rtol=1e-12)
    assert policy.episode_cost < 0.5 * stats.costs.mean(0)
    assert metrics["constraint/episode_cost"] == pytest.approx(policy.episode_cost[0], rel=1e-6)
    surplus = metrics.get("constraint/surplus")
    if name in ("sac", "ddpg", "td3", "trpo", "ppo", "focops"):
        assert surplus == pytest.approx(policy.episode_cost[0] - float(policy.cost_bound), rel=1e-4)


def test_meta_learners_measure_discounted_costs():
    policy = discounted(META)
    collector = data_for(policy, discount=DISCOUNTS)
    collector.start(0.5, range(collector.env_num))
    policy.begin_task()
    with policy_within_training_step(policy):
        stats = collector.collect()
        policy.update(0, collector.buffer)
    np.testing.assert_allclose(policy.episode_cost, stats.discounted_costs.mean(0), rtol=1e-12)
    collector.close()


@pytest.mark.parametrize("name", ["cvpo", "ppo", META])
@pytest.mark.parametrize("discount", [None, GAMMA, (COST_GAMMA, GAMMA)])
def test_a_collector_with_another_discount_of_the_costs_is_refused(name, discount):
    policy = discounted(name)

    def open_collector():
        collector = data_for(policy, discount=discount)
        collector.start(0.5, range(collector.env_num))  # a meta-learner's collector

    with pytest.raises(ValueError, match=f"discount must be {COST_GAMMA} for the costs, because .*, got "):
        open_collector()


def test_without_finished_episodes_steps_stand_for_them_as_their_discounts_count():
    for name in ("cvpo", "ppo"):
        policy = discounted(name)
        collector = data_for(policy, discount=DISCOUNTS)
        collect(policy, collector, 4 * (T // 2))  # half an episode
        update(policy, collector)
        cost = collector.buffer.cost[collector.buffer.sample_indices(0)].mean()
        measured = policy.measured_cost.value if name == "cvpo" else policy.episode_cost
        assert float(measured[0]) == pytest.approx(FULL * cost, rel=1e-5)


@pytest.mark.parametrize(("threshold", "share"), [("paper", 1.0), ("auto", 1.0 / (1.0 - COST_GAMMA**T))])
def test_the_threshold_of_the_critics_is_the_limit_in_its_own_unit(threshold, share):
    policy = discounted("cvpo", cost_limit=3.0, cost_level="critic", threshold=threshold)
    assert isinstance(policy, CVPOPolicy)
    assert policy.cost_threshold.tolist() == [pytest.approx(3.0 * share, rel=1e-12)]
    assert policy.discounted([1.0]).tolist() == [pytest.approx(share, rel=1e-12)]


@pytest.mark.parametrize("name", list(ONPOLICY))
def test_cost_advantages_are_weighted_by_the_discounts_of_their_steps(name):
    """The steps count from the first step of the episode, also where an earlier collect has played it."""
    plain, weighted = (build(name, limit_unit=unit) for unit in ("episode", "discounted"))
    collector = collector_for(weighted, discount=GAMMA)
    collect(weighted, collector, 4 * (T + T // 2))
    collect(weighted, collector, 4 * (T + T // 4))
    results = []
    for policy in (plain, weighted):
        batch, indices = collector.buffer.sample(0)
        results.append(policy.process_fn(batch, collector.buffer, indices))
    before, after = (x.advantages.double() for x in results)
    steps = (T // 2 + np.arange(T + T // 4)) % T
    weights = torch.from_numpy(GAMMA ** np.tile(steps, 4))
    mean = (weights * before[:, 1]).sum() / weights.sum()
    torch.testing.assert_close(after[:, 1], weights * (before[:, 1] - mean), rtol=1e-4, atol=1e-6)
    assert torch.equal(after[:, 0], before[:, 0])
    assert torch.equal(results[0].returns, results[1].returns)


# A task whose costs come late: discounted, they count for less than half.
LATE, LATE_STEPS, LIMIT = (6, 12), 12, 2.0


def late_collector(policy, discount):
    def make_env():
        return KnownOptimumEnv(window=LATE, max_episode_steps=LATE_STEPS)

    envs = DummyVectorEnv([make_env] * 4)
    collector = CostCollector(policy, envs, CostVectorReplayBuffer(20_000, 4), discount=discount)
    collector.reset(gym_reset_kwargs={"seed": 0})
    collector.env.seed(0)
    return collector


@pytest.mark.parametrize("name", ["cvpo", "cpo"])
def test_each_unit_has_an_optimum_of_its_own_and_policies_find_it(name):
    optimum = KnownOptimumEnv(window=LATE, max_episode_steps=LATE_STEPS).optimum
    best = {"episode": optimum(LIMIT)[0], "discounted": optimum(LIMIT, discount=GAMMA)[0]}
    assert best["episode"] == pytest.approx(0.2)
    assert best["discounted"] == pytest.approx(0.49, abs=0.01)
    policy = learner(name, obs_dim=3, max_episode_steps=LATE_STEPS, cost_limit=LIMIT, limit_unit="discounted")
    collector = late_collector(policy, GAMMA)
    train(policy, collector, cycles=10)
    (act,) = policy.compute_action(np.array([0.0, 0.0, 1.0], np.float32))
    assert (1 + act) / 2 == pytest.approx(best["discounted"], abs=0.12)
