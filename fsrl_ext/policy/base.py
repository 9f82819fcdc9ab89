"""The base class of all policies with cost limits, the base of their settings, and the statistics of updates.

Dimension letters: ``B`` batch, ``O`` observation, ``A`` action, ``C`` costs.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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

from fsrl_ext.errors import check_types, checked
from fsrl_ext.functional.returns import (
    LimitUnit,
    ThresholdUnit,
    as_cost_limits,
    cost_threshold,
    discounted_steps,
)


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Settings of all policies.

    The properties are settings that only some policies have: their configs turn the property into a field.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    gamma: float = 0.99
    """Discount factor of reward and costs, in (0, 1)."""
    limit_unit: LimitUnit = "episode"
    """Cost that a cost limit is on: the sum of the costs of an ``episode``, or their sum from its first step
    on, ``discounted`` by the discount factor of the costs."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 < self.gamma < 1.0:
            raise ValueError(f"gamma must be in (0, 1) because time limits bootstrap, got {self.gamma}")

    @property
    def discount_of_costs(self) -> float:
        """Discount factor of the costs in force, in (0, 1]."""
        return self.gamma

    @property
    def cost_margin(self) -> float:
        """Share of each cost limit that the policy keeps free, in [0, 1)."""
        return 0.0

    @property
    def deterministic_eval(self) -> bool | None:
        """Whether the policy acts with its most probable action outside training steps.

        ``None`` stands for true with continuous actions, and for false with discrete ones.
        """
        return True

    def samples_in_evaluations(self, *, discrete: bool) -> bool:
        """Returns whether actions are sampled outside training steps, too.

        :param discrete: whether the actions are those of a ``Discrete`` space.
        """
        chosen = self.deterministic_eval
        return discrete if chosen is None else not chosen

    @property
    def threshold_unit(self) -> ThresholdUnit:
        """Formula that turns a cost limit into the threshold of discounted cost critics.

        See :func:`~fsrl_ext.functional.returns.cost_threshold`.
        """
        return "paper"

    @property
    def uses_threshold(self) -> bool:
        """Whether learning depends on the discounted threshold, which assumes episodes of full length."""
        return False


@dataclass(kw_only=True)
class MetricStats(TrainingStats):
    """Statistics of one update: named numbers, which stay on their device until somebody reads them.

    Reading :attr:`metrics` waits for the device; :class:`~fsrl_ext.trainer.metrics.MetricMean` averages many
    statistics without waiting.
    """

    names: tuple[str, ...] = ()
    """Names of ``values``, in their order."""
    values: Tensor = field(default_factory=lambda: torch.zeros(0))
    """``[len(names)]``, on the policy's device."""
    host_metrics: Mapping[str, float] = field(default_factory=dict)
    """Further numbers by name, which are on the host already."""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], numbers: Mapping[str, float] | None = None) -> Self:
        """Makes statistics from tensors and plain numbers, each by name.

        :param tensors: 0-dim, all of one device and dtype; their graphs are not kept.
        :param numbers: numbers on the host.
        """
        values = torch.stack([x.detach() for x in tensors.values()]) if tensors else torch.zeros(0)
        return cls(names=tuple(tensors), values=values, host_metrics=numbers or {})

    @property
    def metrics(self) -> dict[str, float]:
        """All numbers by name, on the host."""
        return dict(zip(self.names, self.values.tolist(), strict=True)) | dict(self.host_metrics)

    def get_loss_stats_dict(self) -> dict[str, float]:
        """Returns the numbers that Tianshou's trainers average and log."""
        return self.metrics


class CostEntry(str):
    """The name of a number about one of several costs, ``multiplier_1``, which knows the cost's place.

    A policy does not know the names of its costs. Who does writes them in place of the number.
    """

    __slots__ = ("cost", "stem")

    stem: str
    cost: int

    @classmethod
    def of(cls, stem: str, cost: int) -> CostEntry:
        """Makes the name of a number about the cost in a place from 0."""
        entry = cls(f"{stem}_{cost}")
        entry.stem, entry.cost = stem, cost
        return entry

    def named(self, names: Sequence[str]) -> str:
        """Returns the entry's name with that of the cost, ``multiplier_vases``."""
        return f"{self.stem}_{names[self.cost]}"


def per_cost(name: str, values: Sequence[Any] | Tensor) -> dict[str, Any]:
    """Returns one named entry per cost: ``name`` for one cost, ``name_0, name_1, ...`` for several.

    :param values: ``[C]``.
    :return: the names of several costs are :class:`CostEntry` objects.
    """
    if len(values) == 1:
        return {name: values[0]}
    return {CostEntry.of(name, i): value for i, value in enumerate(values)}


TConfig = TypeVar("TConfig", bound=PolicyConfig)


class ConstrainedPolicy(BasePolicy[MetricStats], Generic[TConfig]):
    """Base class of all policies: it owns spaces, settings, cost limits, copies of networks and saved state.

    Continuous actions live in the normalised box ``[-1, 1]``; the environment gets them clipped and scaled.
    Discrete actions are numbers from 0 on; the environment gets them counted from the space's start.

    A subclass names the class of its settings, ``config_type``, and implements :meth:`_act`, ``process_fn``
    and ``learn``. A constructor that ends in ``**settings`` accepts every field of ``config_type`` as a
    keyword argument, and ``inspect.signature`` and ``help`` show these fields.

    :param action_space: a bounded ``Box``, or a ``Discrete`` space where :attr:`takes_discrete_actions`.
    :param observation_space: passed on to Tianshou's ``BasePolicy``; nothing here reads it.
    :param lr_scheduler: Tianshou steps it after every update.
    :param cost_limit: largest cost of an episode in ``limit_unit``, >= 0, one number or one per cost; ``inf``
        for no constraint. The attribute can be set while training.
    :param num_costs: C; ``None`` for the number of limits.
    :param max_episode_steps: the environment's time limit, in steps.
    :param config: settings, of ``config_type`` or of a class that ``config_type`` extends; ``None`` for the
        defaults.
    :param settings: single settings by name, which replace those of ``config``.
    :raises ValueError: for a space, limit or setting that the policy cannot use.
    :raises TypeError: for a config of another class, or a setting that does not exist.
    """

    config_type: ClassVar[type[Any]]
    """Class of the policy's settings."""
    other_config_types: ClassVar[tuple[type[Any], ...]] = ()
    """Further classes of settings that the policy accepts; ``config_type`` need not extend them."""
    takes_discrete_actions: ClassVar[bool] = False
    """Whether the action space may be a ``Discrete`` one."""
    config: TConfig
    """All settings of the policy."""
    cost_threshold: Tensor
    """``[C]`` float64, on the host: the limits less the margin, in the unit of discounted cost critics."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "config_type"):
            # help() and inspect.signature() then show every setting in place of **settings.
            cls.__signature__ = _with_settings(cls)  # type: ignore[attr-defined]

    @checked(
        at_least_one=("num_costs", "max_episode_steps"),
        own=("config", "cost_limit", "settings", "action_space"),
    )
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
        check_action_space(action_space, type(self).__name__, discrete=self.takes_discrete_actions)
        is_box = isinstance(action_space, gym.spaces.Box)
        super().__init__(
            action_space=action_space,
            observation_space=observation_space,
            action_scaling=is_box,
            action_bound_method="clip" if is_box else None,
            lr_scheduler=lr_scheduler,
        )
        self.is_discrete = not is_box
        """Whether actions are numbers of a ``Discrete`` space."""
        if isinstance(action_space, gym.spaces.Box):
            # The arrays of map_action; float16 is too coarse for the arithmetic in between.
            precision = np.result_type(action_space.dtype, np.float32)
            low, high = (np.asarray(x, dtype=precision) for x in (action_space.low, action_space.high))
            self._action_bounds = low, high, high - low
        self.config = self._replaced(self._completed(config), settings)
        self.max_episode_steps = max_episode_steps
        self.num_costs = len(as_cost_limits(cost_limit)) if num_costs is None else num_costs
        self._copies: list[nn.Module] = []
        self._limits: Tensor
        self._thresholds: Tensor
        self.register_buffer("_limits", torch.zeros(self.num_costs), persistent=False)
        self.register_buffer("_thresholds", torch.zeros(self.num_costs), persistent=False)
        self.cost_limit = cost_limit

    def _replaced(self, config: Any, settings: Mapping[str, Any]) -> Any:
        """Returns the config with single settings replaced.

        :raises TypeError: for a name that is no setting, with the nearest known name.
        """
        fields = [x.name for x in dataclasses.fields(config)]
        for name in settings:
            if name not in fields:
                near = difflib.get_close_matches(
                    name, [*inspect.signature(type(self)).parameters, *fields], n=1
                )
                hint = f"; did you mean {near[0]}?" if near else ""
                raise TypeError(f"{type(self).__name__} has no argument or setting {name!r}{hint}")
        return dataclasses.replace(config, **settings)

    @classmethod
    def _completed(cls, config: PolicyConfig | None) -> Any:
        """Returns a config with all fields that the policy reads; fields that ``config`` lacks get defaults.

        :raises TypeError: for a config of another class.
        """
        if config is None:
            return cls.config_type()
        if isinstance(config, (cls.config_type, *cls.other_config_types)):
            return config
        if not issubclass(cls.config_type, type(config)):
            raise TypeError(f"config must be a {cls.config_type.__name__}, got {type(config).__name__}")
        return cls.config_type(**{x.name: getattr(config, x.name) for x in dataclasses.fields(config)})

    @staticmethod
    def _compile() -> None:
        """Compiles nothing, unlike Tianshou's method.

        That method compiles estimators of returns for seconds, and no policy here calls them.
        """

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads what ``state_dict`` returned: parameters, buffers and the progress of learning.

        A state dictionary of version 0.1.0, which has no progress of learning, loads as well; the progress of
        the policy then stays as it is.

        :raises RuntimeError: for missing, unexpected and misshapen entries, as in ``torch.nn.Module``.
        """
        return super().load_state_dict({"_extra_state": {}, **state_dict}, strict=strict, assign=assign)

    def set_extra_state(self, state: Any) -> None:
        """Restores what :meth:`get_extra_state` returned; an empty state changes nothing.

        A state that has ``units`` alone restores these, for a run that starts from a saved policy.
        """
        if "units" in state:
            self._load_units(state["units"])
        progress = {name: value for name, value in state.items() if name != "units"}
        if progress:
            self._load_progress(progress)

    def get_extra_state(self) -> dict[str, Any]:
        """Returns the progress of learning that is neither a parameter nor a buffer; ``state_dict`` holds it.

        It consists of numbers, text, ``None`` and lists and dictionaries of these, so that
        ``torch.load(..., weights_only=True)`` reads it. The units in which the networks see observations,
        rewards and costs have an entry of their own, ``units``.
        """
        return {}

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        """Restores a non-empty result of :meth:`get_extra_state`, ``units`` apart."""

    def _load_units(self, state: Mapping[str, Any]) -> None:
        """Restores the entry ``units`` of :meth:`get_extra_state`."""

    @property
    def device(self) -> torch.device:
        """Device of the policy's networks and buffers."""
        return self._limits.device

    @property
    def cost_limit(self) -> tuple[float, ...]:
        """Largest cost of an episode, ``[C]``, in ``limit_unit``; a new value has effect at the next update.

        :raises ValueError: on setting a limit that is negative or NaN, or another number of limits than C.
        """
        return self._cost_limit

    @cost_limit.setter
    def cost_limit(self, value: float | Sequence[float]) -> None:
        limits = as_cost_limits(value)
        if len(limits) != self.num_costs:
            raise ValueError(
                f"cost_limit must have one number per cost ({self.num_costs}), got {list(limits)}"
            )
        self._cost_limit = limits
        self._limits.copy_(torch.tensor(limits))
        self.cost_threshold = self.discounted(limits) * (1.0 - self.config.cost_margin)
        self._thresholds.copy_(self.cost_threshold)

    @property
    def limit_unit(self) -> LimitUnit:
        """Unit of the cost limits and of all costs of episodes that the policy measures and logs."""
        return self.config.limit_unit

    @property
    def constrained(self) -> bool:
        """Whether any limit is finite."""
        return any(math.isfinite(x) for x in self._cost_limit)

    def per_constraint(self, name: str, values: Sequence[Any] | Tensor) -> dict[str, Any]:
        """Returns one entry per cost that has a finite limit, named as :func:`per_cost` names it.

        :param values: ``[C]``.
        """
        entries = zip(per_cost(name, values).items(), self._cost_limit, strict=True)
        return {key: value for (key, value), limit in entries if math.isfinite(limit)}

    @property
    def cost_bound(self) -> Tensor:
        """The limits less the margin, ``[C]``; multipliers and steps compare costs of episodes with it."""
        return (1.0 - self.config.cost_margin) * self._limits

    def cost_unit(self, step_scale: Tensor) -> Tensor:
        """Returns the unit ``[C]`` of cost surpluses that multipliers see: the limit itself.

        :param step_scale: ``[C]`` scale of a step's cost, which is the unit where the limit is smaller; a
            limit of zero has no size.
        """
        return torch.where(torch.isfinite(self._limits), self._limits.maximum(step_scale), 1.0)

    def discounted(self, episode_costs: Sequence[float]) -> Tensor:
        """Converts episode costs ``[C]`` in the unit of the limits to the unit of discounted cost critics.

        :return: ``[C]`` float64, on the host.
        :raises ValueError: for negative costs and NaN.
        """
        config = self.config
        values = [
            cost_threshold(
                cost,
                max_episode_steps=self.max_episode_steps,
                gamma=config.discount_of_costs,
                unit=config.threshold_unit,
                limit_unit=config.limit_unit,
            )
            for cost in episode_costs
        ]
        return torch.tensor(values, dtype=torch.float64)

    @property
    def samples_in_evaluations(self) -> bool:
        """Whether actions are sampled outside training steps, too: selections and evaluations play them."""
        return self.config.samples_in_evaluations(discrete=self.is_discrete)

    def steps_that_count(self, episode_steps: float) -> float:
        """Returns the cost, in the unit of the limits, of an episode whose every step costs one.

        :param episode_steps: number of steps of the episode, or a mean of it.
        """
        if self.config.limit_unit == "episode":
            return episode_steps
        return discounted_steps(episode_steps, self.config.discount_of_costs)

    def _copy(self, source: nn.Module) -> Any:
        """Copies a network, for a target or an average; the copy has no gradients and stays in eval mode."""
        copy = deepcopy(source).requires_grad_(False).eval()
        self._copies.append(copy)
        return copy

    def train(self, mode: bool = True) -> Self:
        """Sets the networks to training or evaluation mode; copies of networks stay in evaluation mode.

        The call returns at once if the mode stays the same: Tianshou sets it twice in each gradient step, and
        a walk through all modules would take a tenth of that step (``benchmarks/gradient_step.py``).
        """
        if mode != self.training:
            super().train(mode)
            for copy in self._copies:
                copy.eval()
        return self

    def forward(self, batch: ObsBatchProtocol, state: Any = None, **kwargs: Any) -> Batch:
        """Returns a batch with actions ``act`` for ``batch.obs [B, O]``, and the actor's ``state``.

        Continuous actions are ``[B, A]``, and discrete ones ``[B]``.

        The policy explores in training steps (``is_within_training_step``), with noise of its own: a
        collector's ``exploration_noise`` adds none.
        """
        act, state = self._act(batch.obs, state, explore=self.is_within_training_step)
        result = Batch()
        # Batch(act=...) would inspect and convert every entry first (benchmarks/throughput.py).
        result.__dict__.update(act=act, state=state)
        return result

    def map_action(self, act: Any) -> np.ndarray:
        """Clips actions to ``[-1, 1]`` and scales them to the action space.

        Scaling alone can end just outside of the space, where an environment may refuse the action.
        ``benchmarks/throughput.py collect`` measures this method, as part of the fast collector.

        Discrete actions are counted from the start of the space.

        :param act: ``[B, A]`` or ``[A]``, or ``[B]`` discrete actions, array or tensor.
        :return: actions that lie in the space and have its dtype, of the same shape.
        :raises ValueError: for discrete actions that are no whole numbers.
        """
        values = act.detach().cpu().numpy() if isinstance(act, Tensor) else np.asarray(act)
        if self.is_discrete:
            return self._whole(values) + self._first_action
        low, high, width = self._action_bounds
        if values.dtype != low.dtype:
            values = values.astype(low.dtype)
        clipped = np.minimum(np.maximum(values, -1.0), 1.0)
        scaled = low + width * (clipped + 1.0) / 2.0
        inside = np.minimum(np.maximum(scaled, low), high)
        return inside if inside.dtype == self.action_space.dtype else inside.astype(self.action_space.dtype)

    def map_action_inverse(self, act: Any) -> np.ndarray:
        """Scales actions of the action space to ``[-1, 1]``; the inverse of :meth:`map_action`.

        :param act: ``[B, A]`` or ``[A]``, or ``[B]`` discrete actions, array or tensor.
        :return: float32 or float64, or int64 for discrete actions, of the same shape.
        """
        values = act.detach().cpu().numpy() if isinstance(act, Tensor) else np.asarray(act)
        if self.is_discrete:
            return self._whole(values) - self._first_action
        low, _, width = self._action_bounds
        scaled = (values.astype(low.dtype, copy=False) - low) * 2.0 / width - 1.0
        return np.minimum(np.maximum(scaled, -1.0), 1.0)

    @abstractmethod
    def _act(self, obs: Any, state: Any, *, explore: bool) -> tuple[Tensor, Any]:
        """Returns actions ``[B, A]`` for observations ``[B, O]``, and the actor's state.

        :param explore: whether to add the exploration noise of training.
        """

    def _executed(self, act: Tensor) -> Tensor:
        """Clips continuous actions as the environment does, before critics see them."""
        return act if self.is_discrete else act.clamp(-1.0, 1.0)

    @property
    def _first_action(self) -> int:
        """The number that the environment gives the first discrete action."""
        space: Any = self.action_space
        return int(space.start)

    def _whole(self, act: np.ndarray) -> np.ndarray:
        """Checks that discrete actions are whole numbers.

        :raises ValueError: naming the dtype.
        """
        if act.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be whole numbers for {self.action_space}, got {act.dtype}; the actor of a "
                "discrete policy returns logits [B, A]"
            )
        return act


def _with_settings(policy: type[Any]) -> inspect.Signature:
    """Returns the constructor's signature with one keyword argument per setting, for ``help`` and editors."""
    signature = inspect.signature(policy.__init__)
    named = [x for x in signature.parameters.values() if x.kind is not inspect.Parameter.VAR_KEYWORD]
    if len(named) < len(signature.parameters):
        named += [
            inspect.Parameter(x.name, inspect.Parameter.KEYWORD_ONLY, default=x.default, annotation=x.type)
            for x in dataclasses.fields(policy.config_type)
        ]
    return signature.replace(parameters=[x for x in named if x.name != "self"])


def check_action_space(action_space: gym.Space, policy: str, *, discrete: bool = False) -> None:
    """Checks that an action space can be scaled to ``[-1, 1]``, or is an allowed ``Discrete`` one.

    :param policy: name of the policy, for the error.
    :param discrete: whether a ``Discrete`` space is allowed.
    :raises ValueError: for another space that is not a flat box of floating-point numbers, is not bounded, or
        has no width in a dimension.
    """
    if discrete and isinstance(action_space, gym.spaces.Discrete):
        return
    if not isinstance(action_space, gym.spaces.Box):
        if discrete:
            raise ValueError(f"action_space must be a Box or Discrete for {policy}, got {action_space}")
        raise ValueError(f"action_space must be continuous (a Box) for {policy}, got {action_space}")
    if not action_space.is_bounded():
        line = f"self.action_space = gymnasium.spaces.Box(-1.0, 1.0, {action_space.shape}, np.float32)"
        raise ValueError(
            f"action_space must be bounded for {policy}, got {action_space}; bound it in the environment's "
            f"constructor: {line}"
        )
    if not np.issubdtype(action_space.dtype, np.floating):
        raise ValueError(
            f"action_space must have a floating-point dtype for {policy}, got {action_space.dtype} in "
            f"{action_space}"
        )
    if len(action_space.shape) != 1 or not action_space.shape[0]:
        raise ValueError(
            f"action_space must be flat, with at least one dimension, for {policy}, got the shape "
            f"{action_space.shape} of {action_space}"
        )
    with np.errstate(over="ignore"):
        width = np.subtract(
            action_space.high, action_space.low, dtype=np.result_type(action_space.dtype, np.float32)
        )
    wrong = np.flatnonzero(~((width > 0) & np.isfinite(width)))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"action_space must have low < high, with a finite difference, in every dimension for {policy}, "
            f"got low {action_space.low[i]} and high {action_space.high[i]} in dimension {i}"
        )


def check_cost_buffer(buffer: Any) -> None:
    """Refuses buffers that store no costs.

    :raises TypeError: naming the buffer's class.
    """
    if not hasattr(buffer, "num_costs"):
        raise TypeError(
            "buffer must be a CostReplayBuffer or CostVectorReplayBuffer, "
            f"got {type(buffer).__name__}, which does not store costs"
        )


def check_whole_collect(buffer: Any) -> None:
    """Refuses buffers in which steps were overwritten since they were last emptied.

    :raises ValueError: naming the buffer's size and the size that is needed.
    """
    steps, places = buffer.episodes.steps, buffer.places
    if steps.max() > places:
        needed = int(steps.max()) * (buffer.maxsize // places)
        raise ValueError(
            f"buffer must hold every step since it was last emptied, up to {steps.max()} of an environment, "
            f"which needs a size of {needed}, got {buffer.maxsize}"
        )


def are_images(obs: Any) -> bool:
    """Tell whether observations are images, uint8 ``[B, ., ., .]``: their networks scale the pixels."""
    kind = torch.uint8 if isinstance(obs, Tensor) else np.uint8
    return getattr(obs, "dtype", None) == kind and obs.ndim == 4


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Moves values to a device, without waiting for it, and converts float64 to float32.

    :return: a view of the values if they need neither a move nor a conversion.
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
    """Sets all gradients to ``None``, as ``Optimizer.zero_grad`` does, but without that method's hooks.

    The hooks take time (``benchmarks/gradient_step.py``).
    """
    for parameter in parameters:
        parameter.grad = None


@contextmanager
def frozen(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Records no graph towards the parameters, so that a loss behind them costs no gradients of theirs."""
    moving = [x for x in parameters if x.requires_grad]
    for parameter in moving:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in moving:
            parameter.requires_grad_()


class PolyakAverage:
    """Moves the parameters of copies towards those of their sources.

    :param pairs: pairs (copy, source) of networks with parameters of the same shapes.
    """

    def __init__(self, *pairs: tuple[nn.Module, nn.Module]) -> None:
        self._copies: list[Tensor] = []
        self._sources: list[Tensor] = []
        for copy, source in pairs:
            self.add(copy, source)

    def add(self, copy: nn.Module, source: nn.Module) -> None:
        """Adds a pair of networks; later updates move this copy, too."""
        self._copies += list(copy.parameters())
        self._sources += list(source.parameters())

    @torch.no_grad()
    def update(self, tau: float) -> None:
        """Moves each parameter p of a copy to ``p + tau (q - p)``; q is the source's, tau in (0, 1]."""
        torch._foreach_lerp_(self._copies, self._sources, tau)
