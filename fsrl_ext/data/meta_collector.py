"""Collecting the data of one task after the other, each with environments of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from tianshou.env import BaseVectorEnv
from tianshou.policy import BasePolicy

from fsrl_ext.data.collector import CostCollector
from fsrl_ext.data.sizes import round_up
from fsrl_ext.data.stats import CostCollectStats
from fsrl_ext.data.vector_buffer import CostVectorReplayBuffer
from fsrl_ext.errors import checked

Task = TypeVar("Task")


class MetaCollector(Generic[Task]):
    """Makes a :class:`CostCollector` for each task and closes it when the task is done.

    Only one task is open at a time; its environments may be processes of their own.

    :param policy: any Tianshou policy.
    :param make_envs: ``task -> vectorised environment`` of ``num_envs`` environments.
    :param step_per_collect: steps of one collect, rounded up to whole vector steps.
    :param num_envs: number of environments of each task.
    :param num_costs: number of costs ``C``.
    :param discount: see :class:`CostCollector`.
    :raises ValueError: ``step_per_collect`` or ``num_envs`` is below 1.
    """

    replayable = False
    """No environment outlives its task, so there is no history to repeat."""

    @checked(at_least_one=("step_per_collect", "num_envs", "num_costs"), closed_unit_interval=("discount",))
    def __init__(
        self,
        policy: BasePolicy,
        make_envs: Callable[[Task], BaseVectorEnv],
        *,
        step_per_collect: int,
        num_envs: int,
        num_costs: int = 1,
        discount: float | tuple[float, ...] | None = None,
    ) -> None:
        self.policy = policy
        self.make_envs = make_envs
        self.env_num = num_envs
        self.step_per_collect = round_up(step_per_collect, num_envs)
        self.num_costs = num_costs
        self.discount = discount
        self.collect_step = self.collect_episode = 0
        self.collect_time = 0.0
        # One buffer for all tasks: one without data takes its first collect on the slower of two ways.
        self._buffer = CostVectorReplayBuffer(self.step_per_collect, self.env_num, num_costs=self.num_costs)
        self._collector: CostCollector | None = None

    @property
    def buffer(self) -> CostVectorReplayBuffer:
        """The buffer with the open task's newest collect.

        :raises RuntimeError: no task is open.
        """
        self._open()
        return self._buffer

    def start(self, task: Task, seeds: Sequence[int]) -> None:
        """Open a task, and close the one before.

        :param seeds: ``[N]`` seeds of the first episode of each environment.
        :raises ValueError: there is not one seed per environment.
        """
        if len(seeds) != self.env_num:
            raise ValueError(f"seeds must be {self.env_num}, one per environment, got {len(seeds)}")
        self.close()
        envs = self.make_envs(task)
        try:
            self._collector = CostCollector(self.policy, envs, self._buffer, discount=self.discount)
        except BaseException:
            envs.close()
            raise
        self._collector.reset(gym_reset_kwargs={"seed": list(seeds)})

    def collect(self) -> CostCollectStats:
        """Collect ``step_per_collect`` steps of the open task with the policy as it is now.

        The buffer then holds these steps and nothing else. Episodes go on from collect to collect.

        :raises RuntimeError: no task is open.
        """
        collector = self._open()
        collector.reset_buffer(keep_statistics=True)
        before = collector.collect_time
        stats: CostCollectStats = collector.collect(n_step=self.step_per_collect)
        self.collect_step += stats.n_collected_steps
        self.collect_episode += stats.n_collected_episodes
        self.collect_time += collector.collect_time - before
        return stats

    def close(self) -> None:
        """Close the environments of the open task, if there is one."""
        if self._collector is not None:
            collector, self._collector = self._collector, None
            collector.close()

    def reset(self, reset_buffer: bool = True) -> None:
        """Close the open task and set the counters to zero, as a trainer asks for at its start.

        :param reset_buffer: has no effect: the buffer goes with its task.
        """
        self.close()
        self.reset_stat()

    def reset_stat(self) -> None:
        """Reset the counters of steps, episodes and time."""
        self.collect_step = self.collect_episode = 0
        self.collect_time = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the counters, which are all that there is between two tasks.

        :raises RuntimeError: a task is open.
        """
        if self._collector is not None:
            raise RuntimeError("a task is open: call close before")
        return {"counters": [self.collect_step, self.collect_episode, self.collect_time]}

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Take over what :meth:`state_dict` returned.

        :return: True: no environment has to be brought to where it was.
        """
        self.close()
        self.collect_step, self.collect_episode, self.collect_time = state["counters"]
        return True

    def _open(self) -> CostCollector:
        if self._collector is None:
            raise RuntimeError("no task is open: call start before")
        return self._collector
