"""The level of the cost: an estimate of the episode cost of the policy that learns, held against critics.

Dimension letter: ``C`` costs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsrl_ext.functional.returns import integral_margin

LEVEL_STATES = 1024
"""Number of the newest states, about, in which the level of the critics is looked at."""
MOST_POLICIES = 64
"""Number of the newest policies whose estimates are kept; an episode that took more collects is cut to it."""
APART_CYCLES = 50
"""Number of collects in a row after which a warning says that the critics' level is wrong."""


class MeasuredCost:
    r"""Estimates the episode cost ``[C]`` of the policy that learns, in the unit of the limits.

    The costs of finished episodes tell the level, and the critics only by how much the updates since then
    raise it. A rise counts at once, and a fall only when it was measured: a policy that was optimised against
    critics costs more than they say. With the level :math:`\bar J` of the last collect in which episodes
    ended, and the changes :math:`\Delta` that the critics expected of the cycles since then,

    .. math:: \hat J_k = \bar J + \Big( \sum\nolimits_i \Delta_i \Big)^+ .

    The changes are added up before their sign is looked at, because episodes of many collects would
    otherwise count the noise of each of them as a rise. When episodes end, these estimates all move by

    .. math:: \frac{E}{E + E_0} \left( J - \tfrac1n \sum_{i=k-n+1}^k \hat J_i \right) .

    J is the mean cost of the E episodes that ended in the newest collect. They began up to n collects before
    and were played by n policies, so J is compared with the mean of the estimates for these policies.

    Where measured costs stay above the bound b that the constraint aims at, an extra margin r below b grows,
    by :func:`~fsrl_ext.functional.returns.integral_margin`. One measurement counts an excess of at most b,
    and r is at most b / 2.

    With a recovery share f < 1 the extra margin is a share of what an update can do instead of an amount of
    cost: it grows by :math:`g \, clip((J - b) / b, -1, 1)` and is at most f. Critics that exaggerate how much
    an update lowers the cost exaggerate its unit as well.

    :param num_costs: C.
    :param former_episodes: :math:`E_0`, the number of episodes that the former estimate counts for.
    :param margin_rate: g, in [0, 1].
    :param recovery_share: f, in (0, 1].
    """

    def __init__(
        self, num_costs: int, *, former_episodes: float, margin_rate: float, recovery_share: float = 1.0
    ) -> None:
        self.former_episodes = former_episodes
        self.margin_rate = margin_rate
        self.recovery_share = recovery_share
        self.extra_margin = torch.zeros(num_costs, dtype=torch.float64)
        """``[C]`` the extra margin in undiscounted cost of an episode, on the host; 0 with f < 1."""
        self.extra_share = torch.zeros(num_costs, dtype=torch.float64)
        """``[C]`` the extra margin as a share of the reduction that the KL bound of the E-step allows, on
        the host; 0 with f = 1."""
        self._estimates: list[Tensor] = []
        self._drift = torch.zeros(num_costs, dtype=torch.float64)
        self._cycles = 0
        self._steps = 0

    @property
    def value(self) -> Tensor | None:
        """The estimate ``[C]``, float64 on the host; ``None`` before the first measurement."""
        return self._estimates[-1] if self._estimates else None

    def change(self, expected: Tensor) -> None:
        """Adds the change ``[C]`` of the episode cost that the updates of the last cycle were to make."""
        if self._estimates:
            drift = self._drift + expected
            changed = self._estimates[-1] + drift.clamp(min=0.0) - self._drift.clamp(min=0.0)
            self._estimates = [*self._estimates[1 - MOST_POLICIES :], changed]
            self._drift = drift

    def measure(
        self,
        costs: np.ndarray,
        lens: np.ndarray,
        *,
        bound: Tensor,
        num_envs: int,
        otherwise: np.ndarray,
    ) -> None:
        """Corrects estimate and extra margin by measured costs, once for each collect.

        :param costs: ``[E, C]`` costs of the episodes that ended in the newest collect, in the limits' unit.
        :param lens: ``[E]`` numbers of their steps.
        :param bound: b, ``[C]`` float64 on the host; ``inf`` for a cost without a constraint.
        :param num_envs: number of environments, which tells how many collects an episode takes.
        :param otherwise: ``[C]`` first estimate, if no episode has finished yet.
        """
        self._cycles += 1
        self._steps += int(lens.sum())
        if not self._estimates:
            first = costs.mean(0) if len(costs) else otherwise
            self._estimates = [torch.as_tensor(first, dtype=torch.float64)]
        elif len(costs):
            cost = torch.as_tensor(costs.mean(0), dtype=torch.float64)
            span = round(float(lens.mean()) * num_envs * self._cycles / self._steps)
            span = min(max(span, 1), len(self._estimates))
            played = self._estimates[-span:]
            weight = len(costs) / (len(costs) + self.former_episodes)
            correction = weight * (cost - torch.stack(played).mean(0))
            # An estimate below zero is an error of the estimate, unless costs as low as that were measured.
            lowest = cost.clamp(max=0.0)
            self._estimates[-span:] = [(x + correction).maximum(lowest) for x in played]
            self._drift = torch.zeros_like(self._drift)
            self._widen(cost, bound)

    def _widen(self, cost: Tensor, bound: Tensor) -> None:
        """Widens or narrows the extra margin by measured costs ``[C]``, held against the bound ``[C]``."""
        if self.recovery_share == 1.0:
            self.extra_margin = integral_margin(
                self.extra_margin,
                cost,
                bound,
                rate=self.margin_rate,
                largest_excess=bound,
                largest=0.5 * bound,
            )
            return
        # A bound of 0 has no size: any cost is then an excess as large as counts.
        size = bound.clamp(min=torch.finfo(bound.dtype).tiny)
        one = torch.ones_like(bound)
        self.extra_share = integral_margin(
            self.extra_share,
            one + (cost - bound) / size,
            torch.where(torch.isfinite(bound), one, bound),
            rate=self.margin_rate,
            largest_excess=one,
            largest=self.recovery_share * one,
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns estimates and counts as numbers."""
        estimates = [x.tolist() for x in self._estimates]
        return {
            "estimates": estimates,
            "drift": self._drift.tolist(),
            "cycles": self._cycles,
            "steps": self._steps,
            "extra_margin": self.extra_margin.tolist(),
            "extra_share": self.extra_share.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""
        self._estimates = [torch.tensor(x, dtype=torch.float64) for x in state["estimates"]]
        # Earlier files counted each rise by itself, and had no share.
        zeros = [0.0] * len(state["extra_margin"])
        self._drift = torch.tensor(state.get("drift", zeros), dtype=torch.float64)
        self.extra_share = torch.tensor(state.get("extra_share", zeros), dtype=torch.float64)
        self._cycles, self._steps = state["cycles"], state["steps"]
        self.extra_margin = torch.tensor(state["extra_margin"], dtype=torch.float64)


class CriticLevel:
    """Compares the level of the cost critics with measured costs, and warns once if they stay apart by half.

    :param measured: whether the constraint is held by measured costs, so that the level has no effect on it.
    """

    def __init__(self, *, measured: bool) -> None:
        self.measured = measured
        self.value: np.ndarray | None = None
        """``[C]`` episode cost that the critics' level stands for; ``None`` before the first look."""
        self._apart = 0
        self._warned = False

    def compare(self, level: np.ndarray, measured: np.ndarray, limits: Sequence[float]) -> None:
        """Takes the critics' level and measured episode costs, both ``[C]``, once for each collect."""
        self.value = level
        limit = np.asarray(limits)
        larger = np.maximum(np.abs(level), np.abs(measured))
        apart = (np.abs(level - measured) > 0.5 * larger) & (larger > 0.1 * limit) & np.isfinite(limit)
        self._apart = self._apart + 1 if apart.any() else 0
        if self._apart < APART_CYCLES or self._warned:
            return
        self._warned = True
        which = int(apart.argmax())
        effect = "the limit holds, because" if self.measured else "the limit need not hold, because"
        source = "measured costs" if self.measured else "the critics' level"
        warnings.warn(
            f"over {APART_CYCLES} collects the level of the cost critics stood for another episode cost "
            f"({level[which]:.3g}) than was measured ({measured[which]:.3g}), as where cost falls at the "
            f"beginning or the end of episodes, or where observations tell the time; {effect} the constraint "
            f"uses {source} (docs/cost_level.md)",
            stacklevel=2,
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns level and counts."""
        value = None if self.value is None else self.value.tolist()
        return {"value": value, "apart": self._apart, "warned": self._warned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""
        self.value = None if state["value"] is None else np.array(state["value"])
        self._apart, self._warned = state["apart"], state["warned"]


class CostLevel:
    """Keeps a running mean over batches of the critics' expected cost ``[C]``, and a mean per old policy.

    Costs are rare, so the mean over the states of one batch says more about the batch than about the policy.

    :param rate: weight of the newest batch in the running mean, in (0, 1]; with 1 it is that batch's mean.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._running: Tensor | None = None
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, cost: Tensor) -> None:
        """Adds the mean ``[C]`` of one batch to both means."""
        self._count += 1
        self._sum = cost.clone() if self._sum is None else self._sum.to(cost) + cost
        if self._running is None:
            self._running = cost.clone()
        else:
            # The first batches have equal weights, so that the very first one is forgotten as fast.
            self._running = self._running.to(cost).lerp(cost, max(self.rate, 1.0 / self._count))

    @property
    def running(self) -> Tensor:
        """The running mean ``[C]``; it needs a batch before."""
        assert self._running is not None, "add comes before running"
        return self._running

    def state_dict(self) -> dict[str, Any]:
        """Returns both means as lists of numbers, and the number of batches since the last restart."""
        running, total = (None if x is None else x.tolist() for x in (self._running, self._sum))
        return {"running": running, "sum": total, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""
        self._running, self._sum = (
            None if x is None else torch.tensor(x, dtype=torch.float64)
            for x in (state["running"], state["sum"])
        )
        self._count = state["count"]

    def restart(self) -> Tensor | None:
        """Returns the mean ``[C]`` since the last restart, or ``None`` without a batch, and starts it anew.

        The running mean goes on.
        """
        mean = None if self._sum is None else self._sum / self._count
        self._sum, self._count = None, 0
        return mean
