"""Environments are brought back to where they were, and collectors go on from there."""

import numpy as np
import pytest
from tianshou.env import DummyVectorEnv, SubprocVectorEnv
from toys.counting import RandomPolicy
from toys.counting_envs import SeedShowingEnv

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.data.cost_env import CostVectorEnv
from fsrl_ext.data.history import EnvHistory, replay


def vector(kind=DummyVectorEnv, num_envs=3):
    return kind([lambda i=i: SeedShowingEnv(i) for i in range(num_envs)])


def collector(size=60, replayable=True, **settings):
    buffer = CostVectorReplayBuffer(size, 3, random_seed=5)
    return CostCollector(RandomPolicy(), vector(), buffer, replayable=replayable, discount=0.9, **settings)


@pytest.mark.parametrize("kind", [DummyVectorEnv, SubprocVectorEnv])
def test_replay_leads_where_the_history_led(kind):
    env = CostVectorEnv(vector(kind), 1)
    env.history = EnvHistory(3)
    rng = np.random.default_rng(0)
    rows = np.zeros((3, 4))

    def step(ids):
        rows[ids] = env.step(rng.uniform(-1, 1, (len(ids), 2)), ids)[0]

    def reset(ids, **kwargs):
        rows[ids] = env.reset(np.array(ids), **kwargs)[0]

    reset([0, 1, 2], seed=[7, 8, 9])
    step([0, 1, 2])
    step([1])
    reset([1])
    reset([1])  # The second reset comes at the same step.
    step([0, 1])
    env.history.renew([17, 18, 19])
    reset([2])
    step([2])
    reset([2])
    state = env.history.state_dict()
    assert state["seeds"] == [7, 8, 19]
    assert [len(x) for x in state["actions"]] == [2, 3, 1]
    assert state["resets"] == [[], [2, 2], [1]]
    assert state["due"] == [17, 18, None]
    other = CostVectorEnv(vector(kind), 1)
    np.testing.assert_array_equal(replay(other, state), rows)
    action = rng.uniform(-1, 1, (3, 2))
    np.testing.assert_array_equal(other.step(action)[0], env.step(action)[0])
    env.close()
    other.close()


def test_environments_that_were_never_seeded_or_got_options_cannot_be_replayed():
    env = CostVectorEnv(vector(), 1)
    env.history = EnvHistory(3)
    env.reset()
    assert replay(CostVectorEnv(vector(), 1), env.history.state_dict()) is None
    env.reset(seed=3)
    assert env.history.state_dict()["seeds"] == [3, 3, 3]
    env.reset(np.array([1]), seed=4, options={"level": 2})
    assert env.history.state_dict()["seeds"] == [3, None, 3]


@pytest.mark.parametrize("steps", [9, 30, 90])
@pytest.mark.parametrize("fast", [True, False])
def test_collectors_go_on_from_a_saved_state(steps, fast):
    """Episodes are under way; the buffer is about to wrap around, does so, or has done so."""
    whole, other = collector(size=60, fast=fast), collector(size=60, fast=fast)
    whole.reset(gym_reset_kwargs={"seed": [1, 2, 3]})
    whole.collect(n_step=steps)
    whole.renew_seeds([4, 5, 6])
    whole.collect(n_step=6)
    rng = whole.policy.rng.bit_generator.state
    state = whole.state_dict()
    assert other.load_state_dict(state)
    other.policy.rng.bit_generator.state = rng
    for _ in range(3):
        one, two = whole.collect(n_step=12), other.collect(n_step=12)
        for name in ("returns", "lens", "costs", "discounted_returns", "discounted_costs"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
        assert whole.collect_step == other.collect_step
        sampled = [c.buffer.sample(32) for c in (whole, other)]
        np.testing.assert_array_equal(sampled[0][1], sampled[1][1])
        for key in ("obs", "act", "rew", "done", "obs_next", "cost"):
            np.testing.assert_array_equal(sampled[0][0][key], sampled[1][0][key], err_msg=key)
        np.testing.assert_array_equal(whole.buffer.unfinished_index(), other.buffer.unfinished_index())


def test_an_empty_buffer_goes_on():
    first, second = CostVectorReplayBuffer(60, 3), CostVectorReplayBuffer(60, 3)
    second.load_state_dict(first.state_dict())
    assert len(second) == 0
    with pytest.raises(ValueError, match="3 parts of 20 transitions, as when it was saved, got 3 of 10"):
        CostVectorReplayBuffer(30, 3).load_state_dict(first.state_dict())


def test_what_cannot_be_saved_says_so():
    plain = collector(replayable=False)
    plain.reset()
    for call in (plain.state_dict, lambda: plain.renew_seeds([1, 2, 3])):
        with pytest.raises(ValueError, match="replayable=True"):
            call()
    shown = collector(pass_info=True)
    shown.reset()
    with pytest.raises(ValueError, match="without pass_info"):
        shown.state_dict()
    with pytest.raises(ValueError, match="seeds must have 3 entries, got 2"):
        collector().renew_seeds([1, 2])
