"""Collecting in another process while this one learns."""

from __future__ import annotations

import multiprocessing
import random as python_random
import signal
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, cast

import cloudpickle
import numpy as np
import torch
from tianshou.data import Batch
from tianshou.data.types import RolloutBatchProtocol
from tianshou.env import BaseVectorEnv
from tianshou.policy import BasePolicy
from tianshou.policy.base import policy_within_training_step

from fsrl_ext.data.buffer import CostVectorReplayBuffer
from fsrl_ext.data.buffer_state import buffer_state, load_buffer_state
from fsrl_ext.data.collector import CostCollector
from fsrl_ext.data.randomness import random_state, set_random_state
from fsrl_ext.data.row_writer import RowWriter
from fsrl_ext.data.stats import CostCollectStats

_Request = tuple[int, bool]
_Answer = tuple[CostCollectStats, dict[str, np.ndarray]]


class AheadCollector:
    """A :class:`CostCollector` in a process of its own, one collect ahead of the learner.

    :meth:`start` sends the policy's parameters off and returns; :meth:`collect` waits for the transitions and
    puts them into :attr:`buffer`. A trainer that starts the next collect before it learns gets data from a
    policy that is at most one collect old. Everything is exchanged at these calls, never in between, so a run
    with the same seed is the same run, however long either side takes.

    What travels is the policy's ``state_dict``; changes to other attributes after construction do not.

    :param policy: acts, in a copy; must be picklable.
    :param make_envs: builds the environments, in the other process; picklable (``cloudpickle``).
    :param buffer: receives the transitions, one sub-buffer for each environment.
    :param seed: of the other process's random numbers.
    :param exploration_noise: see Tianshou.
    :param discount: see :class:`CostCollector`.
    :param replayable: see :class:`CostCollector`.
    """

    raise_on_nan_in_buffer = False

    def __init__(
        self,
        policy: BasePolicy,
        make_envs: Callable[[], BaseVectorEnv],
        buffer: CostVectorReplayBuffer,
        *,
        seed: int,
        exploration_noise: bool = False,
        discount: float | None = None,
        replayable: bool = False,
    ) -> None:
        if not isinstance(buffer, CostVectorReplayBuffer):
            raise TypeError(f"buffer must be a CostVectorReplayBuffer, got {type(buffer).__name__}")
        self.policy = policy
        self.buffer = buffer
        self.env_num = buffer.buffer_num
        self.replayable = replayable
        self.collect_step, self.collect_episode, self.collect_time = 0, 0, 0.0
        self._pending: _Request | None = None
        self._answer: _Answer | None = None
        job = _Job(
            policy, make_envs, self.env_num, buffer.num_costs, seed, exploration_noise, discount, replayable
        )
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(cloudpickle.dumps(job), theirs))
        self._process.start()
        theirs.close()
        self._finalizer = weakref.finalize(self, _end, self._connection, self._process)
        self._receive()

    def start(self, n_step: int, random: bool = False) -> None:
        """Begin to collect ``n_step`` steps with the policy's parameters as they are now.

        :raises RuntimeError: a collect is under way already.
        """
        if self._pending is not None:
            raise RuntimeError(f"a collect of {self._pending[0]} steps is under way; call collect() first")
        parameters = {key: _as_array(value) for key, value in self.policy.state_dict().items()}
        self._send("collect", n_step, random, parameters)
        self._pending = (n_step, random)

    def collect(self, n_step: int | None = None, random: bool = False, **kwargs: Any) -> CostCollectStats:
        """Wait for ``n_step`` steps, begun before or now, and put them into the buffer.

        :raises ValueError: ``n_step`` is not given, other arguments are, or what was begun is something else.
        """
        if n_step is None or any(kwargs.values()):
            raise ValueError(f"AheadCollector collects by n_step alone, got {n_step=} and {kwargs}")
        begun = time.perf_counter()
        if self._pending is None:
            self.start(n_step, random)
        if self._pending != (n_step, random):
            raise ValueError(
                f"a collect of (n_step, random) = {self._pending} was begun, got {(n_step, random)}"
            )
        self._wait()
        assert self._answer is not None
        (stats, rows), self._answer, self._pending = self._answer, None, None
        self._store(rows)
        self.buffer.episodes.publish(stats.costs, stats.lens)
        self.collect_step += stats.n_collected_steps
        self.collect_episode += stats.n_collected_episodes
        self.collect_time += time.perf_counter() - begun
        return stats

    def _wait(self) -> None:
        """Until what was begun is here."""
        if self._pending is not None and self._answer is None:
            pending, self._pending = self._pending, None
            self._answer = self._receive()
            self._pending = pending

    def renew_seeds(self, seeds: Sequence[int]) -> None:
        """See :meth:`CostCollector.renew_seeds`; after what is under way."""
        self._wait()
        self._send("renew_seeds", list(seeds))
        self._receive()

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`CostCollector.state_dict`; a collect under way is part of it."""
        self._wait()
        self._send("state_dict")
        under_way = None
        if self._pending is not None and self._answer is not None:
            stats, rows = self._answer
            # Summaries are computed anew.
            plain = {k: v for k, v in vars(stats).items() if isinstance(v, int | float | np.ndarray)}
            under_way = {"request": list(self._pending), "stats": plain, "rows": rows}
        return {
            "buffer": buffer_state(self.buffer),
            "worker": self._receive(),
            "under_way": under_way,
            "counters": [self.collect_step, self.collect_episode, self.collect_time],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """See :meth:`CostCollector.load_state_dict`."""
        self._wait()
        self._pending = self._answer = None
        load_buffer_state(self.buffer, state["buffer"])
        self._send("load_state_dict", state["worker"])
        exact = self._receive()
        self.collect_step, self.collect_episode, self.collect_time = state["counters"]
        saved = state["under_way"]
        if not exact:
            # What was under way belongs to episodes that are gone, and so does what is open in the buffer.
            self.buffer.close_episodes()
        elif saved is not None:
            stats = CostCollectStats()
            vars(stats).update(saved["stats"])
            stats.refresh_all_sequence_stats()
            self._pending, self._answer = tuple(saved["request"]), (stats, saved["rows"])
        return exact

    def _store(self, rows: Mapping[str, np.ndarray]) -> None:
        """Rows ``[N, T, ...]``, in the order of time."""
        ids, first = np.arange(self.env_num), 0
        if not RowWriter.can_write(self.buffer):
            batch = Batch({key: values[:, 0] for key, values in rows.items()})
            self.buffer.add(cast(RolloutBatchProtocol, batch), ids)
            first = 1
        with RowWriter(self.buffer) as writer:
            for t in range(first, rows["rew"].shape[1]):
                writer.add(ids, **{key: values[:, t] for key, values in rows.items()})

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
        """Reset all environments; what a collect under way has gathered is dropped."""
        self._wait()
        self._pending = self._answer = None
        self.buffer.close_episodes()
        self._send("reset", gym_reset_kwargs)
        self._receive()

    def reset_buffer(self, keep_statistics: bool = False) -> None:
        """Empty the buffer."""
        self.buffer.reset(keep_statistics=keep_statistics)

    def reset_stat(self) -> None:
        """Reset the counters of steps, episodes and time."""
        self.collect_step, self.collect_episode, self.collect_time = 0, 0, 0.0

    def close(self) -> None:
        """End the other process; may be called again."""
        self._finalizer()

    def _send(self, *message: Any) -> None:
        try:
            self._connection.send(message)
        except (BrokenPipeError, OSError) as error:
            raise RuntimeError(f"the collecting process has ended ({self._exit_code()})") from error

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise RuntimeError(f"the collecting process has ended ({self._exit_code()})") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _exit_code(self) -> str:
        self._process.join(timeout=5)
        return f"exit code {self._process.exitcode}"


@dataclass(frozen=True)
class _Job:
    """What the other process needs to begin."""

    policy: BasePolicy
    make_envs: Callable[[], BaseVectorEnv]
    num_envs: int
    num_costs: int
    seed: int
    exploration_noise: bool
    discount: float | None
    replayable: bool


class _Worker:
    """The collector in the other process."""

    def __init__(self, job: _Job) -> None:
        torch.set_num_threads(1)
        python_random.seed(job.seed)
        np.random.seed(job.seed % 2**32)  # noqa: NPY002 - Tianshou's noise and simulators draw from it
        torch.manual_seed(job.seed)
        self.job = job
        self.policy = job.policy.to("cpu").eval()
        self.envs = job.make_envs()
        if len(self.envs) != job.num_envs:
            raise ValueError(f"make_envs must build {job.num_envs} environments, built {len(self.envs)}")
        self.collector: CostCollector | None = None

    def reset(self, gym_reset_kwargs: dict[str, Any] | None) -> None:
        self._collector(1).reset_env(gym_reset_kwargs)

    def collect(
        self, n_step: int, random: bool, parameters: Mapping[str, Any]
    ) -> tuple[CostCollectStats, dict[str, np.ndarray]]:
        state = {k: torch.as_tensor(v) if isinstance(v, np.ndarray) else v for k, v in parameters.items()}
        self.policy.load_state_dict(state)
        steps = -(-n_step // self.job.num_envs)
        collector = self._collector(steps)
        collector.reset_buffer(keep_statistics=True)
        with policy_within_training_step(self.policy):
            stats = collector.collect(n_step=n_step, random=random)
        size = collector.buffer.maxsize // self.job.num_envs
        rows = {
            key: values.reshape(self.job.num_envs, size, *values.shape[1:])[:, :steps]
            for key, values in collector.buffer._meta.items()
        }
        return stats, rows

    def renew_seeds(self, seeds: list[int]) -> None:
        self._collector(1).renew_seeds(seeds)

    def state_dict(self) -> dict[str, Any]:
        return {"acting": self._collector(1).acting_state(), "randomness": random_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        exact = self._collector(1).load_acting_state(state["acting"])
        set_random_state(state["randomness"])
        return exact

    def _collector(self, steps: int) -> CostCollector:
        """The collector, with room for ``steps`` steps of each environment."""
        room = steps * self.job.num_envs
        if self.collector is None:
            buffer = CostVectorReplayBuffer(room, self.job.num_envs, self.job.num_costs)
            self.collector = CostCollector(
                self.policy,
                self.envs,
                buffer,
                exploration_noise=self.job.exploration_noise,
                discount=self.job.discount,
                replayable=self.job.replayable,
            )
            # Not every environment seeds its action space, which random steps draw from, at a reset.
            spaces = self.collector._action_space
            for i, space in enumerate(spaces if isinstance(spaces, list) else [spaces]):
                space.seed(self.job.seed + i)
        elif self.collector.buffer.maxsize < room:
            self.collector.buffer = CostVectorReplayBuffer(room, self.job.num_envs, self.job.num_costs)
        return self.collector


def _work(job: bytes, connection: Connection) -> None:
    """The other process: answers each message with a result or an exception, until nobody listens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the learner, which then closes this one
    try:
        worker = _Worker(cloudpickle.loads(job))
        connection.send(None)
    except Exception as error:  # whatever it is, the learner is to raise it
        connection.send(error)
        return
    while True:
        try:
            name, *arguments = connection.recv()
        except EOFError:
            break
        try:
            answer: Any = getattr(worker, name)(*arguments)
        except Exception as error:  # likewise
            answer = error
        try:
            connection.send(answer)
        except BrokenPipeError:
            break
    worker.envs.close()


def _end(connection: Connection, process: Any) -> None:
    connection.close()
    process.join(timeout=10)
    if process.is_alive():
        process.terminate()
        process.join()


def _as_array(value: Any) -> Any:
    """Tensors as arrays: sent as bytes, not as handles to shared memory."""
    return value.detach().cpu().numpy().copy() if isinstance(value, torch.Tensor) else value
