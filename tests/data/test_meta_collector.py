"""The meta collector works on one task after the other, each with environments and a buffer of its own."""

import numpy as np
import pytest
from tianshou.env import DummyVectorEnv
from toys.counting import RandomPolicy
from toys.counting_envs import CountingEnv, length

from fsrl_ext.data import MetaCollector


class Watched(DummyVectorEnv):
    closed = 0

    def close(self):
        type(self).closed += 1
        super().close()


def collector_for(steps=12, envs=3, **kwargs):
    """Make a collector whose task is the number of the first episode, which observations tell."""

    def make_envs(task):
        return Watched([lambda i=i: CountingEnv(i, first_episode=task) for i in range(envs)])

    return MetaCollector(RandomPolicy(), make_envs, step_per_collect=steps, num_envs=envs, **kwargs)


def test_a_collect_holds_one_task_and_goes_on_with_its_episodes():
    collector = collector_for()
    collector.start(10, [0, 1, 2])
    first = collector.collect()
    seen = collector.buffer.obs.copy()
    assert first.n_collected_steps == 12 == len(collector.buffer)
    assert (seen[:, 1] >= 10).all()
    collector.collect()
    again = collector.buffer.obs
    for env in range(3):
        *_, (_, episode, t, _) = seen[seen[:, 0] == env]
        following = again[again[:, 0] == env][0]
        over = t + 1 == length(env, int(episode))
        assert following[1:3].tolist() == ([episode + 1, 0] if over else [episode, t + 1])
    collector.start(50, [0, 1, 2])
    collector.collect()
    assert (collector.buffer.obs[:, 1] >= 50).all()
    assert len(collector.buffer) == 12


def test_only_one_task_is_open():
    Watched.closed = 0
    collector = collector_for()
    for task in range(3):
        collector.start(task, [0, 1, 2])
        assert Watched.closed == task
    collector.close()
    collector.close()
    assert Watched.closed == 3


def test_counters_are_over_all_tasks_until_a_reset():
    collector, episodes = collector_for(discount=0.9), 0
    for task in (0, 5):
        collector.start(task, [0, 1, 2])
        stats = [collector.collect(), collector.collect()]
        episodes += sum(x.n_collected_episodes for x in stats)
        assert stats[0].discounted_returns is not None
    assert (collector.collect_step, collector.collect_episode) == (48, episodes)
    assert episodes > 0
    assert collector.collect_time > 0
    collector.reset()
    assert (collector.collect_step, collector.collect_episode, collector.collect_time) == (0, 0, 0.0)
    with pytest.raises(RuntimeError, match="no task is open"):
        collector.collect()


def test_steps_are_whole_vector_steps():
    collector = collector_for(steps=10)
    assert collector.step_per_collect == 12
    collector.start(0, np.arange(3))
    assert collector.collect().n_collected_steps == 12


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="step_per_collect must be a whole number >= 1, got 0"):
        collector_for(steps=0)
    with pytest.raises(ValueError, match="num_envs must be a whole number >= 1, got 0"):
        MetaCollector(RandomPolicy(), lambda task: None, step_per_collect=5, num_envs=0)
    collector = collector_for()
    for use in (collector.collect, lambda: collector.buffer):
        with pytest.raises(RuntimeError, match="no task is open: call start before"):
            use()
    with pytest.raises(ValueError, match="seeds must be 3, one per environment, got 2"):
        collector.start(0, [0, 1])
