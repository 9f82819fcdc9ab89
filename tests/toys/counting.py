"""Check collectors and buffers against the counting environment, whose numbers are known in advance."""

from typing import Any

import numpy as np
from tianshou.data import Batch, ReplayBuffer
from tianshou.policy import BasePolicy
from tianshou.policy.base import TrainingStats

from toys.counting_envs import CountingEnv, length


def truth(index: int, episode: int, num_costs: int, discount: float) -> dict[str, Any]:
    """Return the sums over one episode, by a bare loop over a fresh environment."""
    env = CountingEnv(index, num_costs, first_episode=episode)
    env.reset()
    sums = {"return": 0.0, "cost": np.zeros(num_costs), "len": 0}
    sums |= {"discounted_return": 0.0, "discounted_cost": np.zeros(num_costs)}
    weight, done = 1.0, False
    while not done:
        _, rew, terminated, truncated, info = env.step(np.zeros(2))
        sums["len"] += 1
        sums["return"] += rew
        sums["cost"] = sums["cost"] + info["cost"]
        sums["discounted_return"] += weight * rew
        sums["discounted_cost"] = sums["discounted_cost"] + weight * np.asarray(info["cost"])
        weight, done = weight * discount, terminated or truncated
    return sums


class RandomPolicy(BasePolicy):
    """Draws uniform actions from its own generator and learns nothing.

    :param entries: further entries of the batch, as functions of the actions ``[B, 2]``.
    """

    def __init__(self, seed: int = 0, **entries: Any) -> None:
        super().__init__(action_space=CountingEnv.action_space)
        self.rng = np.random.default_rng(seed)
        self.entries = entries

    def forward(self, batch: Any, state: Any = None, **kwargs: Any) -> Any:
        act = self.rng.uniform(-1, 1, (len(batch.obs), 2)).astype(np.float32)
        return Batch(act=act, **{key: make(act) for key, make in self.entries.items()})

    def learn(self, batch: Any, *args: Any, **kwargs: Any) -> TrainingStats:
        return TrainingStats()


class Finished:
    """Notes which episodes ended, as ``(env, episode)`` in their order; an on-step hook of a collector."""

    def __init__(self) -> None:
        self.episodes: list[tuple[int, int]] = []

    def __call__(self, action_batch: Any, rollout_batch: Any) -> None:
        obs = rollout_batch.obs_next[rollout_batch.done]
        self.episodes.extend((int(e), int(k)) for e, k in obs[:, :2])

    def pop(self) -> list[tuple[int, int]]:
        episodes, self.episodes = self.episodes, []
        return episodes


def check_stats(stats: Any, finished: list[tuple[int, int]], discount: float) -> None:
    """Assert that the reported episodes are exactly those that ended, with their true sums."""
    num_costs = stats.costs.shape[1]
    expected = [truth(e, k, num_costs, discount) for e, k in finished]
    assert stats.n_collected_episodes == len(finished)
    assert stats.lens.tolist() == [entry["len"] for entry in expected]
    # Returns and costs are equal bit for bit: both sides add in the same order.
    assert stats.returns.tolist() == [entry["return"] for entry in expected]
    assert stats.costs.tolist() == [entry["cost"].tolist() for entry in expected]
    for name, value in (
        ("discounted_return", stats.discounted_returns),
        ("discounted_cost", stats.discounted_costs),
    ):
        np.testing.assert_allclose(
            value, np.array([entry[name] for entry in expected]).reshape(value.shape), rtol=1e-12
        )
    if finished:
        assert stats.returns_stat.mean == np.mean(stats.returns)
        for c in range(num_costs):
            assert stats.costs_stat[c].mean == np.mean(stats.costs[:, c])
            assert stats.costs_stat[c].max == np.max(stats.costs[:, c])
    else:
        assert stats.costs_stat is None


def check_links(buffer: ReplayBuffer, abandoned: set[tuple[int, int]]) -> None:
    """Assert that `next` and `prev` follow the episodes, and that only ended episodes are marked as done.

    :param abandoned: episodes ``(env, episode)`` that a reset of the environments has cut off.
    """
    indices = buffer.sample_indices(0)
    following, previous = buffer.next(indices), buffer.prev(indices)
    open_ends = set(buffer.unfinished_index().tolist())
    for i, j, h in zip(indices, following, previous, strict=True):
        e, k, t = buffer.obs[i, :3].astype(int)
        ends = t + 1 == length(e, k)
        if j != i:
            assert buffer.obs[j, :3].tolist() == [e, k, t + 1]
        else:
            assert buffer.done[i] or i in open_ends
        if h != i:
            assert buffer.obs[h, :3].tolist() == [e, k, t - 1]
        if buffer.done[i]:
            assert ends or (e, k) in abandoned
        assert bool(buffer.terminated[i]) == (ends and k % 2 == 0)
        expected = CountingEnv(e, buffer.num_costs, first_episode=k)
        expected.reset()
        expected.t = t
        obs_next, rew, _, _, info = expected.step(np.zeros(2))
        assert buffer.rew[i] == rew
        np.testing.assert_array_equal(buffer.cost[i], np.float32(info["cost"]))
        np.testing.assert_array_equal(buffer.obs_next[i], np.float32(obs_next))
