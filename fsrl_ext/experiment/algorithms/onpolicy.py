"""On-policy algorithms: CPO and FOCOPS, and TRPO and PPO with or without Lagrange multipliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from tianshou.policy import BasePolicy

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer, RayCollector
from fsrl_ext.data.sizes import ceil_div, round_up
from fsrl_ext.env import env_fn
from fsrl_ext.errors import check_fields
from fsrl_ext.experiment.algorithms.actors import build_actor, build_discrete_actor
from fsrl_ext.experiment.algorithms.critics import build_value_critic
from fsrl_ext.experiment.algorithms.optimisers import adam
from fsrl_ext.experiment.registry import Algorithm, TaskDefaults
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training_config import (
    OWN_NETWORKS,
    AgentTraining,
    TrainingConfig,
    has_simulator,
    named,
    train_envs,
)
from fsrl_ext.net import OnpolicyActor
from fsrl_ext.policy import (
    CPOConfig,
    CPOPolicy,
    FOCOPSConfig,
    FOCOPSPolicy,
    PPOConfig,
    PPOLagConfig,
    PPOLagPolicy,
    TRPOConfig,
    TRPOLagConfig,
    TRPOLagPolicy,
)
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy
from fsrl_ext.trainer import CostOnpolicyTrainer, seed_range

LBFGS_ITERATIONS = 25
"""Iterations of one step of the critic's L-BFGS."""


@dataclass(frozen=True, kw_only=True)
class ValueCriticTraining(TrainingConfig):
    """Settings of a Gaussian actor beside critics of states, which on-policy and meta-learning share."""

    initial_std: float = 0.6
    """Standard deviation of an untrained actor, in units of the normalised action box."""
    critic_optimiser: Literal["adam", "lbfgs"] = "adam"
    """Optimiser of the critic: Adam on minibatches, or 25 iterations of L-BFGS on all data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, positive=("initial_std",), choices={"critic_optimiser": ("adam", "lbfgs")})

    def env_processes(self, cores: int, task: str) -> int:
        # Nothing is learnt while data are collected, so every core can step environments.
        if self.workers == "auto" and cores > 1 and has_simulator(self.judged_task(task)):
            return min(cores, self.num_envs) - 1
        return super().env_processes(cores, task)


@dataclass(frozen=True, kw_only=True)
class OnpolicyTraining(ValueCriticTraining, AgentTraining):
    """Training on one collect after the other, each used once: CPO and TRPO, whose actor has no optimiser."""

    can_be_recurrent = True

    gru_size: int = 64
    """Width of the hidden state of the recurrent units, with network gru."""
    bptt_steps: int = 32
    """Steps of an episode that gradients go back through time in an update, at most, with network gru."""
    batch_size: int = 256
    """Transitions of a minibatch."""
    repeat_per_collect: int = 10
    """Passes over the data of a collect."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("batch_size", "repeat_per_collect", "gru_size", "bptt_steps")
        check_fields(self, at_least_one=counts)
        if self.network == "gru":
            for name in OWN_NETWORKS:
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} must be none with network='gru', got {getattr(self, name)!r}")
            return
        for name, unused in (("gru_size", 64), ("bptt_steps", 32)):
            if getattr(self, name) != unused:
                raise ValueError(
                    f"{name} must be {unused} with network={self.network!r}, which does not use it, "
                    f"got {getattr(self, name)}"
                )

    @property
    def _collect(self) -> int:
        """Environment steps of a collect, in whole vector steps."""
        return round_up(self.step_per_collect, self.num_envs * self.action_repeat)

    def collector(
        self,
        policy: BasePolicy,
        task: str,
        *,
        num_costs: int,
        discount: float | tuple[float, ...],
        seed: int,
        cores: int,
        costs: tuple[str, ...] | None = None,
    ) -> CostCollector | RayCollector:
        assert isinstance(policy, OnpolicyPolicy)
        policy.cores = cores
        # The buffer holds one collect, in whole vector steps.
        buffer = CostVectorReplayBuffer(
            self._collect // self.action_repeat,
            self.num_envs,
            num_costs=num_costs,
            random_seed=seed,
        )
        if self.uses_ray:
            return self.ray_collector(
                policy, task, buffer, ahead=False, discount=discount, seed=seed, costs=costs
            )
        envs = train_envs(
            env_fn(task, **self.env_arguments, **named(costs)),
            self.env_processes(cores, task),
            self.num_envs,
            own_share=self.workers == "auto",
        )
        return CostCollector(policy, envs, buffer, discount=discount, replayable=True)

    def trainer(
        self,
        policy: BasePolicy,
        collector: Any,
        *,
        task: str,
        seed: int,
        steps: int,
        selections: int,
        warm_start: bool,
        **shared: Any,
    ) -> CostOnpolicyTrainer:
        # Epochs hold whole collects, so their number follows from their length.
        step_per_epoch = max(round(round(steps / selections) / self._collect), 1) * self._collect
        return CostOnpolicyTrainer(
            policy=policy,
            train_collector=collector,
            max_epoch=ceil_div(steps, step_per_epoch),
            step_per_epoch=step_per_epoch,
            step_per_collect=self.step_per_collect,
            batch_size=self.batch_size,
            repeat_per_collect=self.repeat_per_collect,
            action_repeat=self.action_repeat,
            train_seeds=seed_range("train", self.num_envs, run_seed=seed),
            **shared,
        )

    def update_arguments(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "repeat": self.repeat_per_collect}


@dataclass(frozen=True, kw_only=True)
class PPOTraining(OnpolicyTraining):
    """Training of PPO and FOCOPS, whose actor has an optimiser."""

    actor_lr: float = 5e-4
    """Adam learning rate of the actor."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, positive=("actor_lr",))


def onpolicy_networks(
    spec: TaskSpec, training: ValueCriticTraining, *, num_costs: int, device: str
) -> dict[str, Any]:
    """An actor, the critic of reward and costs, and the critic's optimiser.

    The actor is Gaussian, or categorical for discrete actions.
    """
    if spec.num_actions is not None:
        actor = build_discrete_actor(spec, training, "tanh")
    else:
        actor = build_actor(
            OnpolicyActor,
            spec,
            training,
            hidden_sizes=training.hidden_sizes,
            initial_std=training.initial_std,
        )
    critic = build_value_critic(spec, training, num_costs=num_costs).to(device)
    critic_optim: torch.optim.Optimizer = adam(critic, training.critic_lr)
    if training.critic_optimiser == "lbfgs":
        critic_optim = torch.optim.LBFGS(
            critic.parameters(), max_iter=LBFGS_ITERATIONS, line_search_fn="strong_wolfe"
        )
    return {
        "actor": actor.to(device),
        "critic": critic,
        "critic_optim": critic_optim,
        "obs_dim": spec.obs_dim,
    }


def ppo_networks(spec: TaskSpec, training: PPOTraining, *, num_costs: int, device: str) -> dict[str, Any]:
    """The same with an optimiser of the actor."""
    networks = onpolicy_networks(spec, training, num_costs=num_costs, device=device)
    return {**networks, "actor_optim": adam(networks["actor"], training.actor_lr)}


_DEFAULTS: dict[str, Any] = {"hidden_sizes": (64, 64)}

# Whole episodes of the training environments, so that their ends and those of the collects fall together.
_TASKS: tuple[TaskDefaults, ...] = (
    ("*", "*", {"step_per_collect": 6_000}),
    ("safety-gymnasium", "*", {"step_per_collect": 20_000}),
    ("safety-gymnasium-agents", "*", {"step_per_collect": 20_000}),
)

# Without the margin CPO settles above the limit there; without the bonus its standard deviation shrinks
# before it has learnt the way round the circle (docs/algorithms/cpo.md).
_CPO_TASKS: tuple[TaskDefaults, ...] = (
    *_TASKS,
    ("bullet-safety-gym", "*", {"cost_margin": 0.2, "entropy_weight": 0.01}),
    ("bullet-safety-gym", "SafetyCarCircle-v0", {"entropy_weight": 0.02}),
)

_CONTINUOUS_ONLY = ("initial_std",)

ALGORITHMS = {
    "cpo": Algorithm(
        summary="Constrained Policy Optimization (Achiam et al., ICML 2017), on-policy",
        policy=CPOPolicy,
        config=CPOConfig,
        training=OnpolicyTraining,
        networks=onpolicy_networks,
        defaults=_DEFAULTS,
        task_defaults=_CPO_TASKS,
        continuous_only=_CONTINUOUS_ONLY,
    ),
    "trpo_lag": Algorithm(
        summary="TRPO with Lagrange multipliers, on-policy",
        policy=TRPOLagPolicy,
        config=TRPOLagConfig,
        training=OnpolicyTraining,
        networks=onpolicy_networks,
        defaults=_DEFAULTS,
        task_defaults=_TASKS,
        continuous_only=_CONTINUOUS_ONLY,
    ),
    "ppo_lag": Algorithm(
        summary="PPO with Lagrange multipliers, on-policy",
        policy=PPOLagPolicy,
        config=PPOLagConfig,
        training=PPOTraining,
        networks=ppo_networks,
        defaults=_DEFAULTS,
        task_defaults=_TASKS,
        continuous_only=_CONTINUOUS_ONLY,
    ),
    "focops": Algorithm(
        summary="First Order Constrained Optimization in Policy Space (Zhang et al., NeurIPS 2020), "
        "on-policy",
        policy=FOCOPSPolicy,
        config=FOCOPSConfig,
        training=PPOTraining,
        networks=ppo_networks,
        # Its masked loss takes more and smaller steps to come as far as the bound allows.
        defaults={**_DEFAULTS, "batch_size": 64},
        task_defaults=_TASKS,
        continuous_only=_CONTINUOUS_ONLY,
    ),
    "trpo": Algorithm(
        summary="TRPO without a constraint; logs costs",
        policy=TRPOLagPolicy,
        config=TRPOConfig,
        training=OnpolicyTraining,
        networks=onpolicy_networks,
        constrained=False,
        constrained_as="trpo_lag",
        defaults=_DEFAULTS,
        task_defaults=_TASKS,
        continuous_only=_CONTINUOUS_ONLY,
    ),
    "ppo": Algorithm(
        summary="PPO without a constraint; logs costs",
        policy=PPOLagPolicy,
        config=PPOConfig,
        training=PPOTraining,
        networks=ppo_networks,
        constrained=False,
        constrained_as="ppo_lag",
        defaults=_DEFAULTS,
        task_defaults=_TASKS,
        continuous_only=_CONTINUOUS_ONLY,
    ),
}
