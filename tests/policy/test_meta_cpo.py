"""Meta-CPO: what an adaptation changes, and what a meta-step uses and changes."""

import math

import numpy as np
import pytest
import torch
from tianshou.data import Batch
from tianshou.policy.base import policy_within_training_step
from toys.meta import FAST, acting, adapt, build, collector_for, finish, iterate, theta
from toys.policies import tensors

from fsrl_ext.functional.conjugate_gradient import flatten
from fsrl_ext.policy import CPOPolicy, MAMLLagConfig, meta_cpo

TARGETS = (0.3, 0.7)


def test_adaptation_moves_the_acting_copy_and_nothing_of_the_meta_policy():
    policy = build()
    collector = collector_for(policy)
    before = {k: v for k, v in tensors(policy).items() if not k.startswith(("actor.", "critic."))}
    start = theta(policy)
    assert torch.equal(acting(policy), start)
    adapt(policy, collector, 0.7, record=True)
    assert not torch.equal(acting(policy), start)
    now = policy.state_dict()
    assert all(torch.equal(value, now[key]) for key, value in before.items())
    policy.begin_task()
    assert torch.equal(acting(policy), start)
    assert all(torch.equal(now[f"critic.{k}"], v) for k, v in policy.meta_critic.state_dict().items())


def test_every_step_is_about_data_of_the_policy_that_it_starts_from():
    policy = build(inner_steps=3)
    collector, at_collect = collector_for(policy), []
    collect = collector.collect
    collector.collect = lambda: at_collect.append(acting(policy)) or collect()
    adapt(policy, collector, 0.7, record=True)
    steps = policy.record.steps
    assert len(steps) == 3
    for k, step in enumerate(steps):
        assert torch.equal(step.parameters, at_collect[k])
        torch.testing.assert_close(step.adapted, at_collect[k + 1], atol=1e-7, rtol=1e-6)
        assert step.fraction > 0
    # The actions in the data are draws from that policy: standardised, they have mean 0 and deviation 1.
    for rollout in policy.record.rollouts:
        noise = (rollout.act - rollout.dist.mean) / rollout.dist.std
        assert abs(float(noise.mean())) < 4 / math.sqrt(len(noise))
        assert float(noise.std()) == pytest.approx(1.0, abs=4 / math.sqrt(2 * len(noise)))


def test_steps_of_both_kinds_are_compared_with_what_became_of_them():
    policy = build(inner_steps=2)
    collector, rows = collector_for(policy), []
    learn = policy.learn
    policy.learn = lambda *args, **kwargs: rows.append(learn(*args, **kwargs)) or rows[-1]
    first, second = (iterate(policy, collector, TARGETS) for _ in range(2))
    rows = [row.metrics for row in rows]
    # The first step of a task follows no other; the second one's data show what became of the first.
    assert ["adaptation/played_change" in row for row in rows] == [False, True] * 4
    played = rows[1]["adaptation/episode_cost"] - rows[0]["adaptation/episode_cost"]
    assert rows[1]["adaptation/played_change"] == pytest.approx(played)
    assert "adaptation/played_per_predicted" in rows[1]
    assert "constraint/played_change" not in first
    played = second["constraint/episode_cost"] - first["constraint/episode_cost"]
    assert second["constraint/played_change"] == pytest.approx(played)
    assert math.isfinite(first["constraint/predicted_change"])
    policy.load_state_dict(policy.state_dict())
    assert len(policy.state_dict()["_extra_state"]["changes"]["adaptation"]["pairs"]) == 8


@pytest.mark.parametrize("first", [True, False])
def test_the_critic_judges_data_by_themselves_or_by_the_collects_before(first):
    policy = build(inner_steps=2, fit_critic_first=first)
    collector, judged = collector_for(policy), []
    estimate = policy._advantages

    def advantages(data, *lambdas):
        if lambdas != (1.0, 1.0):  # not the targets of a fit
            judged.append(flatten(policy.critic.parameters()).clone())
        return estimate(data, *lambdas)

    policy._advantages = advantages
    shared = flatten(policy.meta_critic.parameters()).clone()
    adapt(policy, collector, 0.7, record=True)
    finish(policy, collector)
    assert torch.equal(judged[0], shared) is not first
    assert not torch.equal(judged[1], judged[0])
    assert not torch.equal(judged[2], judged[1])
    last = torch.cat([x.flatten() for x in policy.finished[0].finished.critic])
    assert torch.equal(judged[2], last) is first  # the task's critic has learnt from all data in either case


def test_a_meta_step_that_nothing_accepts_leaves_the_meta_policy_bit_for_bit(monkeypatch):
    policy = build()
    collector, start = collector_for(policy), theta(policy)
    adapted_again = meta_cpo.replay

    def replay(at, steps, **settings):
        return adapted_again(at, steps, **settings) if torch.equal(at, start) else math.nan * at

    monkeypatch.setattr(meta_cpo, "replay", replay)
    metrics = iterate(policy, collector, TARGETS)
    assert metrics["meta/fraction"] == 0.0
    assert metrics["meta/refused_non_finite"] == policy.config.max_backtracks + 1
    assert torch.equal(theta(policy), start)
    assert torch.equal(acting(policy), start)


def test_calls_out_of_order_are_refused():
    policy = build()
    collector = collector_for(policy)
    with pytest.raises(RuntimeError, match="meta_step needs finish_task before"):
        policy.meta_step()
    collector.start(0.5, range(5))
    collector.collect()
    with pytest.raises(RuntimeError, match=r"needs begin_task\(record=True\) and 2 updates before, got 0"):
        finish(policy, collector)
    adapt(policy, collector, 0.5, record=True, steps=1)
    with pytest.raises(RuntimeError, match="2 updates before, got 1 updates"):
        finish(policy, collector)
    adapt(policy, collector, 0.5, record=False)
    with pytest.raises(RuntimeError, match="finish_task needs"):
        finish(policy, collector)
    assert not policy.finished


def test_tasks_that_were_not_finished_are_forgotten():
    policy = build()
    collector = collector_for(policy)
    adapt(policy, collector, 0.5, record=True)
    finish(policy, collector)
    adapt(policy, collector, 0.5, record=True, steps=1)
    policy.forget_tasks()
    assert torch.equal(acting(policy), theta(policy))
    with pytest.raises(RuntimeError, match="meta_step needs finish_task before"):
        policy.meta_step()
    iterate(policy, collector, TARGETS)
    assert policy.normaliser.count == 2 * 3 * 200  # nothing of the tasks before


@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_without_adaptation_a_task_alone_is_a_step_of_cpo(margin):
    # With normalised signals CPO's values have a level, which the meta-learner's have not.
    policy = build(
        inner_steps=0, num_tasks=1, outer_kl_bound=0.03, cost_margin=margin, normalise_signals=False
    )
    # CPO does not fit its critic to the data before it estimates advantages.
    policy.critic_optim = torch.optim.SGD(policy.critic.parameters(), lr=0.0)
    collector = collector_for(policy)
    adapt(policy, collector, 0.7, record=True)
    finish(policy, collector)
    cpo = CPOPolicy(
        actor=policy.actor,
        critic=policy.critic,
        critic_optim=policy.critic_optim,
        action_space=policy.action_space,
        cost_limit=policy.cost_limit,
        max_episode_steps=policy.max_episode_steps,
        obs_dim=2,
        gamma=0.9,
        kl_bound=0.03,
        fisher_fraction=0.2,
        cost_margin=margin,
        margin_rate=0.0,
        normalise_signals=False,
        **FAST,
    )
    with policy_within_training_step(cpo):
        cpo.update(0, collector.buffer, batch_size=None, repeat=1)
    expected = acting(cpo)
    assert policy.meta_step()["meta/fraction"] > 0
    torch.testing.assert_close(theta(policy), expected, rtol=1e-4, atol=1e-6)


def test_statistics_move_once_per_meta_iteration_from_all_tasks():
    policy = build(inner_steps=2)
    collector, seen = collector_for(policy), []
    for i, target in enumerate(TARGETS):
        collector.start(target, range(100 * i, 100 * i + 5))
        policy.begin_task(record=True)
        with policy_within_training_step(policy):
            for k in range(3):
                collector.collect()
                seen.append(collector.buffer.obs[: len(collector.buffer)].copy())
                policy.update(0, collector.buffer) if k < 2 else policy.finish_task(collector.buffer)
        assert policy.normaliser.count == 0
    critics = [[x.clone() for x in record.finished.critic] for record in policy.finished]
    policy.meta_step()
    everything = np.concatenate(seen)
    assert policy.normaliser.count == len(everything) == 1200
    np.testing.assert_allclose(policy.normaliser.mean.numpy(), everything.mean(0), atol=1e-5)
    for shared, in_use, *copies in zip(
        policy.meta_critic.parameters(), policy.critic.parameters(), *critics, strict=True
    ):
        assert not torch.equal(copies[0], copies[1])
        torch.testing.assert_close(shared, torch.stack(copies).mean(0))
        assert torch.equal(shared, in_use)


def test_adaptation_outside_of_meta_training_leaves_the_statistics_alone():
    policy = build()
    collector = collector_for(policy)
    iterate(policy, collector, TARGETS)
    before = policy.state_dict()["normaliser.mean"].clone()
    adapt(policy, collector, 0.9, steps=4)
    assert torch.equal(policy.normaliser.mean, before)
    assert policy.record is None


def test_a_multiplier_follows_the_limit_less_its_margin():
    policy = build(
        metric="euclidean",
        config=MAMLLagConfig(),
        cost_limit=10.0,
        cost_margin=0.7,
        multiplier_gains=(0, 0.1, 0),
    )
    metrics = iterate(policy, collector_for(policy, steps=100), TARGETS)
    cost = metrics["constraint/episode_cost"]
    assert 3.0 < cost < 10.0
    assert metrics["constraint/multiplier"] == pytest.approx(0.1 * (cost - 3.0) / 10.0, rel=1e-4)


def test_a_multiplier_prices_the_costs_after_the_adaptation():
    policy = build(
        metric="euclidean", config=MAMLLagConfig(), cost_limit=2.0, multiplier_gains=(0.0, 0.2, 0.0)
    )
    collector = collector_for(policy, steps=100)
    values = []
    for i in range(3):
        metrics = iterate(policy, collector, TARGETS, seed=1000 * i)
        values.append(metrics["constraint/multiplier"])
        assert metrics["constraint/episode_cost"] > 2.0
        assert metrics["meta/fraction"] > 0
        refused = sum(v for k, v in metrics.items() if k.startswith("meta/refused_"))
        assert metrics["meta/fraction"] == pytest.approx(policy.config.backtrack_factor**refused)
    assert values[0] > 0
    assert values == sorted(values)
    assert float(policy.state_dict()["multipliers.multipliers"]) == pytest.approx(values[-1])
    for i in range(15):
        metrics = iterate(policy, collector, TARGETS, seed=i)
    assert metrics["constraint/episode_cost"] < 3.5  # was 5.5 and more at first


@pytest.mark.parametrize("outer", ["mean", "each"])
def test_two_costs_with_one_of_them_free(outer):
    policy = build(num_costs=2, cost_limit=(4.0, math.inf), outer_constraint=outer)
    collector = collector_for(policy, num_costs=2)
    for i in range(3):
        metrics = iterate(policy, collector, TARGETS, seed=1000 * i)
    assert all(math.isfinite(x) for x in metrics.values())
    free = (
        ["constraint/multiplier_1"]
        if outer == "mean"
        else ["constraint/multiplier_1", "constraint/multiplier_3"]
    )
    assert [metrics[name] for name in free] == [0.0] * len(free)
    assert metrics["constraint/episode_cost_1"] == pytest.approx(metrics["constraint/episode_cost_0"] / 2)


def test_it_acts_as_the_meta_policy_when_no_task_is_open():
    policy = build()
    collector = collector_for(policy)
    iterate(policy, collector, TARGETS)
    obs = np.ones((1, 2), np.float32)
    (mean, _), _ = policy.meta_actor(policy.normaliser(obs))
    assert torch.equal(policy(Batch(obs=obs, info={})).act, mean)
