"""The contract of every policy with cost limits, and what its updates report.

Dimension letters: ``B`` batch, ``O`` observation, ``A`` action, ``C`` costs.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeVar

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import Batch
from tianshou.data.types import ObsBatchProtocol
from tianshou.policy import BasePolicy
from tianshou.policy.base import TLearningRateScheduler, TrainingStats
from torch import Tensor, nn

from fsrl_ext.functional.returns import ThresholdUnit, as_cost_limits, cost_threshold


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Settings that every policy has.

    :raises ValueError: for values that cannot be used, naming them.
    """

    gamma: float = 0.99
    """Discount factor of reward and costs, in (0, 1)."""

    def __post_init__(self) -> None:
        if not 0.0 < self.gamma < 1.0:
            raise ValueError(f"gamma must be in (0, 1) because time limits bootstrap, got {self.gamma}")

    @property
    def cost_margin(self) -> float:
        """Share of the limit that is kept free; a setting of some policies."""
        return 0.0

    @property
    def threshold(self) -> ThresholdUnit:
        """How a limit becomes a discounted threshold; a setting of policies with cost critics."""
        return "paper"

    @property
    def uses_threshold(self) -> bool:
        """Whether the discounted threshold, which takes episodes to be full length, decides anything."""
        return False


@dataclass(kw_only=True)
class MetricStats(TrainingStats):
    """Statistics of one update: named numbers that stay on their device until they are read.

    Reading :attr:`metrics` waits for the device; :class:`~fsrl_ext.trainer.metrics.MetricMean` averages many
    statistics without waiting.
    """

    names: tuple[str, ...] = ()
    values: Tensor = field(default_factory=lambda: torch.zeros(0))
    """``[len(names)]``, on the policy's device."""
    host_metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], numbers: Mapping[str, float] | None = None) -> Self:
        """Makes statistics from 0-dim tensors of one device and dtype, and from plain numbers."""
        values = torch.stack([x.detach() for x in tensors.values()]) if tensors else torch.zeros(0)
        return cls(names=tuple(tensors), values=values, host_metrics=numbers or {})

    @property
    def metrics(self) -> dict[str, float]:
        """All numbers by name."""
        return dict(zip(self.names, self.values.tolist(), strict=True)) | dict(self.host_metrics)

    def get_loss_stats_dict(self) -> dict[str, float]:
        """Returns what Tianshou's trainers average and log."""
        return self.metrics


def per_cost(name: str, values: Sequence[Any] | Tensor) -> dict[str, Any]:
    """Names one entry per cost: the bare name for one cost, numbered names for several."""
    if len(values) == 1:
        return {name: values[0]}
    return {f"{name}_{i}": value for i, value in enumerate(values)}


TConfig = TypeVar("TConfig", bound=PolicyConfig)


class ConstrainedPolicy(BasePolicy[MetricStats], Generic[TConfig]):
    """Base of all policies: spaces, settings, cost limits, copies of networks, acting, state.

    Actions live in the normalised box ``[-1, 1]``; the environment gets them clipped and scaled.

    A subclass names the class of its settings, ``config_type``, and implements :meth:`_act`, ``process_fn``
    and ``learn``. A constructor that ends in ``**settings`` takes every field of ``config_type`` by name.

    :param action_space: a bounded ``Box``.
    :param observation_space: kept for Tianshou.
    :param lr_scheduler: called after every update.
    :param cost_limit: undiscounted cost that an episode may have, one number or one per cost; ``inf`` for no
        constraint. It can be set anew while training.
    :param num_costs: C; ``None`` for as many as there are limits.
    :param max_episode_steps: the environment's time limit.
    :param config: settings, of ``config_type`` or of a class that it extends.
    :param settings: single settings by name, which win over ``config``.
    :raises ValueError: for unusable spaces, limits or settings.
    :raises TypeError: for a config of another class and settings that do not exist.
    """

    config_type: ClassVar[type[Any]]
    other_config_types: ClassVar[tuple[type[Any], ...]] = ()
    """Classes of settings that do as well as ``config_type`` and do not extend one another."""
    config: TConfig

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "config_type"):
            cls.__signature__ = _with_settings(cls)  # type: ignore[attr-defined]

    def __init__(
        self,
        *,
        action_space: gym.Space,
        observation_space: gym.Space | None,
        lr_scheduler: TLearningRateScheduler | None,
        cost_limit: float | Sequence[float],
        num_costs: int | None,
        max_episode_steps: int,
        config: PolicyConfig | None,
        settings: Mapping[str, Any],
    ) -> None:
        check_action_space(action_space, type(self).__name__)
        super().__init__(
            action_space=action_space,
            observation_space=observation_space,
            action_scaling=True,
            action_bound_method="clip",
            lr_scheduler=lr_scheduler,
        )
        self.config = dataclasses.replace(self._completed(config), **settings)
        self.max_episode_steps = max_episode_steps
        self.num_costs = len(as_cost_limits(cost_limit)) if num_costs is None else num_costs
        self._copies: list[nn.Module] = []
        self._limits: Tensor
        self._thresholds: Tensor
        self.register_buffer("_limits", torch.zeros(self.num_costs), persistent=False)
        self.register_buffer("_thresholds", torch.zeros(self.num_costs), persistent=False)
        self.cost_limit = cost_limit

    @classmethod
    def _completed(cls, config: PolicyConfig | None) -> Any:
        """The config as the policy reads it; fields that a plain algorithm's config lacks get defaults."""
        if config is None:
            return cls.config_type()
        if isinstance(config, (cls.config_type, *cls.other_config_types)):
            return config
        if not issubclass(cls.config_type, type(config)):
            raise TypeError(f"config must be a {cls.config_type.__name__}, got {type(config).__name__}")
        return cls.config_type(**{x.name: getattr(config, x.name) for x in dataclasses.fields(config)})

    @staticmethod
    def _compile() -> None:
        """Compiles nothing: the base class's estimators, which nothing here uses, take seconds to compile."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads what ``state_dict`` returned; one without progress of learning, from 0.1.0, will do."""
        return super().load_state_dict({"_extra_state": {}, **state_dict}, strict=strict, assign=assign)

    def set_extra_state(self, state: Any) -> None:
        """Goes on from what ``get_extra_state`` returned, or begins anew from an empty state."""
        if isinstance(state, Mapping) and state:
            self._load_progress(state)

    def get_extra_state(self) -> dict[str, Any]:
        """What learning goes on from besides parameters and buffers: numbers, text and lists of them."""
        return {}

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        """Takes over what :meth:`get_extra_state` returned, if that is anything."""

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self._limits.device

    @property
    def cost_limit(self) -> tuple[float, ...]:
        """The limit on each cost of an episode, undiscounted."""
        return self._cost_limit

    @cost_limit.setter
    def cost_limit(self, value: float | Sequence[float]) -> None:
        limits = as_cost_limits(value)
        if len(limits) != self.num_costs:
            raise ValueError(f"cost_limit must have {self.num_costs} numbers, got {list(limits)}")
        self._cost_limit = limits
        self._limits.copy_(torch.tensor(limits))
        self.cost_threshold = self.discounted(limits) * (1.0 - self.config.cost_margin)
        self._thresholds.copy_(self.cost_threshold)

    @property
    def constrained(self) -> bool:
        """Whether any limit is finite."""
        return any(math.isfinite(x) for x in self._cost_limit)

    def per_constraint(self, name: str, values: Sequence[Any] | Tensor) -> dict[str, Any]:
        """Names one entry per cost with a finite limit, numbered where there are several costs."""
        entries = zip(per_cost(name, values).items(), self._cost_limit, strict=True)
        return {key: value for (key, value), limit in entries if math.isfinite(limit)}

    @property
    def cost_bound(self) -> Tensor:
        """The limits less the margin, ``[C]``, undiscounted: what multipliers and steps aim at."""
        return (1.0 - self.config.cost_margin) * self._limits

    def discounted(self, episode_costs: Sequence[float]) -> Tensor:
        """Undiscounted episode costs ``[C]`` in the unit of discounted cost critics, ``[C]`` float64.

        :attr:`cost_threshold` is the limits in that unit, less the margin; it stays on the host.
        """
        config = self.config
        values = [
            cost_threshold(
                cost, max_episode_steps=self.max_episode_steps, gamma=config.gamma, unit=config.threshold
            )
            for cost in episode_costs
        ]
        return torch.tensor(values, dtype=torch.float64)

    def _copy(self, source: nn.Module) -> Any:
        """Copies a network, for targets and averages; the copy has no gradients and always evaluates."""
        copy = deepcopy(source).requires_grad_(False).eval()
        self._copies.append(copy)
        return copy

    def train(self, mode: bool = True) -> Self:
        """Sets the networks to training mode; copies always evaluate.

        Nothing is done when the mode is as it was: Tianshou asks twice for each gradient step, and walking
        through all modules would take a tenth of it (``benchmarks/gradient_step.py``).
        """
        if mode != self.training:
            super().train(mode)
            for copy in self._copies:
                copy.eval()
        return self

    def forward(self, batch: ObsBatchProtocol, state: Any = None, **kwargs: Any) -> Batch:
        """Actions ``[B, A]`` for ``batch.obs [B, O]``; a training step explores.

        The noise is the policy's own: a collector's ``exploration_noise`` adds none.
        """
        act, state = self._act(batch.obs, state, explore=self.is_within_training_step)
        answer = Batch()
        # Batch(act=...) would look into every entry first (benchmarks/throughput.py).
        answer.__dict__.update(act=act, state=state)
        return answer

    @abstractmethod
    def _act(self, obs: Any, state: Any, *, explore: bool) -> tuple[Tensor, Any]:
        """Returns actions ``[B, A]`` and the actor's state."""

    @staticmethod
    def _executed(act: Tensor) -> Tensor:
        """Returns actions as the environment executes them; the one place where critics get them clipped."""
        return act.clamp(-1.0, 1.0)


def _with_settings(policy: type[Any]) -> inspect.Signature:
    """The constructor's signature with every setting spelled out, for ``help`` and editors."""
    signature = inspect.signature(policy.__init__)
    named = [x for x in signature.parameters.values() if x.kind is not inspect.Parameter.VAR_KEYWORD]
    if len(named) < len(signature.parameters):
        named += [
            inspect.Parameter(x.name, inspect.Parameter.KEYWORD_ONLY, default=x.default, annotation=x.type)
            for x in dataclasses.fields(policy.config_type)
        ]
    return signature.replace(parameters=[x for x in named if x.name != "self"])


def check_action_space(action_space: gym.Space, policy: str) -> None:
    """Refuses action spaces that cannot be scaled to ``[-1, 1]``.

    :raises ValueError: naming the space.
    """
    if not isinstance(action_space, gym.spaces.Box):
        raise ValueError(f"{policy} needs a continuous (Box) action space, got {action_space}")
    if not action_space.is_bounded():
        raise ValueError(f"{policy} needs a bounded action space, got {action_space}")


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """The values on a device, as a view where they are there already; the host does not wait.

    float64 becomes float32.
    """
    tensor = torch.as_tensor(values)
    if tensor.dtype == torch.float64:
        tensor = tensor.float()
    if tensor.device == device:
        return tensor
    if device.type == "cuda" and tensor.device.type == "cpu":
        # A copy from pageable memory would wait for the device.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def clear_gradients(parameters: Sequence[Tensor]) -> None:
    """Does what ``optimizer.zero_grad()`` does, without its hooks (``benchmarks/gradient_step.py``)."""
    for parameter in parameters:
        parameter.grad = None


class PolyakAverage:
    """Parameters of copies that follow those of their sources.

    :param pairs: (copy, source), networks of the same shape.
    """

    def __init__(self, *pairs: tuple[nn.Module, nn.Module]) -> None:
        self._copies: list[Tensor] = []
        self._sources: list[Tensor] = []
        for copy, source in pairs:
            self.add(copy, source)

    def add(self, copy: nn.Module, source: nn.Module) -> None:
        """Lets another copy follow its source."""
        self._copies += list(copy.parameters())
        self._sources += list(source.parameters())

    @torch.no_grad()
    def update(self, tau: float) -> None:
        """Moves the copies by ``tau`` in (0, 1] towards their sources."""
        torch._foreach_lerp_(self._copies, self._sources, tau)
