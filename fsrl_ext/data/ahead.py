"""Collecting one collect ahead of the learner, in another process or in turn: the learner's side."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from tianshou.data.types import RolloutBatchProtocol
from tianshou.env import BaseVectorEnv
from tianshou.policy import BasePolicy

from fsrl_ext.data.ahead_worker import CollectedRows, Worker, WorkerSpec
from fsrl_ext.data.batches import raw_batch
from fsrl_ext.data.interrupts import InterruptGuard
from fsrl_ext.data.row_writer import RowWriter
from fsrl_ext.data.stats import CostCollectStats
from fsrl_ext.data.transport import LocalTransport, ProcessTransport
from fsrl_ext.data.vector_buffer import CostVectorReplayBuffer
from fsrl_ext.errors import checked


class AheadCollector:
    """A :class:`CostCollector` that is one collect ahead of the learner, in a process of its own.

    :meth:`start` sends the policy's parameters off and returns; :meth:`collect` waits for the transitions and
    puts them into :attr:`buffer`. A trainer that starts the next collect before it learns gets data from a
    policy that is at most one collect old. Everything is exchanged at these two calls, never in between, so
    runs with the same seed are the same, however long either side takes. ``benchmarks/throughput.py compare``
    measures the gain.

    With ``cores=1`` there is no other process: :meth:`collect` makes in turn what the process would have made
    meanwhile, from the same parameters and random numbers. Both ways give the same data and the same
    :meth:`state_dict`, bit for bit, and each goes on from the other's.

    Of the policy only its ``state_dict`` is sent; changes to other attributes after construction are not.

    :param policy: acts, in a copy; must be picklable.
    :param make_envs: builds the environments in the other process; must be picklable by ``cloudpickle``.
    :param buffer: receives the transitions, one sub-buffer for each environment.
    :param seed: of the other process's random numbers.
    :param exploration_noise: see Tianshou.
    :param discount: see :class:`CostCollector`.
    :param replayable: see :class:`CostCollector`.
    :param cores: 1 collects in this process; any other number collects in a second one.
    :raises TypeError: ``buffer`` is not a :class:`CostVectorReplayBuffer`.
    :raises Exception: what the construction in the other process raised, with its traceback as the cause.

    An exception in the other process is raised here, and the transitions of that collect are lost. The next
    collect resets the environments and says so in a warning. Ctrl-C while a method waits for the other
    process loses nothing: a collect stays under way. With ``cores=1``, Ctrl-C in the middle of a collect has
    the effect of an exception.
    """

    raise_on_nan_in_buffer = False
    ahead = True
    """Whether a trainer begins the next collect before it learns from the newest one."""

    @checked(seed=("seed",), at_least_one=("cores",), closed_unit_interval=("discount",), own=("buffer",))
    def __init__(
        self,
        policy: BasePolicy,
        make_envs: Callable[[], BaseVectorEnv],
        buffer: CostVectorReplayBuffer,
        *,
        seed: int,
        exploration_noise: bool = False,
        discount: float | tuple[float, ...] | None = None,
        replayable: bool = False,
        cores: int = 2,
    ) -> None:
        if not isinstance(buffer, CostVectorReplayBuffer):
            raise TypeError(f"buffer must be a CostVectorReplayBuffer, got {type(buffer).__name__}")
        self.policy = policy
        self.buffer = buffer
        self.env_num = buffer.buffer_num
        self.replayable = replayable
        self.collect_step, self.collect_episode, self.collect_time = 0, 0, 0.0
        self._request: tuple[int, bool] | None = None
        self._rows: CollectedRows | None = None
        self._failed = False
        spec = WorkerSpec(
            policy=policy,
            make_envs=make_envs,
            num_envs=self.env_num,
            num_costs=buffer.num_costs,
            seed=seed,
            exploration_noise=exploration_noise,
            discount=discount,
            replayable=replayable,
        )
        make = functools.partial(Worker, spec)
        if cores == 1:
            self._worker: LocalTransport | ProcessTransport = LocalTransport(make, owner="the collector")
            return
        self._worker = ProcessTransport(
            make,
            owner="the collector",
            name="the collecting process",
            remedy="make a new collector, or resume the run",
        )
        try:
            self._worker.wait()
            self._worker.read()
        except BaseException:
            self.close()
            raise

    def start(self, n_step: int, random: bool = False) -> None:
        """Begin to collect ``n_step`` steps with the policy's parameters as they are now.

        :raises RuntimeError: a collect is under way already.
        """
        if self._request is not None:
            raise RuntimeError(f"a collect of {self._request[0]} steps is under way; call collect() first")
        if self._failed:
            warnings.warn(
                "the last collect failed; all environments are reset and new episodes begin", stacklevel=2
            )
            self.reset_env()
        parameters = {key: _as_array(value) for key, value in self.policy.state_dict().items()}
        with InterruptGuard() as guard:
            guard.hold()
            self._worker.send("collect", n_step, random, parameters)
            self._request = (n_step, random)

    def collect(self, n_step: int | None = None, random: bool = False, **kwargs: Any) -> CostCollectStats:
        """Wait for ``n_step`` steps and put them into the buffer.

        If no collect is under way, begin one first.

        :raises ValueError: ``n_step`` is not given, other arguments are, or another collect is under way.
        """
        if n_step is None or any(kwargs.values()):
            raise ValueError(f"AheadCollector collects by n_step alone, got {n_step=} and {kwargs}")
        begun = time.perf_counter()
        if self._request is None:
            self.start(n_step, random)
        if self._request != (n_step, random):
            raise ValueError(
                f"a collect of (n_step, random) = {self._request} was begun, got {(n_step, random)}"
            )
        self._wait()
        assert self._rows is not None
        stats, arrays = self._rows
        self._forget()
        self._store(arrays)
        self.buffer.episodes.publish(
            stats.costs,
            stats.lens,
            arrays["rew"].shape[1],
            discounted_costs=stats.discounted_costs,
            open_steps=stats.open_steps,
        )
        self.collect_step += stats.n_collected_steps
        self.collect_episode += stats.n_collected_episodes
        self.collect_time += time.perf_counter() - begun
        return stats

    def renew_seeds(self, seeds: Sequence[int]) -> None:
        """See :meth:`CostCollector.renew_seeds`; the seeds count after the collect that is under way."""
        self._wait()
        self._ask("renew_seeds", list(seeds))

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`CostCollector.state_dict`; a collect that is under way is part of the state."""
        self._wait()
        worker = self._ask("state_dict")
        under_way = None
        if self._request is not None and self._rows is not None:
            under_way = {
                "request": list(self._request),
                "stats": self._rows.stats.state_dict(),
                "arrays": self._rows.arrays,
            }
        return {
            "buffer": self.buffer.state_dict(),
            "worker": worker,
            "under_way": under_way,
            "counters": [self.collect_step, self.collect_episode, self.collect_time],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """See :meth:`CostCollector.load_state_dict`."""
        self._wait()
        self._forget()
        self.buffer.load_state_dict(state["buffer"])
        self._failed = True  # unless the environments get to where they were
        exact = self._ask("load_state_dict", state["worker"])
        self._failed = False
        self.collect_step, self.collect_episode, self.collect_time = state["counters"]
        under_way = state["under_way"]
        if not exact:
            # The collect under way goes on with episodes that are lost, as are the open ones in the buffer.
            self.buffer.close_episodes()
        elif under_way is not None:
            stats = CostCollectStats()
            stats.load_state_dict(under_way["stats"])
            n_step, random = under_way["request"]
            self._request, self._rows = (n_step, random), CollectedRows(stats, under_way["arrays"])
        return exact

    def reset(
        self,
        reset_buffer: bool = True,
        reset_stats: bool = True,
        gym_reset_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Reset the environments and, if asked, buffer and counters; see Tianshou."""
        self.reset_env(gym_reset_kwargs)
        if reset_buffer:
            self.reset_buffer()
        if reset_stats:
            self.reset_stat()

    def reset_env(self, gym_reset_kwargs: dict[str, Any] | None = None) -> None:
        """Reset all environments; the transitions of a collect that is under way are dropped."""
        self._wait()
        self._forget()
        self.buffer.close_episodes()
        self._failed = True  # unless the environments are reset
        self._ask("reset", gym_reset_kwargs)
        self._failed = False

    def reset_buffer(self, keep_statistics: bool = False) -> None:
        """Empty the buffer; see Tianshou."""
        self.buffer.reset(keep_statistics=keep_statistics)

    def reset_stat(self) -> None:
        """Reset the counters of steps, episodes and time."""
        self.collect_step, self.collect_episode, self.collect_time = 0, 0, 0.0

    def close(self) -> None:
        """End the other process, or close the environments; may be called again.

        A collect that is under way is broken off.
        """
        self._worker.close(at_once=self._request is not None and self._rows is None)

    def _wait(self) -> None:
        """Wait until the collect that is under way, if any, has arrived; it is not stored yet."""
        if self._request is not None and self._rows is None:
            try:
                self._worker.wait()
            except BaseException:
                if not self._worker.survives_interrupts:
                    self._request, self._failed = None, True
                raise
            with InterruptGuard() as guard:
                guard.hold()
                try:
                    self._rows = self._worker.read()
                except Exception:  # of any kind: the collect has failed, so it is no longer under way
                    self._request, self._failed = None, True
                    raise

    def _forget(self) -> None:
        """Let no collect be under way."""
        self._request = self._rows = None

    def _store(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the transitions ``[N, T, ...]`` into the buffer, in the order of time."""
        ids, first = np.arange(self.env_num), 0
        if not RowWriter.can_write(self.buffer):
            batch = raw_batch(**{key: values[:, 0] for key, values in arrays.items()})
            self.buffer.add(cast(RolloutBatchProtocol, batch), ids)
            first = 1
        with RowWriter(self.buffer) as writer:
            for t in range(first, arrays["rew"].shape[1]):
                writer.add(ids, **{key: values[:, t] for key, values in arrays.items()})

    def _ask(self, *message: Any) -> Any:
        """Send a message and return its answer; no collect may be under way whose answer is not read."""
        self._worker.send(*message)
        self._worker.wait()
        return self._worker.read()


def _as_array(value: Any) -> Any:
    """A tensor as an array, which is sent as bytes and not as a handle to shared memory."""
    return value.detach().cpu().numpy().copy() if isinstance(value, torch.Tensor) else value
