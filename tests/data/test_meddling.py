"""What a collector stores does not change when environments and policies change what they were given."""

import numpy as np
import pytest
from tianshou.data import Batch
from tianshou.env import DummyVectorEnv, ShmemVectorEnv
from toys.counting import RandomPolicy
from toys.counting_envs import DictEnv, MeddlingEnv

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.data.episodes import EpisodeLog


class MeddlingPolicy(RandomPolicy):
    """Changes the observations that it sees."""

    def forward(self, batch, state=None, **kwargs):
        answer = super().forward(batch, state, **kwargs)
        batch.obs[...] = -1.0
        return answer


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("num_costs", [1, 2])
def test_meddling_changes_no_row_and_no_history(num_costs, fast, random):
    def rows(policy, meddles):
        envs = DummyVectorEnv([lambda i=i: MeddlingEnv(i, num_costs, meddles) for i in range(3)])
        buffer = CostVectorReplayBuffer(120, 3, num_costs)
        collector = CostCollector(policy, envs, buffer, fast=fast, replayable=True)
        collector.reset(gym_reset_kwargs={"seed": [1, 2, 3]})
        stats = [collector.collect(n_step=30, random=random) for _ in range(2)]
        return buffer.arrays, collector.state_dict()["history"], [x.costs for x in stats]

    arrays, history, costs = rows(MeddlingPolicy(), True)
    expected_arrays, expected_history, expected_costs = rows(RandomPolicy(), False)
    for key, values in expected_arrays.items():
        np.testing.assert_array_equal(arrays[key], values, err_msg=key)
    for one, other in zip(history["actions"], expected_history["actions"], strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(costs, expected_costs, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(history["actions"][0]).max() <= 1.0  # -7 times an action would not be in the box


class ReusedDictEnv(DictEnv):
    """Is a :class:`DictEnv` that returns one dictionary, whose arrays it writes anew in each step."""

    kept = None

    def _obs(self):
        if self.kept is None:
            self.kept = {"a": np.zeros(2)}
        self.kept["a"][:] = self.t, self.episode
        return self.kept


@pytest.mark.parametrize("vector", [DummyVectorEnv, ShmemVectorEnv])
def test_dictionaries_of_observations_are_copied(vector):
    """Also those whose arrays lie in memory that a process of Tianshou's writes to."""
    policy = RandomPolicy()
    policy.forward = lambda batch, state=None: Batch(act=np.zeros((len(batch.obs.a), 2), np.float32))
    collector = CostCollector(policy, vector([lambda: ReusedDictEnv(0)]), CostVectorReplayBuffer(20, 1))
    collector.reset()
    collector.collect(n_step=2)
    assert collector.buffer.obs.a[:2, 0].tolist() == [0.0, 1.0]
    assert collector.buffer.obs_next.a[:2, 0].tolist() == [1.0, 2.0]
    collector.close()


def test_what_readers_of_the_log_change_is_theirs():
    log = EpisodeLog(1)
    log.publish(np.ones((2, 1)), np.array([3, 4]))
    for part in log.since(0):
        part[:] = -1
    assert log.costs.tolist() == [[1.0], [1.0]]
    assert log.lens.tolist() == [3, 4]
