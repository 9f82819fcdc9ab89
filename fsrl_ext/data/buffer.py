"""The base of the cost-aware replay buffers, and the buffer for the transitions of one environment.

Dimensions: ``S`` size of the buffer, ``R`` transitions added at once, ``C`` costs.
"""

from __future__ import annotations

from typing import Any, Self, cast

import h5py
import numpy as np
from tianshou.data import Batch, ReplayBuffer, ReplayBufferManager
from tianshou.data.batch import alloc_by_keys_diff
from tianshou.data.types import RolloutBatchProtocol

from fsrl_ext.data.counters import BufferCounters
from fsrl_ext.data.episodes import EpisodeLog
from fsrl_ext.data.hdf5 import read_plain, restored, write_plain
from fsrl_ext.data.interrupts import InterruptGuard
from fsrl_ext.data.nstep import NStepWindow, nstep_window
from fsrl_ext.data.storage import STORED_KEYS, storable
from fsrl_ext.errors import checked


class CostBuffer(ReplayBuffer):
    """A Tianshou replay buffer with ``cost [S, C]`` (float32) beside ``rew [S]``.

    Observations and actions are stored as float32, ``info`` and an empty ``policy`` entry not at all.
    Everything that enters is checked first: a rejected batch leaves the buffer unchanged.
    """

    _reserved_keys = STORED_KEYS
    takes_rows = True
    """Whether rows may be written into its arrays past :meth:`add`."""
    num_costs: int
    episodes: EpisodeLog
    """The finished episodes, which a collector publishes here and policies read."""

    @property
    def arrays(self) -> dict[str, Any]:
        """Everything that is stored, ``[S, ...]`` by key: plain arrays, or batches of nested entries."""
        return self._meta.__dict__

    @property
    def _indices(self) -> np.ndarray:
        """All places, counted when Tianshou asks for them, which it does for slices alone.

        Tianshou keeps them in an array, which takes 8 bytes for each transition, in the vector buffer and
        again in its sub-buffers. ``tests/data/test_cost_buffer.py`` measures the memory.
        """
        return np.arange(self.maxsize)

    @_indices.setter
    def _indices(self, value: np.ndarray) -> None:
        """Ignore the array that Tianshou's constructor makes: it always holds the same."""

    def reset(self, keep_statistics: bool = False) -> None:
        """Empty the buffer, and :attr:`episodes` with it.

        :param keep_statistics: whether the episodes that are under way go on, see Tianshou.
        """
        super().reset(keep_statistics=keep_statistics)
        self.episodes.clear()

    @property
    def places(self) -> int:
        """The number of transitions that each sub-buffer holds, or the whole buffer without sub-buffers."""
        return int(self.subbuffer_edges[1] - self.subbuffer_edges[0])

    def nstep_window(self, indices: np.ndarray, num_steps: int) -> NStepWindow:
        """Read the windows that start at ``indices [B]``, see :func:`~fsrl_ext.data.nstep.nstep_window`."""
        return nstep_window(self, indices, num_steps)

    def close_episodes(self) -> np.ndarray:
        """Mark the last transition of every open episode as truncated, and start new episodes.

        This is needed whenever the environments are reset in the middle of an episode: the next transition
        then belongs to another episode, and no n-step return may reach across.

        :return: indices of the transitions that were marked.
        """
        self._start_episodes()
        self.episodes.close_episodes(empty=not len(self))
        return self._truncate(self.unfinished_index() if len(self) else np.array([], int))

    def _start_episodes(self) -> None:
        counters = BufferCounters.of(self)
        counters.start_episodes()
        counters.write_to(self)

    def _truncate(self, indices: np.ndarray) -> np.ndarray:
        if len(indices):
            self.truncated[indices] = True
            self.done[indices] = True
        return indices

    def set_batch(self, batch: RolloutBatchProtocol) -> None:
        """Replace the data.

        :param batch: ``S`` rows with ``cost [S, C]``.
        :raises ValueError: the batch has another number of rows, unknown keys, or no usable ``cost``.
        :raises NonFiniteStepError: a field holds NaN or infinity.
        """
        unknown = set(batch.get_keys()) - set(STORED_KEYS) - {"info"}
        if unknown or len(batch) != self.maxsize:
            raise ValueError(
                f"batch must have {self.maxsize} rows and keys out of {STORED_KEYS}, "
                f"got {len(batch)} rows and the keys {sorted(batch.get_keys())}"
            )
        super().set_batch(storable(batch, self.num_costs, np.arange(self.maxsize)))

    def save_hdf5(self, path: str, compression: str | None = None) -> None:
        """Write the buffer to a file, with its counters, its episodes and the state of its sampling.

        :raises TypeError: something stored is no array of numbers.
        """
        write_plain(path, self.__getstate__(), compression)

    @classmethod
    def load_hdf5(cls, path: str, device: str | None = None) -> Self:
        """Make a buffer of a file that :meth:`save_hdf5` wrote; nothing in the file is run as code.

        :param device: of no effect, because the buffer holds NumPy arrays.
        :raises ValueError: the file is damaged, holds a pickled object, or is of another class.
        """
        try:
            state = read_plain(path)
            state = cls._with_parts(state)
            for name, value in cls._smallest().__getstate__().items():
                if type(state[name]) is not type(value):
                    raise TypeError(f"{name} is of the type {type(state[name]).__name__}")
            buffer = cls.__new__(cls)
            buffer.__setstate__(state)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a saved {cls.__name__} ({error})") from error
        return buffer

    @classmethod
    def _smallest(cls) -> Self:
        """A buffer for one transition, which shows what a saved one consists of."""
        raise NotImplementedError

    @classmethod
    def _with_parts(cls, state: dict[str, Any]) -> dict[str, Any]:
        """The state with sub-buffers in the places of their states."""
        if "buffers" not in state:
            return state
        saved = [state["buffers"][str(i)] for i in range(len(state["buffers"]))]
        parts = np.empty(len(saved), dtype=object)
        for i, part in enumerate(saved):
            parts[i] = CostReplayBuffer.__new__(CostReplayBuffer)
            parts[i].__setstate__(restored(part))
        return {**state, "buffers": parts}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "num_costs" not in state or ("buffers" in state) != isinstance(self, ReplayBufferManager):
            raise ValueError(f"this is not a saved {type(self).__name__}")
        # HDF5 returns NumPy scalars for plain numbers.
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in state.items()}
        # Files from before buffers had a log of episodes get an empty one.
        super().__setstate__({"episodes": EpisodeLog(plain["num_costs"]), **plain})


class CostReplayBuffer(CostBuffer):
    """Tianshou's ``ReplayBuffer`` with costs, for the transitions of one environment.

    :param size: number of transitions ``S``.
    :param num_costs: number of cost signals ``C``.
    :param stack_num: see Tianshou, like the arguments below.
    :param ignore_obs_next: do not store ``obs_next``.
    :param save_only_last_obs: store only the last frame of stacked observations.
    :param sample_avail: sample only indices with a full frame stack.
    :param random_seed: seed of the sampling.
    :raises ValueError: ``size`` or ``num_costs`` is below 1.
    """

    @checked(at_least_one=("size", "num_costs", "stack_num"), seed=("random_seed",))
    def __init__(
        self,
        size: int,
        num_costs: int = 1,
        *,
        stack_num: int = 1,
        ignore_obs_next: bool = False,
        save_only_last_obs: bool = False,
        sample_avail: bool = False,
        random_seed: int = 42,
    ) -> None:
        super().__init__(
            size=size,
            stack_num=stack_num,
            ignore_obs_next=ignore_obs_next,
            save_only_last_obs=save_only_last_obs,
            sample_avail=sample_avail,
            random_seed=random_seed,
        )
        self.num_costs = num_costs
        self.episodes = EpisodeLog(num_costs)

    @classmethod
    def _smallest(cls) -> Self:
        return cls(1)

    def add(
        self,
        batch: RolloutBatchProtocol,
        buffer_ids: np.ndarray | list[int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Add one transition; with ``buffer_ids=[0]`` every entry of the batch has length 1.

        :param batch: what Tianshou needs, and ``cost``: ``[C]`` (``[1, C]`` with ``buffer_ids``), or a number
            (``[1]``) if ``C = 1``.
        :return: index, episode return, episode length, start index of the episode.
        :raises ValueError: ``cost`` is missing or has the wrong shape.
        :raises NonFiniteStepError: a field holds NaN or infinity.
        """
        checked = storable(batch, self.num_costs, buffer_ids)
        with InterruptGuard() as guard:
            guard.hold()
            return super().add(checked, buffer_ids)

    def update(self, buffer: ReplayBuffer) -> np.ndarray:
        """Copy all transitions of another cost-aware buffer into this one, oldest first.

        Episodes that are still open, in either buffer, are closed in the copy: what follows them here is
        another episode.

        :return: indices of the copies in this buffer.
        :raises ValueError: the other buffer has no costs or another number of costs.
        """
        num_costs = getattr(buffer, "num_costs", None)
        if num_costs != self.num_costs:
            raise ValueError(f"buffer must have num_costs={self.num_costs}, got {num_costs}")
        if len(buffer) == 0:
            return np.array([], int)
        self.close_episodes()
        stack_num, buffer.stack_num = buffer.stack_num, 1
        order = buffer.sample_indices(0)
        buffer.stack_num = stack_num
        open_there = np.isin(order, buffer.unfinished_index())
        alloc_by_keys_diff(self._meta, buffer._meta, self.maxsize, stack=False)
        indices = super().update(buffer)
        # A longer source wraps around: only its last `maxsize` transitions are still there.
        self._truncate(indices[-self.maxsize :][open_there[-self.maxsize :]])
        self._start_episodes()
        return indices

    @classmethod
    def from_data(  # type: ignore[override]
        cls,
        obs: h5py.Dataset,
        act: h5py.Dataset,
        rew: h5py.Dataset,
        terminated: h5py.Dataset,
        truncated: h5py.Dataset,
        done: h5py.Dataset,
        obs_next: h5py.Dataset,
        cost: h5py.Dataset,
    ) -> Self:
        """Make a full buffer of given arrays (or HDF5 datasets) of equal length ``S``.

        :param cost: ``[S]`` or ``[S, C]``.
        :raises ValueError: the lengths differ, or there is no data.
        """
        data = {
            "obs": np.asarray(obs),
            "act": np.asarray(act),
            "rew": np.asarray(rew, dtype=float),
            "terminated": np.asarray(terminated, dtype=bool),
            "truncated": np.asarray(truncated, dtype=bool),
            "done": np.asarray(done, dtype=bool),
            "obs_next": np.asarray(obs_next),
            "cost": np.asarray(cost, dtype=np.float32),
        }
        lengths = {key: len(value) for key, value in data.items()}
        if len(set(lengths.values())) != 1 or lengths["obs"] == 0:
            raise ValueError(f"all arrays must have the same length > 0, got {lengths}")
        size = lengths["obs"]
        buffer = cls(size, num_costs=1 if data["cost"].ndim == 1 else data["cost"].shape[1])
        buffer.set_batch(cast(RolloutBatchProtocol, Batch(data)))
        counters = BufferCounters.of(buffer)
        counters.size[:], counters.last[:] = size, size - 1
        counters.write_to(buffer)
        return buffer
