"""Tianshou's prioritised, cached and hindsight buffers with costs."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tianshou.data import PrioritizedVectorReplayBuffer, ReplayBuffer, ReplayBufferManager
from tianshou.env import DummyVectorEnv
from tianshou.policy.base import policy_within_training_step
from toys.buffers import append_numbered, numbered_buffer, numbered_step
from toys.envs import LineEnv
from toys.policies import OFFPOLICY, build

from fsrl_ext.data import (
    CachedCostBuffer,
    CostCollector,
    CostVectorReplayBuffer,
    HERCostBuffer,
    NonFiniteStepError,
    PrioritizedCostBuffer,
    WithCosts,
)
from fsrl_ext.data.randomness import seed_globals
from fsrl_ext.net import QValues
from fsrl_ext.policy.offpolicy.critics import critic_losses

PARTS = {"achieved_goal": 1, "desired_goal": 1, "observation": 2}


def reached(achieved, desired):
    """Pay 1 for a goal that is nearer than a tenth."""
    return (np.abs(achieved - desired) < 0.1).all(-1).astype(float)


def prioritised(size=16, num_costs=1, **settings):
    return PrioritizedCostBuffer(size, 2, alpha=0.6, beta=0.4, num_costs=num_costs, **settings)


def cached(size=8, num_costs=1, **settings):
    return CachedCostBuffer(ReplayBuffer(size), 2, 20, num_costs=num_costs, **settings)


def hindsight(size=16, num_costs=1, horizon=20, **settings):
    return HERCostBuffer(
        size,
        2,
        parts=PARTS,
        compute_reward_fn=reached,
        horizon=horizon,
        num_costs=num_costs,
        **settings,
    )


class GoalEnv(gym.Env):
    """Moves a point on a line to a goal; the observation has the parts of :data:`PARTS`."""

    def __init__(self):
        self.observation_space = spaces.Box(-2.0, 2.0, (4,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def observe(self):
        return np.array([self.place, self.goal, self.place, 1.0], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.goal = 0.0, float(self.np_random.uniform(-1, 1))
        return self.observe(), {}

    def step(self, action):
        self.place = float(np.clip(self.place + 0.3 * action[0], -1, 1))
        reward = float(abs(self.place - self.goal) < 0.1)
        return self.observe(), reward, False, False, {"cost": abs(self.place)}


def filled(buffer, env=LineEnv, steps=200, policy=None, limit=20):
    """Return a collector that has written training steps of two environments into a buffer."""
    envs = DummyVectorEnv([lambda: gym.wrappers.TimeLimit(env(), limit)] * 2)
    collector = CostCollector(policy or build("sac"), envs, buffer)
    collector.reset_env(gym_reset_kwargs={"seed": 0})
    with policy_within_training_step(collector.policy):
        collector.collect(n_step=steps // 2)
        collector.collect(n_step=steps // 2)
    return collector


@pytest.mark.parametrize("num_costs", [1, 2])
@pytest.mark.parametrize("make", [prioritised, cached], ids=lambda x: x.__name__)
def test_costs_stay_with_their_transitions(make, num_costs):
    buffer = make(num_costs=num_costs)
    for i in range(23):
        buffer.add(numbered_step(i, 2, num_costs, done=i % 3 == 2), np.arange(2))
    batch, indices = buffer.sample(64)
    env, i = np.floor(batch.obs).T
    expected = 0.1 * i[:, None] + env[:, None] + np.arange(num_costs)
    np.testing.assert_allclose(batch.cost, expected, rtol=1e-6)
    np.testing.assert_array_equal(batch.cost, buffer.cost[indices])
    assert buffer.cost.dtype == np.float32
    assert "info" not in buffer._meta.get_keys()


@pytest.mark.parametrize("make", [prioritised, cached, hindsight], ids=lambda x: x.__name__)
def test_what_is_refused_is_not_stored(make):
    buffer = make()
    width = {"obs": np.zeros((2, 4)), "obs_next": np.zeros((2, 4))} if make is hindsight else {}
    with pytest.raises(ValueError, match="the batch has no `cost`"):
        buffer.add(numbered_step(0, cost=None, **width))
    with pytest.raises(NonFiniteStepError, match="cost"):
        buffer.add(numbered_step(0, cost=np.array([[0.0], [np.nan]]), **width))
    assert len(buffer) == 0


@pytest.mark.parametrize("steps", [1, 5, 23])
def test_neighbours_are_those_of_the_vector_buffer(steps):
    mine, plain = prioritised(), numbered_buffer(CostVectorReplayBuffer, steps=steps)
    for i in range(steps):
        append_numbered(mine, i)
    places = mine.sample_indices(0)
    np.testing.assert_array_equal(places, plain.sample_indices(0))
    np.testing.assert_array_equal(mine.next(places), plain.next(places))
    np.testing.assert_array_equal(mine.prev(places), plain.prev(places))


class TestPrioritised:
    def test_a_transition_of_high_priority_comes_often_and_weighs_little(self):
        buffer = filled(prioritised(400)).buffer
        buffer.update_weight(buffer.sample_indices(0), np.ones(200))
        buffer.update_weight(np.array([7]), np.array([100.0]))
        batch, indices = buffer.sample(2_000)
        share = 100**0.6 / (100**0.6 + 199)
        assert (indices == 7).mean() == pytest.approx(share, rel=0.3)
        assert batch.weight[indices == 7].max() < batch.weight[indices != 7].min()

    def test_every_collected_transition_can_be_sampled(self):
        buffer = filled(prioritised(400)).buffer
        assert len(buffer) == 200
        assert (buffer.weight[buffer.sample_indices(0)] > 0).all()

    @pytest.mark.parametrize("name", OFFPOLICY)
    def test_a_policy_hands_back_the_errors_of_its_critics(self, name, monkeypatch):
        policy = build(name)
        buffer = filled(prioritised(400), policy=policy).buffer
        handed = []
        monkeypatch.setattr(buffer, "update_weight", lambda indices, weight: handed.append((indices, weight)))
        with policy_within_training_step(policy):
            batch, indices = buffer.sample(32)
            batch = policy.process_fn(batch, buffer, indices)
            q = policy.critic(batch.obs, batch.act.clamp(-1, 1))
            errors = torch.cat([q.reward - batch.returns[:, 0], (q.cost - batch.returns[:, 1]).flatten(0, 1)])
            wanted = errors.abs().mean(0).detach()
            policy.learn(batch)
            policy.post_process_fn(batch, buffer, indices)
        ((at, given),) = handed
        np.testing.assert_array_equal(at, indices)
        torch.testing.assert_close(given, wanted)

    def test_a_policy_learns_from_it(self):
        policy = build("ddpg")
        collector = filled(prioritised(400), policy=policy)
        before = collector.buffer.weight[collector.buffer.sample_indices(0)].copy()
        with policy_within_training_step(policy):
            for _ in range(5):
                stats = policy.update(32, collector.buffer)
        assert np.isfinite(list(stats.metrics.values())).all()
        assert (collector.buffer.weight[collector.buffer.sample_indices(0)] != before).any()


class TestWeights:
    def test_losses_and_gradients_are_those_of_autograd(self):
        torch.manual_seed(0)
        q = QValues(torch.randn(2, 6, requires_grad=True), torch.randn(2, 3, 6, requires_grad=True))
        targets, weights = torch.randn(6, 3), torch.rand(6)
        losses = critic_losses(q, targets, weights)
        of_reward = (weights * (q.reward - targets[:, 0]).square()).mean(1).sum()
        of_cost = (weights * (q.cost - targets[:, 1:].T[:, None]).square()).mean(2).sum()
        torch.testing.assert_close(losses.total, (of_reward + of_cost).detach())
        for mine, exact in zip(
            losses.gradients, torch.autograd.grad(of_reward + of_cost, tuple(q)), strict=True
        ):
            torch.testing.assert_close(mine, exact)

    def test_equal_weights_change_nothing(self):
        torch.manual_seed(0)
        q, targets = QValues(torch.randn(2, 6), torch.randn(1, 2, 6)), torch.randn(6, 2)
        plain, weighted = critic_losses(q, targets), critic_losses(q, targets, torch.ones(6))
        torch.testing.assert_close(plain.total, weighted.total)
        torch.testing.assert_close(plain.gradients, weighted.gradients)
        assert plain.priorities is None


class TestCached:
    def test_an_episode_moves_to_the_main_buffer_when_it_ends(self):
        buffer = cached(100)
        for i in range(5):
            buffer.add(numbered_step(i, 2, done=i == 3), np.arange(2))
        assert len(buffer.main_buffer) == 8
        assert [len(x) for x in buffer.cached_buffers] == [1, 1]
        np.testing.assert_allclose(buffer.cost[:4, 0], [0.0, 0.1, 0.2, 0.3], atol=1e-6)
        np.testing.assert_allclose(buffer.cost[4:8, 0], [1.0, 1.1, 1.2, 1.3], atol=1e-6)
        assert buffer.next(np.arange(8)).tolist() == [1, 2, 3, 3, 5, 6, 7, 7]

    def test_a_policy_learns_from_it(self):
        policy = build("ddpg")
        collector = filled(cached(400), policy=policy)
        assert len(collector.buffer.main_buffer) == 200
        with policy_within_training_step(policy):
            stats = policy.update(32, collector.buffer)
        assert np.isfinite(list(stats.metrics.values())).all()

    def test_a_reset_closes_the_open_episodes(self):
        collector = filled(cached(400), steps=60)
        collector.reset_env()
        assert not len(collector.buffer.unfinished_index())


class TestHindsight:
    def collector(self, **settings):
        policy = build("ddpg", obs_dim=4)
        return filled(hindsight(400, **settings), env=GoalEnv, policy=policy)

    def test_observations_go_in_and_out_as_vectors(self):
        collector = self.collector()
        places = collector.buffer.sample_indices(0)
        obs, following = collector.buffer.obs[places], collector.buffer.obs_next[places]
        assert obs.shape == following.shape == (200, 4)
        assert obs.dtype == np.float32
        np.testing.assert_array_equal(obs[:, 0], obs[:, 2])
        inside = ~collector.buffer.done[places]
        np.testing.assert_array_equal(
            collector.buffer.obs[places + 1][inside[:]][:50], following[inside][:50]
        )
        assert collector.buffer[places].obs.shape == (200, 4)

    def test_goals_and_rewards_are_rewritten_together_and_costs_stay(self):
        buffer = self.collector(future_k=8.0).buffer
        places = buffer.sample_indices(0)
        before = buffer.obs[places], buffer.rew[places].copy(), buffer.cost[places].copy()
        seed_globals(0)
        batch, indices = buffer.sample(300)
        assert (batch.obs[:, 1] != buffer_at(before[0][:, 1], indices, places)).mean() > 0.5
        np.testing.assert_allclose(batch.rew, reached(batch.obs_next[:, :1], batch.obs_next[:, 1:2]))
        np.testing.assert_array_equal(batch.cost, np.abs(batch.obs_next[:, :1]))
        np.testing.assert_array_equal(buffer.cost[places], before[2])
        assert batch.rew.mean() > before[1].mean()
        buffer.close_episodes()
        np.testing.assert_array_equal(buffer.obs[places], before[0])
        np.testing.assert_array_equal(buffer.rew[places], before[1])

    def test_an_nstep_window_has_the_goals_of_its_batch(self):
        buffer = self.collector().buffer
        batch, indices = buffer.sample(64)
        buffer.sample_indices(0)  # a policy measures the data between a sample and its targets
        window = buffer.nstep_window(indices, 3)
        np.testing.assert_array_equal(window.obs_next[:, 1], batch.obs[:, 1])
        np.testing.assert_allclose(window.signals[0, :, 0], batch.rew)

    def test_a_policy_learns_from_it(self):
        collector = self.collector()
        with policy_within_training_step(collector.policy):
            for _ in range(3):
                stats = collector.policy.update(32, collector.buffer)
        assert np.isfinite(list(stats.metrics.values())).all()

    def test_parts_must_be_those_of_the_observations(self):
        with pytest.raises(ValueError, match="parts must have the sizes of achieved_goal"):
            HERCostBuffer(
                8, 1, parts={"desired_goal": 1, "observation": 1}, compute_reward_fn=reached, horizon=5
            )
        with pytest.raises(
            ValueError, match="observations must have 4 numbers, the sum of parts, got the shape"
        ):
            hindsight().add(numbered_step(0))


def buffer_at(values, indices, places):
    """Return the values ``[len(places)]`` of stored transitions at other places."""
    by_place = np.full(places.max() + 1, np.nan)
    by_place[places] = values
    return by_place[indices]


def test_the_mix_in_serves_a_buffer_of_one_s_own():
    class Mine(WithCosts, PrioritizedVectorReplayBuffer):
        pass

    buffer = Mine(20, 2, alpha=0.5, beta=0.5, num_costs=3)
    assert isinstance(buffer, ReplayBufferManager)
    buffer.add(numbered_step(0, 2, 3))
    assert buffer.cost.shape == (20, 3)
    with pytest.raises(NotImplementedError, match="Mine cannot be written to a file"):
        buffer.save_hdf5("nowhere")
