"""What brought environments to where they are, so that others can be brought there, too.

Simulators do not save themselves. But a seed and everything since repeats an environment that is
deterministic.

Dimensions: ``N`` environments, ``T`` steps of one of them, ``A`` action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class EnvHistory:
    """The last seed of each environment, and the actions and resets since.

    It grows until an environment is seeded anew: :meth:`renew` asks for that.

    :param num_envs: N.
    """

    def __init__(self, num_envs: int) -> None:
        self._seeds: list[int | None] = [None] * num_envs
        self._actions: list[list[np.ndarray]] = [[] for _ in range(num_envs)]
        self._resets: list[list[int]] = [[] for _ in range(num_envs)]
        self._due: list[int | None] = [None] * num_envs

    def renew(self, seeds: Sequence[int]) -> None:
        """Seeds ``[N]`` for each environment's next reset that has none of its own."""
        if len(seeds) != len(self._due):
            raise ValueError(f"seeds must have {len(self._due)} entries, got {len(seeds)}")
        self._due = [int(x) for x in seeds]

    def reset(self, ids: np.ndarray, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Notes a reset of environments ``ids [R]``; returns its arguments, with the seeds that are due."""
        seed = kwargs.get("seed")
        seeds: list[Any] = [seed] * len(ids) if seed is None or np.ndim(seed) == 0 else list(seed)
        for k, i in enumerate(ids.tolist()):
            if seeds[k] is None:
                seeds[k] = self._due[i]
            self._due[i], given = None, seeds[k]
            if kwargs.keys() - {"seed"}:  # options are not kept
                self._start(i, None)
            elif given is None:
                self._resets[i].append(len(self._actions[i]))
            else:
                self._start(i, int(given))
        return {**kwargs, "seed": seeds} if any(x is not None for x in seeds) else dict(kwargs)

    def step(self, ids: np.ndarray, actions: Any) -> None:
        """Notes the actions ``[R, ...]`` that the environments ``ids [R]`` got."""
        for i, action in zip(ids.tolist(), np.array(actions), strict=True):
            self._actions[i].append(action)

    def state_dict(self) -> dict[str, Any]:
        """The history as plain lists and arrays ``[T, A]``."""
        return {
            "seeds": list(self._seeds),
            "actions": [np.array(x) for x in self._actions],
            "resets": [list(x) for x in self._resets],
            "due": list(self._due),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`; says nothing to the environments, see :func:`replay`."""
        self._seeds, self._due = list(state["seeds"]), list(state["due"])
        self._actions = [list(x) for x in state["actions"]]
        self._resets = [list(x) for x in state["resets"]]

    def _start(self, i: int, seed: int | None) -> None:
        self._seeds[i], self._actions[i], self._resets[i] = seed, [], []


def replay(env: Any, state: Mapping[str, Any]) -> np.ndarray | None:
    """Takes environments through a saved history.

    :param env: a :class:`~fsrl_ext.data.cost_env.CostVectorEnv` of N environments.
    :param state: of an :class:`EnvHistory`.
    :return: where that led, observations ``[N, ...]``; None if an environment was never seeded.
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
