"""The history of environments, by which others are brought to where they are.

A simulator has no way to save its state. A deterministic environment however repeats itself, if it is given
the same seed and then the same actions and resets.

Dimensions: ``N`` environments, ``R`` of them are reset or step, ``T`` steps of one of them, ``A`` action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class ActionLog:
    """The actions of one environment in one array, which takes a tenth of the memory of a list of arrays."""

    def __init__(self, actions: Sequence[Any] | np.ndarray = ()) -> None:
        self._rows = np.array(actions)
        self._count = len(self._rows)

    def __len__(self) -> int:
        return self._count

    def append(self, action: np.ndarray, dtype: np.dtype) -> None:
        """Copy an action to the end; the first one decides shape and dtype, which a later one can widen."""
        if not self._count:
            self._rows = np.empty((64, *np.shape(action)), dtype)
        elif self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        if dtype != self._rows.dtype:
            self._rows = self._rows.astype(np.result_type(self._rows.dtype, dtype))
        self._rows[self._count] = action
        self._count += 1

    def array(self) -> np.ndarray:
        """Return a copy of the actions ``[T, A]``."""
        return self._rows[: self._count].copy()


class EnvHistory:
    """The last seed of each environment, and the actions and resets since.

    The history of an environment grows until it is seeded anew, which :meth:`renew` asks for.

    :param num_envs: number of environments ``N``.
    """

    def __init__(self, num_envs: int) -> None:
        self._seeds: list[int | None] = [None] * num_envs
        self._actions = [ActionLog() for _ in range(num_envs)]
        self._resets: list[list[int]] = [[] for _ in range(num_envs)]
        self._due: list[int | None] = [None] * num_envs

    def renew(self, seeds: Sequence[int]) -> None:
        """Seed each environment at its next reset, unless that reset has a seed of its own.

        :param seeds: ``[N]``.
        :raises ValueError: there is not one seed per environment.
        """
        if len(seeds) != len(self._due):
            raise ValueError(f"seeds must have {len(self._due)} entries, got {len(seeds)}")
        self._due = [int(x) for x in seeds]

    def reset(self, ids: np.ndarray, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Note a reset of the environments ``ids [R]``.

        :param kwargs: the arguments of the reset.
        :return: the arguments, with the seeds that :meth:`renew` asked for.
        """
        seed = kwargs.get("seed")
        seeds: list[Any] = [seed] * len(ids) if seed is None or np.ndim(seed) == 0 else list(seed)
        for k, i in enumerate(ids.tolist()):
            if seeds[k] is None:
                seeds[k] = self._due[i]
            self._due[i], given = None, seeds[k]
            if kwargs.keys() - {"seed"}:  # Options are not kept, so this reset could not be repeated.
                self._start(i, None)
            elif given is None:
                self._resets[i].append(len(self._actions[i]))
            else:
                self._start(i, int(given))
        return {**kwargs, "seed": seeds} if any(x is not None for x in seeds) else dict(kwargs)

    def step(self, ids: np.ndarray, actions: Any) -> None:
        """Note the actions ``[R, A]`` that the environments ``ids [R]`` got."""
        rows = np.asarray(actions)
        for i, action in zip(ids.tolist(), rows, strict=True):
            self._actions[i].append(action, rows.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Return the history as plain lists, and the actions as arrays ``[T, A]``."""
        return {
            "seeds": list(self._seeds),
            "actions": [x.array() for x in self._actions],
            "resets": [list(x) for x in self._resets],
            "due": list(self._due),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned. The environments themselves need :func:`replay`."""
        self._seeds, self._due = list(state["seeds"]), list(state["due"])
        self._actions = [ActionLog(x) for x in state["actions"]]
        self._resets = [list(x) for x in state["resets"]]

    def _start(self, i: int, seed: int | None) -> None:
        self._seeds[i], self._actions[i], self._resets[i] = seed, ActionLog(), []


def replay(env: Any, state: Mapping[str, Any]) -> np.ndarray | None:
    """Take environments through a saved history.

    :param env: a :class:`~fsrl_ext.data.cost_env.CostVectorEnv` of ``N`` environments.
    :param state: what :meth:`EnvHistory.state_dict` returned.
    :return: the observations ``[N, ...]`` that the history led to; None if an environment was never seeded.
    """
    seeds, actions = state["seeds"], state["actions"]
    if any(seed is None for seed in seeds):
        return None
    rows = list(env.reset(seed=seeds)[0])

    def reset_before(t: int) -> None:
        for i in range(len(rows)):
            for _ in range(state["resets"][i].count(t)):
                rows[i] = env.reset(np.array([i]))[0][0]

    steps = max(map(len, actions))
    for t in range(steps):
        reset_before(t)
        ids = np.array([i for i in range(len(rows)) if t < len(actions[i])])
        for i, row in zip(ids, env.step(np.array([actions[i][t] for i in ids]), ids)[0], strict=True):
            rows[i] = row
    reset_before(steps)
    return np.array(rows)
