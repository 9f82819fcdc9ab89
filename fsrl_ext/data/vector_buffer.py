"""The cost-aware replay buffer for the transitions of several environments.

Dimensions: ``N`` sub-buffers, ``S`` size of all together, ``L`` transitions of the fullest one, ``R``
transitions added at once, ``B`` sampled transitions, ``C`` costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self, cast

import numpy as np
from tianshou.data import Batch, ReplayBuffer, ReplayBufferManager, VectorReplayBuffer
from tianshou.data.types import RolloutBatchProtocol

from fsrl_ext.data.batches import raw_batch
from fsrl_ext.data.buffer import CostReplayBuffer
from fsrl_ext.data.counters import BufferCounters, load_sampling_state, sampling_state
from fsrl_ext.data.episodes import EpisodeLog
from fsrl_ext.data.interrupts import InterruptGuard
from fsrl_ext.data.neighbours import SeveralEnvironments
from fsrl_ext.data.seeds import buffer_seeds
from fsrl_ext.data.sizes import ceil_div
from fsrl_ext.data.storage import storable
from fsrl_ext.errors import checked


class CostVectorReplayBuffer(SeveralEnvironments, VectorReplayBuffer):
    """``buffer_num`` equal :class:`CostReplayBuffer` in one memory, one per environment.

    The episodes of all environments are in :attr:`episodes`; those of the sub-buffers stay empty.

    :param total_size: number of transitions over all sub-buffers, rounded up to a multiple of ``buffer_num``.
    :param buffer_num: number of sub-buffers ``N``, at least the number of environments.
    :param num_costs: number of cost signals ``C``.
    :param random_seed: seed of the sampling, of the manager and (spawned) of every sub-buffer.
    :raises ValueError: ``total_size`` is below ``buffer_num``, or ``buffer_num`` or ``num_costs`` is below 1.

    The other arguments are those of :class:`CostReplayBuffer`.
    """

    @checked(at_least_one=("total_size", "buffer_num", "num_costs", "stack_num"), seed=("random_seed",))
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
        if total_size < buffer_num:
            raise ValueError(
                f"total_size must be >= {buffer_num}, one place for each of the buffer_num={buffer_num} "
                f"sub-buffers, got {total_size}"
            )
        seed, *part_seeds = buffer_seeds(random_seed, buffer_num)
        parts: list[ReplayBuffer] = [
            CostReplayBuffer(
                ceil_div(total_size, buffer_num),
                num_costs,
                stack_num=stack_num,
                ignore_obs_next=ignore_obs_next,
                save_only_last_obs=save_only_last_obs,
                sample_avail=sample_avail,
                random_seed=part_seed,
            )
            for part_seed in part_seeds
        ]
        ReplayBufferManager.__init__(self, parts)
        # Tianshou seeds the manager with 42 whatever was asked.
        self._random_state = np.random.RandomState(seed)
        self.num_costs = num_costs
        self.episodes = EpisodeLog(num_costs)

    @classmethod
    def _smallest(cls) -> Self:
        return cls(1, 1)

    def add(
        self,
        batch: RolloutBatchProtocol,
        buffer_ids: np.ndarray | list[int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Add one transition to each of the sub-buffers ``buffer_ids [R]`` (default: to all).

        :param batch: what Tianshou needs, every entry ``[R, ...]``, and ``cost [R, C]`` (``[R]`` is accepted
            if ``C = 1``).
        :return: indices, episode returns, episode lengths, start indices of the episodes, ``[R]``.
        :raises ValueError: ``cost`` is missing or has the wrong shape.
        :raises NonFiniteStepError: a field holds NaN or infinity.
        """
        ids = np.arange(self.buffer_num) if buffer_ids is None else buffer_ids
        checked = storable(batch, self.num_costs, ids)
        with InterruptGuard() as guard:
            guard.hold()
            return super().add(checked, ids)

    def sample_indices(self, batch_size: int | None) -> np.ndarray:
        """Draw ``batch_size`` places uniformly, with replacement, from all transitions.

        Tianshou draws a sub-buffer for each first and then from each sub-buffer in turn, which takes longer
        (``benchmarks/gradient_step.py``, stage "sample and gather"). ``0`` and ``None`` mean what they mean
        there.
        """
        if not batch_size or batch_size < 0 or (self._sample_avail and self.stack_num > 1):
            return super().sample_indices(batch_size)
        ends = self._lengths.cumsum()
        drawn = self._random_state.randint(ends[-1], size=batch_size)
        owner = ends.searchsorted(drawn, side="right")
        # A sub-buffer's data start at its first place, whether it has wrapped around or not.
        return drawn + (self._offset - ends + self._lengths)[owner]

    def __getitem__(self, index: Any) -> RolloutBatchProtocol:
        """As Tianshou's, without its detours for an array of places without frame stacks.

        ``benchmarks/gradient_step.py`` measures it in the stage "sample and gather".
        """
        if not isinstance(index, np.ndarray) or self.stack_num > 1 or not self._save_obs_next:
            return super().__getitem__(index)
        entries: dict[str, Any] = {"info": Batch(), "policy": Batch()}
        for key, value in self.arrays.items():
            entries[key] = value[index]
        return cast(RolloutBatchProtocol, raw_batch(**entries))

    def _neighbourhood(self, index: int | np.ndarray) -> tuple[np.ndarray, ...]:
        """The places, and their sub-buffers' first place, number of transitions and newest place."""
        place = np.asarray(index) % self.maxsize
        owner = place // (self.maxsize // self.buffer_num)
        return place, self._offset[owner], np.maximum(self._lengths[owner], 1), self.last_index[owner]

    def update(self, buffer: ReplayBuffer) -> np.ndarray:
        """Refuse: a sub-buffer belongs to one environment."""
        raise NotImplementedError(
            "CostVectorReplayBuffer cannot take over another buffer; use CostReplayBuffer.update"
        )

    @classmethod
    def from_data(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse: the arrays do not say which environment a transition comes from."""
        raise NotImplementedError("use CostReplayBuffer.from_data for data of one stream")

    def state_dict(self) -> dict[str, Any]:
        """Return the content as plain arrays and numbers, without the room that is still empty.

        :raises TypeError: something stored is not a plain array.
        """
        filled = max(len(part) for part in self.buffers)
        arrays = {}
        for key, values in self.arrays.items():
            if not isinstance(values, np.ndarray) or values.dtype == object:
                raise TypeError(f"buffer must hold plain arrays, got {key!r} as {type(values).__name__}")
            arrays[key] = values.reshape(self.buffer_num, -1, *values.shape[1:])[:, :filled].copy()
        return {
            "shape": [self.buffer_num, self.maxsize // self.buffer_num],
            "arrays": arrays,
            "counters": asdict(BufferCounters.of(self)),
            "sampling": sampling_state(self),
            "episodes": self.episodes.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` of an equally large buffer returned.

        :raises ValueError: the state is of a buffer of another size.
        """
        count, room = self.buffer_num, self.maxsize // self.buffer_num
        if state["shape"] != [count, room]:
            raise ValueError(
                f"buffer must have {state['shape'][0]} parts of {state['shape'][1]} transitions, as when "
                f"it was saved, got {count} of {room}"
            )
        arrays = {}
        for key, rows in state["arrays"].items():
            values = np.zeros((count, room, *rows.shape[2:]), dtype=rows.dtype)
            values[:, : rows.shape[1]] = rows
            arrays[key] = values.reshape(count * room, *rows.shape[2:])
        self._meta = cast(RolloutBatchProtocol, raw_batch(**arrays))
        if arrays:
            self._set_batch_for_children()
        BufferCounters(**state["counters"]).write_to(self)
        load_sampling_state(self, state["sampling"])
        self.episodes.load_state_dict(state["episodes"])

    def __getstate__(self) -> dict[str, Any]:
        # Without this every transition would be written twice, here and in its sub-buffer, and the two copies
        # would part ways after loading.
        parts = np.empty(self.buffer_num, dtype=object)
        for i, part in enumerate(self.buffers):
            parts[i] = CostReplayBuffer.__new__(CostReplayBuffer)
            parts[i].__dict__.update(part.__dict__, _meta=Batch())
        return self.__dict__ | {"buffers": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._meta.get_keys():
            self._set_batch_for_children()

    def _set_batch_for_children(self) -> None:
        # Not through CostReplayBuffer.set_batch: the data are views of what was checked already.
        for offset, part in zip(self._offset, self.buffers, strict=True):
            ReplayBuffer.set_batch(part, self._meta[offset : offset + part.maxsize])
