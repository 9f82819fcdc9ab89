"""n-step windows are what a walk from transition to transition finds."""

import functools

import numpy as np
import pytest
from tianshou.env import DummyVectorEnv
from toys.counting import RandomPolicy
from toys.counting_envs import CountingEnv, length

from fsrl_ext.data import CostCollector, CostReplayBuffer, CostVectorReplayBuffer


def filled(size, steps, num_envs=3, num_costs=2):
    """Make a buffer of episodes of 2 to 6 steps; a reset cut off the first one of each environment."""
    if num_envs == 1:
        buffer = CostReplayBuffer(size, num_costs)
    else:
        buffer = CostVectorReplayBuffer(size * num_envs, num_envs, num_costs)
    envs = DummyVectorEnv([functools.partial(CountingEnv, i, num_costs) for i in range(num_envs)])
    collector = CostCollector(RandomPolicy(), envs, buffer)
    collector.reset()
    collector.collect(n_step=num_envs)
    collector.reset_env()
    collector.collect(n_step=num_envs * (steps - 1))
    return buffer


def played(env, episode, t, num_costs):
    """Return what the environment itself answers to step ``t`` of an episode."""
    world = CountingEnv(env, num_costs, first_episode=episode)
    world.reset()
    world.t = t
    obs_next, rew, terminated, _, info = world.step(np.zeros(2))
    return obs_next, [rew, *np.atleast_1d(info["cost"])], terminated


@pytest.mark.parametrize("num_steps", [1, 2, 4])
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize(
    ("size", "steps"),
    [(20, 13), (20, 50), (5, 48), (4, 50)],
    ids=["partly filled", "wrapped around", "smaller than an episode", "one window"],
)
def test_windows_follow_the_episodes_and_stop_at_their_ends(num_steps, num_envs, size, steps):
    buffer = filled(size, steps, num_envs)
    indices = buffer.sample_indices(0)
    assert len(indices) == num_envs * min(steps, size)
    stored = {tuple(buffer.obs[i, :3].astype(int)) for i in indices}
    window = buffer.nstep_window(indices, num_steps)
    assert window.signals.shape == (num_steps, len(indices), 3)
    assert window.signals.dtype == window.obs_next.dtype == np.float32
    assert window.alive.dtype == window.terminated.dtype == bool
    cut = 0
    for b, i in enumerate(indices):
        env, episode, t = buffer.obs[i, :3].astype(int)
        for k in range(num_steps):
            alive = k == 0 or (env, episode, t + 1) in stored
            assert window.alive[k, b] == alive
            if not alive:
                cut += 1
                assert not window.alive[k:, b].any()
                break
            t += k > 0
            obs_next, signals, terminated = played(env, episode, t, 2)
            np.testing.assert_array_equal(window.signals[k, b], np.float32(signals))
            np.testing.assert_array_equal(buffer.obs_next[window.places[k, b]], np.float32(obs_next))
        np.testing.assert_array_equal(window.obs_next[b], np.float32(obs_next))
        np.testing.assert_array_equal(buffer.obs_next[window.places[-1, b]], np.float32(obs_next))
        assert window.terminated[b] == terminated
        assert not terminated or t + 1 == length(env, episode)
    assert (cut > 0) == (num_steps > 1)


def test_a_time_limit_does_not_terminate():
    buffer = filled(20, 20, 1)
    ends = np.flatnonzero(buffer.done)
    window = buffer.nstep_window(ends, 3)
    assert not window.alive[1:].any()
    assert buffer.obs[ends, 1].tolist() == [0, 1, 2, 3, 4]
    # The reset of the environment cut off episode 0, and the time limit cut off the odd ones.
    assert window.terminated.tolist() == [False, False, True, False, True]


@pytest.mark.parametrize("num_envs", [1, 3])
def test_windows_longer_than_the_buffer_are_named(num_envs):
    buffer = filled(4, 50, num_envs)
    words = f"num_steps must be <= 4, the places that the buffer of size {4 * num_envs} has .* got 5"
    with pytest.raises(ValueError, match=words):
        buffer.nstep_window(buffer.sample_indices(0), 5)


def test_unreadable_windows_are_named():
    with pytest.raises(ValueError, match="num_steps must be >= 1, got 0"):
        filled(20, 10).nstep_window(np.arange(3), 0)
    with pytest.raises(ValueError, match="must store obs_next"):
        CostReplayBuffer(5, ignore_obs_next=True).nstep_window(np.arange(3), 1)
