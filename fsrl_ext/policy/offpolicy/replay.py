"""What off-policy policies measure in their buffer, once for each collect.

Dimension letters: ``B`` batch, ``O`` observation, ``C`` costs, ``E`` episodes, ``S = 1 + C`` signals (reward
first).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tianshou.data import ReplayBuffer, ReplayBufferManager
from torch import Tensor, nn

from fsrl_ext.functional.returns import LimitUnit, floored_deviation
from fsrl_ext.policy.base import are_images

FAR_ABOVE = 10.0
"""A feature whose root mean square is larger than this is far from unit size."""
FAR_BELOW = 0.05
"""A feature whose largest absolute value is smaller than this is far from unit size."""
CLIP = 10.0
"""Largest absolute value of a feature that was normalised."""


class ReplayStatistics(nn.Module):
    """Measures the data of a buffer: scales and bounds of the signals, observations, costs of new episodes.

    A cycle is the time from one collect to the next; all updates of a cycle see the same data and the same
    statistics. ``state_dict`` of the policy holds them as part of its extra state.

    :param num_costs: C.
    :param gamma: discount factor of the reward, for the bounds of values.
    :param cost_gamma: discount factor of the costs, likewise.
    :param limit_unit: unit of the episode costs that are measured.
    :param normalise_signals: whether the scales are measured; otherwise they stay at one.
    :param normalise_observations: whether features that are far from unit size are normalised; images stay
        as they are.
    :param normalise_steps: number of stored steps from which the observations' statistics stay as they are.
    """

    def __init__(
        self,
        num_costs: int,
        *,
        gamma: float,
        cost_gamma: float,
        limit_unit: LimitUnit,
        normalise_signals: bool,
        normalise_observations: bool,
        normalise_steps: int,
    ) -> None:
        super().__init__()
        self.gammas = np.array([gamma, *[cost_gamma] * num_costs])
        self.limit_unit: LimitUnit = limit_unit
        self.normalise_signals = normalise_signals
        self.normalise_observations = normalise_observations
        self.normalise_steps = normalise_steps
        self.episode_cost: np.ndarray | None = None
        """``[C]`` mean cost of the newest finished episodes; ``None`` before the first ones."""
        self.episode_length: float | None = None
        """Mean number of steps of these episodes; ``None`` before the first ones."""
        self.step_cost = np.zeros(num_costs)
        """``[C]`` mean cost of a stored step."""
        self.scale = np.ones(1 + num_costs)
        """``[S]`` scales of reward and costs, on the host; the critics learn the signals divided by them."""
        self.step_scale: Tensor
        """``[C]`` standard deviations of the costs of stored steps, on the policy's device."""
        self.signal_scale: Tensor
        """``[S]`` the scales on the policy's device."""
        self.value_low: Tensor
        """``[S]`` lowest value that a state can have, in units of the scales."""
        self.value_high: Tensor
        """``[S]`` highest value that a state can have, in units of the scales."""
        self.register_buffer("step_scale", torch.ones(num_costs), persistent=False)
        self.register_buffer("signal_scale", torch.ones(1 + num_costs), persistent=False)
        self.register_buffer("value_low", torch.full((1 + num_costs,), -torch.inf), persistent=False)
        self.register_buffer("value_high", torch.full((1 + num_costs,), torch.inf), persistent=False)
        self._shift: np.ndarray | None = None
        self._deviation: np.ndarray | None = None
        self._obs_tables: tuple[Tensor, Tensor, Tensor] | None = None
        self._settled = False
        self._warned = False
        self._cycle: int | None = None
        self._count: int | None = None

    def arrived(self, buffer: Any) -> bool:
        """Says whether a cycle has begun: a collect was written into the buffer since the last call."""
        if buffer.episodes.cycle == self._cycle:
            return False
        self._cycle = buffer.episodes.cycle
        return True

    def measure(self, buffer: Any) -> tuple[np.ndarray, np.ndarray]:
        """Measures the buffer's data at the beginning of a cycle.

        :return: costs ``[E, C]``, in the limits' unit, and lengths ``[E]`` of the episodes that ended since
            the last call. The first call returns no episode, because those in the buffer may be from random
            actions or from another policy.
        """
        places = buffer.sample_indices(0)
        signals = np.concatenate([buffer.rew[places, None], buffer.cost[places]], axis=1, dtype=np.float64)
        self.step_cost = signals[:, 1:].mean(0)
        deviation = _deviation(signals)
        self.step_scale.copy_(torch.as_tensor(deviation[1:]))
        if self.normalise_signals:
            self.scale = deviation
        # A terminal state is worth nothing from then on, so zero is always possible.
        horizon = 1.0 / (1.0 - self.gammas)
        low = np.minimum(signals.min(0), 0.0) * horizon / self.scale
        high = np.maximum(signals.max(0), 0.0) * horizon / self.scale
        self._show(low, high)
        if not self._settled and not are_images(buffer.obs[places[:1]]):
            self._measure_observations(buffer.obs[places])
            self._settled = len(places) >= min(self.normalise_steps, buffer.maxsize)
        seen, self._count = self._count, buffer.episodes.count
        costs, lens = buffer.episodes.since(self._count if seen is None else seen, self.limit_unit)
        if len(costs):
            self.episode_cost, self.episode_length = costs.mean(0), float(lens.mean())
        return costs, lens

    def _show(self, low: np.ndarray, high: np.ndarray) -> None:
        """Copies scales and bounds ``[S]`` to the policy's device."""
        for tensor, values in (
            (self.signal_scale, self.scale),
            (self.value_low, low),
            (self.value_high, high),
        ):
            tensor.copy_(torch.as_tensor(values))

    def _measure_observations(self, obs: np.ndarray) -> None:
        """Finds the features of ``obs [n, O]`` that are far from unit size; they stay normalised."""
        obs = obs.reshape(len(obs), -1).astype(np.float64)
        size = np.sqrt(np.square(obs).mean(0))
        varies = obs.std(0) > 1e-6 * size
        far = (size > FAR_ABOVE) | ((np.abs(obs).max(0) < FAR_BELOW) & varies)
        if not self.normalise_observations:
            if far.any() and not self._warned:
                self._warned = True
                warnings.warn(
                    f"{far.sum()} of {len(far)} features of the observations are far from unit size (root "
                    f"mean squares {size.min():.2g} to {size.max():.2g}) and normalise_observations is off",
                    stacklevel=2,
                )
            return
        if self._shift is None or self._deviation is None:
            self._shift, self._deviation = np.zeros(len(far)), np.ones(len(far))
        far |= self._deviation != 1.0
        self._shift = np.where(far, obs.mean(0), 0.0)
        self._deviation = np.where(far, _deviation(obs), 1.0)
        self._build_tables()

    def _build_tables(self) -> None:
        """Prepares the tensors that :meth:`observations` uses, if any feature is normalised."""
        self._obs_tables = None
        if self._shift is None or self._deviation is None or (self._deviation == 1.0).all():
            return
        clip = np.where(self._deviation == 1.0, np.inf, CLIP)
        self._obs_tables = tuple(
            torch.as_tensor(x, dtype=torch.float32, device=self.signal_scale.device)
            for x in (self._shift, 1.0 / self._deviation, clip)
        )  # type: ignore[assignment]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves the observations' statistics together with the buffers to another device."""
        super()._apply(fn, recurse)
        self._build_tables()
        return self

    def observations(self, obs: Any) -> Any:
        """Returns observations ``[B, O]`` as the networks see them; unchanged if all have unit size."""
        if self._obs_tables is None:
            return obs
        shift, factor, clip = self._obs_tables
        obs = torch.as_tensor(obs, dtype=torch.float32, device=shift.device).flatten(1)
        return ((obs - shift) * factor).clamp(-clip, clip)

    def units(self) -> dict[str, Any]:
        """Returns scales, bounds and the observations' statistics, as lists, booleans and ``None``."""
        arrays = {
            "scale": self.scale,
            "step_scale": self.step_scale.cpu().numpy(),
            "value_low": self.value_low.cpu().numpy(),
            "value_high": self.value_high.cpu().numpy(),
            "shift": self._shift,
            "deviation": self._deviation,
        }
        lists = {name: None if x is None else x.tolist() for name, x in arrays.items()}
        return {**lists, "settled": self._settled}

    def load_units(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`units` returned."""
        self.scale, self._settled = np.array(state["scale"]), state["settled"]
        self.step_scale.copy_(torch.tensor(state["step_scale"]))
        self._show(np.array(state["value_low"]), np.array(state["value_high"]))
        self._shift, self._deviation = (
            None if state[name] is None else np.array(state[name]) for name in ("shift", "deviation")
        )
        self._build_tables()

    def progress(self) -> dict[str, Any]:
        """Returns counts of collects and episodes, costs and length of the newest ones, what was warned."""
        cost = self.episode_cost
        return {
            "cycle": self._cycle,
            "count": self._count,
            "episode_cost": None if cost is None else cost.tolist(),
            "episode_length": self.episode_length,
            "step_cost": self.step_cost.tolist(),
            "warned": self._warned,
        }

    def load_progress(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`progress` returned."""
        self._cycle, self._count = state["cycle"], state["count"]
        cost = state["episode_cost"]
        self.episode_cost = None if cost is None else np.array(cost)
        self.episode_length, self.step_cost = state["episode_length"], np.array(state["step_cost"])
        self._warned = state["warned"]


def _deviation(values: np.ndarray) -> np.ndarray:
    """Returns the floored standard deviations ``[k]`` of ``values [n, k]``."""
    return floored_deviation(values.std(0), np.sqrt(np.square(values).mean(0)))


def newest_places(buffer: ReplayBuffer, window: int, count: int) -> np.ndarray:
    """Returns about ``count`` places, evenly spaced over the newest ``window`` steps of each environment."""
    parts = buffer.buffers if isinstance(buffer, ReplayBufferManager) else [buffer]
    stride = max(len(parts) * window // count, 1)
    return np.concatenate(
        [
            start + (part.last_index[0] - np.arange(0, min(window, len(part)), stride)) % part.maxsize
            for start, part in zip(buffer.subbuffer_edges[:-1], parts, strict=True)
        ]
    )
