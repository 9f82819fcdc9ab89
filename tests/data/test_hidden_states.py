"""Collectors hand hidden states on within an episode and not into the next one, in each environment."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.data import Batch
from tianshou.env import DummyVectorEnv
from tianshou.policy import BasePolicy
from tianshou.policy.base import policy_within_training_step
from toys.envs import LineEnv

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer

LENGTHS = (3, 5, 4)
N = len(LENGTHS)


class StepsEnv(LineEnv):
    """Tells the number of steps of the episode before each step, and its own length."""

    def __init__(self, length):
        super().__init__()
        self.length, self.count = length, 0

    def observe(self):
        return np.array([self.count, self.length], np.float32)

    def reset(self, **kwargs):
        self.count = 0
        _, info = super().reset(**kwargs)
        return self.observe(), info

    def step(self, action):
        self.count += 1
        _, reward, _, _, info = super().step(action)
        return self.observe(), reward, False, self.count == self.length, info


class CountingPolicy(BasePolicy):
    """Counts its steps in the hidden state, and compares the count with what the environment tells."""

    def __init__(self, *, is_recurrent):
        super().__init__(action_space=gym.spaces.Box(-1, 1, (1,)))
        self.is_recurrent = is_recurrent
        self.seen = []

    def forward(self, batch, state=None, **kwargs):
        length, steps = batch.obs[:, 1], batch.obs[:, 0]
        state = torch.zeros(len(steps), 2) if state is None else state
        assert state[:, 0].tolist() == list(steps)
        assert all(x in (0, y) for x, y in zip(state[:, 1].tolist(), length, strict=True))
        self.seen.append(len(steps))
        after = torch.stack([state[:, 0] + 1, torch.as_tensor(length)], 1)
        return Batch(act=torch.zeros(len(steps), 1), state=after)

    def learn(self, batch, *args, **kwargs):
        raise AssertionError("nothing is learnt")


def collector(fast, *, is_recurrent=True, **kwargs):
    envs = DummyVectorEnv([lambda n=n: StepsEnv(n) for n in LENGTHS])
    made = CostCollector(
        CountingPolicy(is_recurrent=is_recurrent), envs, CostVectorReplayBuffer(300, N), fast=fast, **kwargs
    )
    made.reset(gym_reset_kwargs={"seed": list(range(N))})
    return made


def play(made, **kwargs):
    with policy_within_training_step(made.policy):
        return made.collect(**kwargs)


@pytest.mark.parametrize("fast", [True, False])
def test_each_environment_has_the_hidden_state_of_its_episode(fast):
    made = collector(fast)
    for steps in (N * 4, N * 1, N * 23):
        play(made, n_step=steps)
    assert sum(made.policy.seen) == N * 28
    play(made, n_episode=11)  # environments leave one after the other
    assert made.policy.seen[-1] < N
    play(made, n_step=N * 6)
    play(made, n_episode=2)  # fewer than environments


@pytest.mark.parametrize("fast", [True, False])
def test_nothing_of_the_hidden_state_is_stored(fast):
    made = collector(fast)
    play(made, n_step=N * 4)
    play(made, n_step=N * 4)
    assert "hidden_state" not in made.buffer._meta.get("policy", Batch()).get_keys()
    assert made.fast is fast


def test_the_state_of_another_policy_is_stored_by_tianshou_s_loop():
    made = collector(True, is_recurrent=False)
    for _ in range(3):
        play(made, n_step=N * 4)
    assert made.buffer.policy.hidden_state.shape == (300, 2)


@pytest.mark.parametrize("steps", [2, 3])
def test_a_collector_s_state_has_the_hidden_states(steps):
    made = collector(True, replayable=True)
    play(made, n_step=N * 3)  # a first episode is over
    play(made, n_step=N * steps)
    state = made.state_dict()
    again = collector(True, replayable=True)
    assert again.load_state_dict(state)
    np.testing.assert_array_equal(again.state_dict()["hidden_states"], state["hidden_states"])
    play(again, n_step=N * 9)  # the policy compares
    assert again.policy.seen


def test_a_state_of_its_own_kind_cannot_be_saved():
    made = collector(True, is_recurrent=False, replayable=True)
    play(made, n_step=N * 4)
    with pytest.raises(ValueError, match="without a state of its own kind"):
        made.state_dict()
