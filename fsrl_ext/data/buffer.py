"""Replay buffers that store the costs of every transition.

Dimensions: ``S`` size of the buffer, ``R`` transitions added at once, ``C`` costs.
"""

from typing import Any, Self, cast

import h5py
import numpy as np
from tianshou.data import Batch, ReplayBuffer, ReplayBufferManager, VectorReplayBuffer
from tianshou.data.batch import alloc_by_keys_diff
from tianshou.data.types import RolloutBatchProtocol
from tianshou.data.utils.converter import to_hdf5

from fsrl_ext.data.episodes import EpisodeLog
from fsrl_ext.data.nstep import NStepWindow, nstep_window
from fsrl_ext.data.storage import STORED_KEYS, storable


class _CountedIndices:
    """Counts all places when Tianshou asks for them, which it does for slices alone.

    Tianshou keeps them in an array: 8 bytes for each transition, here and in every sub-buffer.
    """

    maxsize: int

    @property
    def _indices(self) -> np.ndarray:
        return np.arange(self.maxsize)

    @_indices.setter
    def _indices(self, value: np.ndarray) -> None:
        """Tianshou's constructor sets them; they are always the same."""


class CostReplayBuffer(_CountedIndices, ReplayBuffer):
    """Tianshou's ``ReplayBuffer`` with ``cost [S, C]`` (float32) beside ``rew [S]``.

    Observations and actions are stored as float32, ``info`` and an empty ``policy`` entry not at
    all. Everything that enters is checked first: a rejected batch leaves the buffer unchanged.

    :param size: number of transitions.
    :param num_costs: number of cost signals ``C``.
    :param stack_num: see Tianshou, like the arguments below.
    :param ignore_obs_next: do not store ``obs_next``.
    :param save_only_last_obs: store only the last frame of stacked observations.
    :param sample_avail: sample only indices with a full frame stack.
    :param random_seed: seed of the sampling.
    """

    _reserved_keys = STORED_KEYS

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
        _check_positive(size=size, num_costs=num_costs)
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
        """The finished episodes, published by a collector."""

    def reset(self, keep_statistics: bool = False) -> None:
        """Empty the buffer, and :attr:`episodes` with it.

        :param keep_statistics: whether the episode that is under way goes on, see Tianshou.
        """
        super().reset(keep_statistics=keep_statistics)
        self.episodes.clear()

    def add(
        self,
        batch: RolloutBatchProtocol,
        buffer_ids: np.ndarray | list[int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Add one transition; with ``buffer_ids=[0]`` every entry of the batch has length 1.

        :param batch: what Tianshou needs and ``cost``, ``[C]`` (``[1, C]`` with ``buffer_ids``);
            a scalar (``[1]``) is accepted if ``C = 1``.
        :return: index, episode return, episode length, start index of the episode.
        :raises ValueError: ``cost`` is missing or has the wrong shape.
        :raises NonFiniteStepError: a field holds NaN or infinity.
        """
        return super().add(storable(batch, self.num_costs, buffer_ids), buffer_ids)

    def nstep_window(self, indices: np.ndarray, num_steps: int) -> NStepWindow:
        """Read the windows that start at ``indices [B]``, see :func:`~fsrl_ext.data.nstep.nstep_window`."""
        return nstep_window(self, indices, num_steps)

    def close_episodes(self) -> np.ndarray:
        """Mark the last transition of an open episode as truncated and start a new episode.

        Needed whenever the environment is reset in the middle of an episode: the next transition
        then belongs to another episode, and no n-step return may reach across.

        :return: index of the transition that was marked, ``[0]`` or ``[1]`` entries.
        """
        self._ep_return, self._ep_len, self._ep_start_idx = 0.0, 0, self._insertion_idx
        return _truncate(self, self.unfinished_index() if len(self) else np.array([], int))

    def set_batch(self, batch: RolloutBatchProtocol) -> None:
        """Replace the data; ``batch`` has ``S`` rows, ``cost [S, C]`` and no unknown keys."""
        super().set_batch(_whole(batch, self))

    def update(self, buffer: ReplayBuffer) -> np.ndarray:
        """Copy all transitions of another cost-aware buffer into this one, oldest first.

        Episodes that are still open, here or there, are closed in the copy: what follows them here
        is another episode.

        :return: indices of the copies in this buffer.
        :raises ValueError: the other buffer has no costs or another number of costs.
        """
        other = getattr(buffer, "num_costs", None)
        if other != self.num_costs:
            raise ValueError(f"buffer must have num_costs={self.num_costs}, got {other}")
        if len(buffer) == 0:
            return np.array([], int)
        self.close_episodes()
        stack_num, buffer.stack_num = buffer.stack_num, 1
        order = buffer.sample_indices(0)
        buffer.stack_num = stack_num
        open_there = np.isin(order, buffer.unfinished_index())
        alloc_by_keys_diff(self._meta, buffer._meta, self.maxsize, stack=False)
        indices = super().update(buffer)
        # a longer source wraps around: only its last `maxsize` transitions are still there
        _truncate(self, indices[-self.maxsize :][open_there[-self.maxsize :]])
        self._ep_start_idx = self._insertion_idx
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
        """A full buffer around given arrays (or HDF5 datasets) of equal length ``S``.

        :param cost: ``[S]`` or ``[S, C]``.
        :raises ValueError: lengths differ or there is no data.
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
        buffer._size = size
        buffer.last_index = np.array([size - 1])
        return buffer

    def save_hdf5(self, path: str, compression: str | None = None) -> None:
        """Write the buffer, with its counters and the state of its sampling, to a file."""
        _save(self, path, compression)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(_checked_state(self, state))


class CostVectorReplayBuffer(_CountedIndices, VectorReplayBuffer):
    """``buffer_num`` equal :class:`CostReplayBuffer` in one memory, one per environment.

    :param total_size: number of transitions over all sub-buffers (rounded up to a multiple).
    :param buffer_num: number of sub-buffers, at least the number of environments.
    :param num_costs: number of cost signals ``C``.
    :param random_seed: seed of the sampling, of the manager and (spawned) of every sub-buffer.

    The other arguments are those of :class:`CostReplayBuffer`.
    """

    _reserved_keys = STORED_KEYS

    def __init__(
        self,
        total_size: int,
        buffer_num: int,
        num_costs: int = 1,
        *,
        stack_num: int = 1,
        ignore_obs_next: bool = False,
        save_only_last_obs: bool = False,
        sample_avail: bool = False,
        random_seed: int = 42,
    ) -> None:
        _check_positive(total_size=total_size, buffer_num=buffer_num, num_costs=num_costs)
        size = -(-total_size // buffer_num)
        # Tianshou seeds the manager with 42 whatever was asked, and all sub-buffers alike, which
        # correlates what is drawn from them.
        seeds = np.random.SeedSequence(random_seed).generate_state(buffer_num + 1)
        children: list[ReplayBuffer] = [
            CostReplayBuffer(
                size,
                num_costs,
                stack_num=stack_num,
                ignore_obs_next=ignore_obs_next,
                save_only_last_obs=save_only_last_obs,
                sample_avail=sample_avail,
                random_seed=int(seed),
            )
            for seed in seeds[1:]
        ]
        ReplayBufferManager.__init__(self, children)
        self._random_state = np.random.RandomState(int(seeds[0]))
        self.num_costs = num_costs
        self.episodes = EpisodeLog(num_costs)
        """The finished episodes of all environments, published by a collector; those of the sub-buffers stay
        empty."""

    def reset(self, keep_statistics: bool = False) -> None:
        """Empty the buffer, and :attr:`episodes` with it.

        :param keep_statistics: whether the episodes that are under way go on, see Tianshou.
        """
        super().reset(keep_statistics=keep_statistics)
        self.episodes.clear()

    def add(
        self,
        batch: RolloutBatchProtocol,
        buffer_ids: np.ndarray | list[int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Add one transition to each of the sub-buffers ``buffer_ids [R]`` (default: to all).

        :param batch: what Tianshou needs, every entry ``[R, ...]``, and ``cost [R, C]`` (``[R]`` is
            accepted if ``C = 1``).
        :return: indices, episode returns, episode lengths, start indices of the episodes, ``[R]``.
        :raises ValueError: ``cost`` is missing or has the wrong shape.
        :raises NonFiniteStepError: a field holds NaN or infinity.
        """
        ids = np.arange(self.buffer_num) if buffer_ids is None else buffer_ids
        return super().add(storable(batch, self.num_costs, ids), ids)

    def sample_indices(self, batch_size: int | None) -> np.ndarray:
        """Places of ``batch_size`` transitions drawn uniformly, with replacement, from all that are stored.

        Tianshou draws a sub-buffer for each first and then from each sub-buffer in turn; ``0`` and ``None``
        mean what they mean there.
        """
        if not batch_size or batch_size < 0 or (self._sample_avail and self.stack_num > 1):
            return super().sample_indices(batch_size)
        ends = self._lengths.cumsum()
        drawn = self._random_state.randint(ends[-1], size=batch_size)
        owner = ends.searchsorted(drawn, side="right")
        # A sub-buffer's data start at its first place, whether it has wrapped around or not.
        return drawn + (self._offset - ends + self._lengths)[owner]

    def __getitem__(self, index: Any) -> RolloutBatchProtocol:
        """As Tianshou's, without its detours for an array of places without frame stacks."""
        if not isinstance(index, np.ndarray) or self.stack_num > 1 or not self._save_obs_next:
            return super().__getitem__(index)
        batch = Batch()
        for key in ("info", "policy"):
            batch.__dict__[key] = Batch()
        for key, value in self._meta.__dict__.items():
            batch.__dict__[key] = value[index]
        return cast(RolloutBatchProtocol, batch)

    def prev(self, index: int | np.ndarray) -> np.ndarray:
        """As Tianshou's, whose compiled code takes seconds to compile in every process."""
        place, start, length, newest = self._neighbourhood(index)
        before = start + (place - start - 1) % length
        return start + (before - start + (self.done[before] | (before == newest))) % length

    def next(self, index: int | np.ndarray) -> np.ndarray:
        """As Tianshou's, whose compiled code takes seconds to compile in every process."""
        place, start, length, newest = self._neighbourhood(index)
        return start + (place - start + 1 - (self.done[place] | (place == newest))) % length

    def _neighbourhood(self, index: int | np.ndarray) -> tuple[np.ndarray, ...]:
        """The places, and their sub-buffers' first place, number of transitions and newest place."""
        place = np.asarray(index) % self.maxsize
        owner = place // (self.maxsize // self.buffer_num)
        return place, self._offset[owner], np.maximum(self._lengths[owner], 1), self.last_index[owner]

    def _compile(self) -> None:
        """Nothing is compiled."""

    def nstep_window(self, indices: np.ndarray, num_steps: int) -> NStepWindow:
        """Read the windows that start at ``indices [B]``, see :func:`~fsrl_ext.data.nstep.nstep_window`."""
        return nstep_window(self, indices, num_steps)

    def close_episodes(self) -> np.ndarray:
        """Close the open episode of every sub-buffer, see :class:`CostReplayBuffer`.

        :return: indices of the transitions that were marked as truncated.
        """
        # the children share the arrays of this buffer, so marking through them marks here
        closed = [
            child.close_episodes() + offset for child, offset in zip(self.buffers, self._offset, strict=True)
        ]
        return np.concatenate(closed)

    def set_batch(self, batch: RolloutBatchProtocol) -> None:
        """Replace the data; ``batch`` has ``S`` rows, ``cost [S, C]`` and no unknown keys."""
        super().set_batch(_whole(batch, self))

    def update(self, buffer: ReplayBuffer) -> np.ndarray:
        """Not possible: a sub-buffer belongs to one environment."""
        raise NotImplementedError(
            "CostVectorReplayBuffer cannot take over another buffer; use CostReplayBuffer.update"
        )

    @classmethod
    def from_data(cls, *args: Any, **kwargs: Any) -> Self:
        """Not possible: the arrays do not say which environment a transition comes from."""
        raise NotImplementedError("use CostReplayBuffer.from_data for data of one stream")

    def save_hdf5(self, path: str, compression: str | None = None) -> None:
        """Write the buffer, with its counters and the state of its sampling, to a file."""
        _save(self, path, compression)

    def __getstate__(self) -> dict[str, Any]:
        # Without this every transition would be written twice, here and in its sub-buffer, and
        # the two copies would part ways after loading.
        children = np.empty(self.buffer_num, dtype=object)
        for i, child in enumerate(self.buffers):
            children[i] = CostReplayBuffer.__new__(CostReplayBuffer)
            children[i].__dict__.update(child.__dict__, _meta=Batch())
        return self.__dict__ | {"buffers": children}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(_checked_state(self, state))
        if self._meta.get_keys():
            self._set_batch_for_children()

    def _set_batch_for_children(self) -> None:
        # not through CostReplayBuffer.set_batch: the data are views of what was checked already
        for offset, child in zip(self._offset, self.buffers, strict=True):
            ReplayBuffer.set_batch(child, self._meta[offset : offset + child.maxsize])


AnyCostBuffer = CostReplayBuffer | CostVectorReplayBuffer


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")


def _whole(batch: RolloutBatchProtocol, buffer: AnyCostBuffer) -> RolloutBatchProtocol:
    """The argument of ``set_batch``: checked, in the stored types."""
    unknown = set(batch.get_keys()) - set(STORED_KEYS) - {"info"}
    if unknown or len(batch) != buffer.maxsize:
        raise ValueError(
            f"batch must have {buffer.maxsize} rows and keys out of {STORED_KEYS}, "
            f"got {len(batch)} rows and the keys {sorted(batch.get_keys())}"
        )
    return storable(batch, buffer.num_costs, np.arange(buffer.maxsize))


def _truncate(buffer: AnyCostBuffer, indices: np.ndarray) -> np.ndarray:
    if len(indices):
        buffer._meta.truncated[indices] = True
        buffer._meta.done[indices] = True
    return indices


def _save(buffer: AnyCostBuffer, path: str, compression: str | None) -> None:
    with h5py.File(path, "w") as file:
        to_hdf5(buffer.__getstate__(), file, compression=compression)


def _checked_state(buffer: AnyCostBuffer, state: dict[str, Any]) -> dict[str, Any]:
    if "num_costs" not in state or ("buffers" in state) != isinstance(buffer, ReplayBufferManager):
        raise ValueError(f"this is not a saved {type(buffer).__name__}")
    # HDF5 gives numpy scalars back for plain numbers
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in state.items()}
    # files of older versions hold no log of episodes
    return {"episodes": EpisodeLog(plain["num_costs"]), **plain}
