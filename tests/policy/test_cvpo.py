"""CVPO as a policy: its conventions, its parts against hand-made numbers, and optima that are known."""

import math
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.data import Batch
from tianshou.env import DummyVectorEnv
from tianshou.policy.base import policy_within_training_step
from tianshou.trainer import OffpolicyTrainer
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ActorProb
from toys.envs import LineEnv
from toys.policies import assert_same_state, tensors

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.errors import NonFiniteError
from fsrl_ext.functional.gaussian import sample_actions
from fsrl_ext.net import EnsembleCritic, GaussianActor
from fsrl_ext.policy import CVPOPolicy
from fsrl_ext.policy.offpolicy.cost_level import CostLevel
from fsrl_ext.policy.offpolicy.critics import nstep_returns, recent_step_cost

T = 20


def line_env(**kwargs):
    return gym.wrappers.TimeLimit(LineEnv(**kwargs), T)


def build(*, cost_limit=5.0, num_costs=1, actor=None, hidden=(32, 32), lr=3e-3, device="cpu", **settings):
    torch.manual_seed(0)
    actor = (actor or GaussianActor(2, 1, hidden_sizes=hidden)).to(device)
    critic = EnsembleCritic(
        2, 1, num_costs=num_costs, hidden_sizes=hidden, reward_ensemble=1, cost_ensemble=1
    ).to(device)
    return CVPOPolicy(
        actor=actor,
        actor_optim=torch.optim.Adam(actor.parameters(), lr=lr),
        critic=critic,
        critic_optim=torch.optim.Adam(critic.parameters(), lr=lr),
        action_space=gym.spaces.Box(-1, 1, (1,)),
        cost_limit=cost_limit,
        max_episode_steps=T,
        **settings,
    ).to(device)


def collected(policy, steps=200, num_costs=1, num_envs=4):
    envs = DummyVectorEnv([lambda: line_env(num_costs=num_costs)] * num_envs)
    buffer = CostVectorReplayBuffer(50_000, num_envs, num_costs=num_costs)
    collector = CostCollector(policy, envs, buffer)
    collector.reset(gym_reset_kwargs={"seed": list(range(num_envs))})
    with policy_within_training_step(policy):
        collector.collect(n_step=steps)
    return collector


def train(policy, cycles=20, num_costs=1, updates=50):
    collector = collected(policy, num_costs=num_costs)
    for _ in range(cycles):
        with policy_within_training_step(policy):
            collector.collect(n_step=200)
            for _ in range(updates):
                stats = policy.update(128, collector.buffer)
    return stats


def executed_action(policy, samples=20_000):
    """Mean action that the stochastic policy executes, over states: what the constraint is about."""
    obs = np.random.default_rng(0).uniform(-1, 1, (samples, 2)).astype(np.float32)
    with torch.no_grad(), policy_within_training_step(policy):
        return float(policy(Batch(obs=obs, info={})).act.clamp(-1, 1).mean())


LEARN = {
    "gamma": 0.9,
    "threshold": "stationary",
    "kl_bound": 0.1,
    "kl_bound_mean": 0.02,
    "kl_bound_scale": 0.005,
}


def test_learns_the_constrained_optimum():
    """Limit 5 of at most 20: the best feasible mean action is -0.5, the unconstrained one +1."""
    stats = train(policy := build(cost_limit=5.0, **LEARN), cycles=30)
    assert executed_action(policy) == pytest.approx(-0.5, abs=0.06)
    assert stats.metrics["estep/kl_relative"] <= 1 + 1e-6


def test_without_a_limit_it_takes_the_best_action():
    train(policy := build(cost_limit=math.inf, **LEARN))
    assert executed_action(policy) > 0.7


def test_the_tightest_of_two_costs_binds():
    """The second cost is half the first, so limits (20, 2.5) ask for the same action as (5, 20)."""
    train(policy := build(cost_limit=(20.0, 2.5), num_costs=2, **LEARN), num_costs=2)
    assert executed_action(policy) == pytest.approx(-0.5, abs=0.06)


def test_a_limit_can_change_while_training():
    policy = build(cost_limit=5.0, **LEARN)
    before = policy.cost_threshold.clone()
    policy.cost_limit = 15.0
    torch.testing.assert_close(policy.cost_threshold, 3 * before)
    train(policy)
    assert executed_action(policy) == pytest.approx(0.5, abs=0.06)


def test_works_in_tianshous_own_trainer_with_tianshous_actor():
    net = Net(state_shape=2, hidden_sizes=[32, 32])
    actor = ActorProb(net, 1, conditioned_sigma=True, preprocess_net_output_dim=32)
    policy = build(cost_limit=5.0, actor=actor, **LEARN)
    envs = DummyVectorEnv([line_env] * 4)
    train_collector = CostCollector(policy, envs, CostVectorReplayBuffer(50_000, 4))
    test_collector = CostCollector(policy, DummyVectorEnv([line_env] * 2))
    result = OffpolicyTrainer(
        policy=policy,
        train_collector=train_collector,
        test_collector=test_collector,
        max_epoch=3,
        step_per_epoch=2000,
        step_per_collect=200,
        episode_per_test=4,
        update_per_step=0.2,
        batch_size=128,
        verbose=False,
        show_progress=False,
    ).run()
    assert result.gradient_step == 1200
    assert executed_action(policy) == pytest.approx(-0.5, abs=0.1)


def test_critics_see_the_action_as_executed_and_likelihoods_the_raw_one():
    """Raw samples beyond the box: every action that reaches a critic lies inside, the buffer's does not."""
    policy = build(actor=GaussianActor(2, 1, initial_std=1.9))
    collector = collected(policy)
    assert np.abs(collector.buffer.act[: len(collector.buffer)]).max() > 1
    seen = []
    for module in (policy.critic, policy.target_critic):
        module.register_forward_pre_hook(lambda _, args: seen.append(args[1].abs().max().item()))
    with policy_within_training_step(policy):
        policy.update(64, collector.buffer)
    assert len(seen) == 3  # targets, critic update, E-step
    assert max(seen) == 1.0  # clipped, not squashed


def test_nstep_targets_stop_at_the_ends_of_episodes():
    """Targets for every stored transition against a loop over the episodes."""
    gamma, steps = 0.9, 3
    policy = build()
    buffer = collected(policy, steps=4 * 50, num_envs=4).buffer
    indices = buffer.sample_indices(0)
    window = buffer.nstep_window(indices, steps)
    next_obs = torch.as_tensor(window.obs_next)
    values = torch.stack([next_obs[:, 0] + 2, next_obs[:, 1] - 3], 1)
    got = nstep_returns(window, values, gamma=gamma)
    newest = set(buffer.last_index.tolist())
    for index, row in zip(indices, got.double().numpy(), strict=True):
        expected, i = np.zeros(2), int(index)
        for k in range(steps):
            expected += gamma**k * np.array([buffer.rew[i], buffer.cost[i, 0]])
            if buffer.done[i] or i in newest or k == steps - 1:
                break
            i += 1
        bootstrap = np.array([buffer.obs_next[i, 0] + 2, buffer.obs_next[i, 1] - 3])
        np.testing.assert_allclose(row, expected + gamma ** (k + 1) * bootstrap, rtol=1e-4)


def test_termination_masks_reward_and_cost_alike():
    buffer = collected(build(), steps=80).buffer
    places, values = np.array([19]), torch.full((1, 2), 100.0)
    assert buffer.truncated[19]
    truncated = nstep_returns(buffer.nstep_window(places, 1), values, gamma=0.9)
    buffer._meta.terminated[19] = True
    terminated = nstep_returns(buffer.nstep_window(places, 1), values, gamma=0.9)
    torch.testing.assert_close(truncated - terminated, torch.full((1, 2), 90.0))


def test_frozen_old_policy_follows_once_per_collect_cycle():
    policy = build(old_policy="frozen")
    collector = collected(policy)
    parameters = lambda module: torch.nn.utils.parameters_to_vector(module.parameters())  # noqa: E731
    with policy_within_training_step(policy):
        collected_with = parameters(policy.actor).clone()
        for _ in range(3):
            policy.update(64, collector.buffer)
        torch.testing.assert_close(parameters(policy.old_actor), collected_with)
        assert not torch.equal(parameters(policy.actor), collected_with)
        collector.collect(n_step=4)
        collected_with = parameters(policy.actor).clone()
        policy.update(64, collector.buffer)
        torch.testing.assert_close(parameters(policy.old_actor), collected_with)


def test_frozen_old_policy_follows_data_that_were_collected_elsewhere():
    policy = build(old_policy="frozen")
    collector = collected(policy)
    with policy_within_training_step(policy):
        policy.update(64, collector.buffer)
        collector.policy = deepcopy(policy)
        collector.collect(n_step=4)
        collected_with = [p.clone() for p in policy.actor.parameters()]
        policy.update(64, collector.buffer)
    for old, new in zip(collected_with, policy.old_actor.parameters(), strict=True):
        assert torch.equal(old, new)


def test_cost_margin_tightens_the_threshold():
    policy = build(cost_limit=5.0)
    with_margin = build(cost_limit=5.0, cost_margin=0.25)
    torch.testing.assert_close(with_margin.cost_threshold, 0.75 * policy.cost_threshold)
    assert with_margin.cost_limit == policy.cost_limit


def test_the_constraint_is_about_the_mean_over_all_states():
    """Batches of dear and of cheap states in turn: alone they are infeasible or slack, their mean neither."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, 64, 16)

    def batches():
        for k in range(200):
            noise = torch.rand(shape, generator=generator)
            yield torch.rand(shape[1:], generator=generator), noise + (4.0 if k % 2 else 0.0)

    statuses = {}
    for rate in (1.0, 0.01):
        policy = build(cost_level_rate=rate, kl_bound=0.1)
        policy.cost_threshold = torch.tensor([2.45]).double()  # a little below the mean over all states, 2.5
        solutions = [policy._estep(r, c, policy._estep_threshold(c)) for r, c in batches()]
        statuses[rate] = {x.status for x in solutions[100:]}
    assert statuses == {1.0: {"slack", "infeasible"}, 0.01: {"active"}}
    met = np.mean([float(x.expected_cost) for x in solutions[100:]])
    assert met == pytest.approx(2.45, abs=0.01)


def test_cost_levels_are_means():
    level = CostLevel(rate=0.1)
    assert level.restart() is None
    values = torch.rand(50, 2, dtype=torch.float64)
    for i, value in enumerate(values):
        level.add(value)
        if i < 10:  # an ordinary mean at first, so that the start does not linger
            torch.testing.assert_close(level.running, values[: i + 1].mean(0))
    torch.testing.assert_close(level.restart(), values.mean(0))
    assert level.restart() is None


def test_testing_between_updates_does_not_move_the_frozen_policy():
    policy = build(old_policy="frozen")
    collector = collected(policy)
    with policy_within_training_step(policy):
        policy.update(64, collector.buffer)
        before = [p.clone() for p in policy.old_actor.parameters()]
        with policy_within_training_step(policy, enabled=False):
            policy(Batch(obs=np.zeros((1, 2), np.float32), info={}))
        policy.update(64, collector.buffer)
    for old, new in zip(before, policy.old_actor.parameters(), strict=True):
        assert torch.equal(old, new)


def test_polyak_old_policy_moves_by_its_rate():
    policy = build(old_policy="polyak", old_policy_tau=0.25)
    collector = collected(policy)
    before = [p.clone() for p in policy.old_actor.parameters()]
    with policy_within_training_step(policy):
        policy.update(64, collector.buffer)
    for old, new, actor in zip(before, policy.old_actor.parameters(), policy.actor.parameters(), strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * actor)


def test_an_averaged_actor_acts_outside_training_and_leaves_training_as_it_was():
    plain, averaged = (build(average_tau=tau) for tau in (None, 0.25))
    batch = Batch(obs=np.ones((1, 2), np.float32), info={})
    first = [p.clone() for p in averaged.average_actor.parameters()]
    for policy in (plain, averaged):
        collector = collected(policy)
        torch.manual_seed(0)
        with policy_within_training_step(policy):
            policy.update(64, collector.buffer)
    for old, new, actor in zip(
        first, averaged.average_actor.parameters(), averaged.actor.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * actor)
    for one, other in zip(plain.actor.parameters(), averaged.actor.parameters(), strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(averaged(batch).act, averaged.average_actor(batch.obs)[0][0])
    with policy_within_training_step(averaged):
        torch.manual_seed(1)
        sampled = averaged(batch).act
        torch.manual_seed(1)
        torch.testing.assert_close(sampled, sample_actions(*averaged.actor(batch.obs)[0], 1).squeeze(1))
    restored = build(average_tau=0.25)
    restored.load_state_dict(averaged.state_dict())
    torch.testing.assert_close(restored(batch).act, averaged(batch).act)


def test_mstep_stays_near_its_trust_region():
    """Many steps on one frozen old policy: both KLs settle near their bounds instead of running away."""
    settings = {"kl_multiplier_lr": 0.1, "kl_multiplier_max": 1000.0, "mstep_iterations": 20}
    policy = build(cost_limit=math.inf, kl_bound=1.0, kl_bound_mean=0.01, **settings)
    collector = collected(policy)
    with policy_within_training_step(policy):
        stats = [policy.update(128, collector.buffer) for _ in range(60)]
    assert np.mean([s.metrics["mstep/kl_mean_relative"] for s in stats[-20:]]) < 2.0


def test_acts_deterministically_only_outside_training():
    policy = build()
    batch = Batch(obs=np.zeros((1, 2), np.float32), info={})
    assert torch.equal(policy(batch).act, policy(batch).act)
    with policy_within_training_step(policy):
        assert not torch.equal(policy(batch).act, policy(batch).act)
    policy = build(deterministic_eval=False)
    assert not torch.equal(policy(batch).act, policy(batch).act)


def test_same_seed_same_parameters():
    def run():
        policy = build(cost_limit=5.0, **LEARN)
        train(policy, cycles=3, updates=5)
        return policy.state_dict()

    assert_same_state(run(), run())


def test_nan_in_the_buffer_leaves_the_parameters_alone():
    policy = build()
    collector = collected(policy)
    collector.buffer._meta.rew[:] = np.nan
    before = tensors(policy)
    with policy_within_training_step(policy), pytest.raises(NonFiniteError, match="critic loss"):
        policy.update(64, collector.buffer)
    after = policy.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_multipliers_survive_the_state_dict():
    policy, other = build(), build()
    policy.kl_multipliers += 0.7
    other.load_state_dict(policy.state_dict())
    torch.testing.assert_close(other.kl_multipliers, torch.tensor([0.7, 0.7]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gamma": 1.0}, r"gamma must be in \(0, 1\).*got 1.0"),
        ({"kl_bound": -0.1}, "kl_bound must be > 0, got -0.1"),
        ({"kl_bound": math.nan}, "kl_bound must be > 0, got nan"),
        ({"num_samples": 0}, "num_samples must be a whole number >= 1, got 0"),
        ({"threshold": "papers"}, "threshold must be one of .* got 'papers'"),
        ({"average_tau": 0.0}, r"average_tau must be None or in \(0, 1\], got 0.0"),
        ({"cost_margin": 1.0}, r"cost_margin must be in \[0, 1\), got 1.0"),
        ({"cost_calibration": 1.5}, r"cost_calibration must be in \[0, 1\], got 1.5"),
        ({"tau": 0.0}, r"tau must be in \(0, 1\], got 0.0"),
        ({"multiplier_max": -1.0}, "multiplier_max must be None or >= 0, got -1.0"),
        ({"cost_limit": -1.0}, "cost_limit must be >= 0"),
        ({"cost_limit": math.nan}, "cost_limit must be >= 0"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        build(**settings)


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="gama"):
        build(gama=0.9)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (gym.spaces.Discrete(3), "continuous"),
        (gym.spaces.Box(-np.inf, np.inf, (1,)), "bounded"),
    ],
)
def test_unusable_action_spaces_are_refused(space, words):
    actor, critic = GaussianActor(2, 1), EnsembleCritic(2, 1)
    with pytest.raises(ValueError, match=words):
        CVPOPolicy(
            actor=actor,
            actor_optim=torch.optim.Adam(actor.parameters()),
            critic=critic,
            critic_optim=torch.optim.Adam(critic.parameters()),
            action_space=space,
            cost_limit=1.0,
            max_episode_steps=10,
        )


@pytest.mark.parametrize("steps", [8, 40, 4 * 33])
def test_recent_step_cost_reads_the_newest_steps_of_each_environment(steps):
    """Before the buffer is filled, and after it has wrapped around."""
    buffer = CostVectorReplayBuffer(4 * 20, 4)
    collector = CostCollector(build(), DummyVectorEnv([line_env] * 4), buffer)
    collector.reset()
    costs = []
    step = collector.env.step

    def watched(*args):
        result = step(*args)
        costs.append(collector.env.cost[:, 0])
        return result

    collector.env.step = watched
    collector.collect(n_step=steps)
    assert recent_step_cost(buffer, 15) == pytest.approx([np.mean(costs[-15:])], rel=1e-5)


def test_calibration_meets_the_limit_on_average():
    """The loop through measured episodes hovers about the limit, so cycles are averaged."""
    policy = build(cost_limit=5.0, **(LEARN | {"cost_calibration": 0.2, "kl_bound": 0.02}))
    train(policy, cycles=10)
    actions = []
    for _ in range(6):
        train(policy, cycles=1)
        actions.append(executed_action(policy))
    assert np.mean(actions) == pytest.approx(-0.5, abs=0.1)
    assert policy.cost_bias.abs() > 0


@pytest.mark.parametrize("calibration", [0.0, 1.0])
def test_calibration_takes_a_constant_bias_of_the_cost_critic_away(calibration):
    policy = build(cost_calibration=calibration, cost_limit=10.0)
    collector = collected(policy)
    buffer = collector.buffer
    results = []
    for bias in (0.0, 50.0):
        with torch.no_grad():
            policy.target_critic.layers[-1].bias[1] += bias
        for _ in range(2):  # the first E-step shows what the critic says
            policy._acted_since_update = True
            batch = policy.process_fn(*_sampled(buffer))
            torch.manual_seed(3)
            actions = sample_actions(batch.old_mean, batch.old_scale, 16)
            with torch.no_grad():
                q = policy.target_critic(batch.obs, actions.clamp(-1, 1))
            q_reward, q_cost = policy._reduce(q)
            solution = policy._estep(q_reward, q_cost, policy._estep_threshold(q_cost))
        results.append(solution.weights)
    equal = torch.allclose(results[0], results[1], atol=1e-4)
    assert equal == (calibration == 1.0)


def _sampled(buffer):
    indices = np.arange(64)
    return buffer[indices], buffer, indices
