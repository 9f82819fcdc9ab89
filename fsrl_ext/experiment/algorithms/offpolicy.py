"""Off-policy algorithms: CVPO, and SAC, DDPG and TD3 with or without Lagrange multipliers."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from tianshou.policy import BasePolicy
from torch import nn

from fsrl_ext.data import AheadCollector, CostCollector, CostVectorReplayBuffer
from fsrl_ext.env import env_fn
from fsrl_ext.errors import check_fields
from fsrl_ext.experiment.algorithms.actors import build_actor, build_discrete_actor
from fsrl_ext.experiment.algorithms.critics import build_q_critic
from fsrl_ext.experiment.algorithms.optimisers import adam
from fsrl_ext.experiment.algorithms.paper_presets import (
    CAL,
    CAL_PAPER,
    CVPO_PAPER,
    DDPG_PAPER,
    MULTIPLIER_PAPER,
    SAC_PAPER,
    TD3_PAPER,
)
from fsrl_ext.experiment.registry import Algorithm, TaskDefaults
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training_config import AgentTraining, named, train_envs
from fsrl_ext.net import DeterministicActor, GaussianActor
from fsrl_ext.net.actor import Covariance
from fsrl_ext.policy import (
    CVPOConfig,
    CVPOPolicy,
    DDPGConfig,
    DDPGLagConfig,
    DDPGLagPolicy,
    SACConfig,
    SACLagConfig,
    SACLagPolicy,
    TD3Config,
    TD3LagConfig,
    TD3LagPolicy,
)
from fsrl_ext.policy.base import PolicyConfig
from fsrl_ext.trainer import CostOffpolicyTrainer, seed_range
from fsrl_ext.trainer.seeds import collecting_process_seed


@dataclass(frozen=True, kw_only=True)
class OffpolicyTraining(AgentTraining):
    """Training from a replay buffer: DDPG and TD3."""

    reward_ensemble: int = 1
    """Reward critics; their minimum is used."""
    cost_ensemble: int = 1
    """Critics for each cost; see the policy's ``cost_reduction``."""
    actor_lr: float = 5e-4
    """Adam learning rate of the actor."""
    batch_size: int = 128
    """Transitions of a gradient step."""
    buffer_size: int = 200_000
    """Transitions that the replay buffer holds, shared out evenly among the training environments; at least
    the policy's estimation_step for each."""
    collect_ahead: bool = True
    """Collect while the policy learns, on two cores in another process; the policy that acts is then one
    collect old."""
    update_per_step: float = 0.4
    """Gradient steps per environment step."""
    warmup_steps: int = 0
    """Environment steps with random actions at the start, counted in the budget; a run that starts from a
    saved policy has none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            positive=("actor_lr", "update_per_step"),
            at_least_zero=("warmup_steps",),
            at_least_one=("reward_ensemble", "cost_ensemble", "batch_size", "buffer_size"),
        )
        if self.buffer_size < self.num_envs:
            raise ValueError(
                f"buffer_size must be >= {self.num_envs}, one place for each training environment, "
                f"got {self.buffer_size}"
            )

    def check_steps(self, steps: int) -> None:
        super().check_steps(steps)
        if steps <= self.warmup_steps:
            raise ValueError(
                f"steps must be more than warmup_steps={self.warmup_steps}, in which nothing is learnt, "
                f"got {steps}"
            )

    def check_policy(self, policy_config: PolicyConfig) -> None:
        # A smaller buffer would cut every n-step window short.
        num_steps, name = getattr(policy_config, "longest_window", (1, ""))
        if self.buffer_size < num_steps * self.num_envs:
            raise ValueError(
                f"buffer_size must be >= {num_steps * self.num_envs}, which is {name}={num_steps} "
                f"for each of {self.num_envs} training environments, got {self.buffer_size}"
            )
        precision = getattr(policy_config, "estep_precision", "float32")
        if self.critic is not None and precision != "float32":
            raise ValueError(
                f"estep_precision must be 'float32' with a critic of your own, got {precision!r}"
            )

    def busy_processes(self, cores: int) -> int:
        learner = 1 if self.collect_ahead and cores > 1 else 0
        return super().busy_processes(cores) + learner

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
    ) -> CostCollector | AheadCollector:
        buffer = CostVectorReplayBuffer(
            self.buffer_size, self.num_envs, num_costs=num_costs, random_seed=seed
        )
        if self.uses_ray:
            return self.ray_collector(
                policy, task, buffer, ahead=self.collect_ahead, discount=discount, seed=seed, costs=costs
            )
        processes = self.env_processes(cores, task)
        make_env = env_fn(task, **self.env_arguments, **named(costs))
        make_envs = functools.partial(train_envs, make_env, processes, self.num_envs)
        if not self.collect_ahead:
            return CostCollector(policy, make_envs(), buffer, discount=discount, replayable=True)
        return AheadCollector(
            policy,
            make_envs,
            buffer,
            seed=collecting_process_seed(seed),
            discount=discount,
            replayable=True,
            cores=cores,
        )

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
    ) -> CostOffpolicyTrainer:
        return CostOffpolicyTrainer(
            policy=policy,
            train_collector=collector,
            max_epoch=selections,
            step_per_epoch=round(steps / selections),
            step_per_collect=self.step_per_collect,
            batch_size=self.batch_size,
            update_per_step=self.update_per_step,
            action_repeat=self.action_repeat,
            # A policy that was trained before has better data to start with than random actions.
            warmup_steps=0 if warm_start else self.warmup_steps,
            train_seeds=seed_range("train", self.num_envs, run_seed=seed),
            **shared,
        )


@dataclass(frozen=True, kw_only=True)
class SACTraining(OffpolicyTraining):
    """Training from a replay buffer with a Gaussian actor: SAC."""

    initial_std: float = 0.8
    """Standard deviation of an untrained actor, in units of the normalised action box."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, positive=("initial_std",))


@dataclass(frozen=True, kw_only=True)
class CVPOTraining(SACTraining):
    """Training of CVPO, whose Gaussian may have a full covariance matrix."""

    covariance: Covariance = "diagonal"
    """The actor's Gaussian: ``diagonal`` or ``full``."""
    mean_range: float = 1.0
    """Largest size of the actor's mean, >= 1, in units of the normalised action box, to which sampled actions
    are clipped. With 1 the mean stays in the box, and about half of the actions of a policy that wants the
    edge miss it by its exploration."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, choices={"covariance": ("diagonal", "full")})
        if not 1 <= self.mean_range < math.inf:
            raise ValueError(f"mean_range must be a finite number >= 1, got {self.mean_range}")


def cvpo_networks(spec: TaskSpec, training: CVPOTraining, *, num_costs: int, device: str) -> dict[str, Any]:
    """A Gaussian actor with its mean inside the action box, critics, and their optimisers.

    For discrete actions the actor is categorical, and a critic's network has an output for each action.
    """
    if spec.num_actions is not None:
        return _actor_critic(build_discrete_actor(spec, training, "relu"), spec, training, num_costs, device)
    actor = build_actor(
        GaussianActor,
        spec,
        training,
        hidden_sizes=training.hidden_sizes,
        covariance=training.covariance,
        initial_std=training.initial_std,
        mean_range=training.mean_range,
    )
    return _actor_critic(actor, spec, training, num_costs, device)


def sac_networks(spec: TaskSpec, training: SACTraining, *, num_costs: int, device: str) -> dict[str, Any]:
    """A diagonal Gaussian actor that is squashed by the policy, critics, and their optimisers."""
    actor = build_actor(
        GaussianActor,
        spec,
        training,
        hidden_sizes=training.hidden_sizes,
        initial_std=training.initial_std,
        bounded=False,
    )
    return _actor_critic(actor, spec, training, num_costs, device)


def deterministic_networks(
    spec: TaskSpec, training: OffpolicyTraining, *, num_costs: int, device: str
) -> dict[str, Any]:
    """A deterministic actor, critics, and their optimisers."""
    actor = build_actor(DeterministicActor, spec, training, hidden_sizes=training.hidden_sizes)
    return _actor_critic(actor, spec, training, num_costs, device)


def _actor_critic(
    actor: nn.Module, spec: TaskSpec, training: OffpolicyTraining, num_costs: int, device: str
) -> dict[str, Any]:
    """The actor with fresh critics for reward and costs, and their optimisers."""
    actor = actor.to(device)
    critic = build_q_critic(spec, training, num_costs=num_costs).to(device)
    return {
        "actor": actor,
        "actor_optim": adam(actor, training.actor_lr),
        "critic": critic,
        "critic_optim": adam(critic, training.critic_lr),
    }


# Batch and updates of the baselines are FSRL's published ones, with two critics where the algorithm is about
# two.
_BASELINE: dict[str, Any] = {"batch_size": 256, "update_per_step": 0.2}
_TWIN: dict[str, Any] = {**_BASELINE, "reward_ensemble": 2, "cost_ensemble": 2}

# Without random actions first, a deterministic policy may settle before it has seen what pays and what costs.
# Smoothed over 0.2 of the action box, as in the paper, TD3's critics miss the sharper of two optima
# (docs/algorithms/td3_lag.md).
_DDPG: dict[str, Any] = {**_BASELINE, "warmup_steps": 10_000}
_TD3: dict[str, Any] = {**_TWIN, "warmup_steps": 10_000, "target_std": 0.05}

# A policy whose mean cost is at the limit exceeds it in about every other training episode. The margin makes
# such episodes rare where the published results are compared (docs/algorithms/cvpo.md).
_CVPO_TASKS: tuple[TaskDefaults, ...] = (
    ("bullet-safety-gym", "*", {"cost_margin": 0.5}),
    # Navigation: episodes of ten collects with rare, large costs (docs/notes/navigation.md)
    (
        "safety-gymnasium",
        "*[0-2]-v0",
        {
            "cost_estimation_step": 20,
            "recovery_share": 0.8,
            "cost_level_episodes": 10.0,
            "margin_rate": 0.05,
            "cost_margin": 0.2,
        },
    ),
    # Velocity: episodes of ten collects, too, with the cost spread over all steps (docs/notes/velocity.md)
    (
        "safety-gymnasium",
        "*Velocity-v1",
        {"recovery_share": 0.8, "cost_level_episodes": 10.0, "margin_rate": 0.05},
    ),
)

ALGORITHMS = {
    "cvpo": Algorithm(
        summary="Constrained Variational Policy Optimization (Liu et al., ICML 2022), off-policy",
        policy=CVPOPolicy,
        config=CVPOConfig,
        training=CVPOTraining,
        networks=cvpo_networks,
        task_defaults=_CVPO_TASKS,
        continuous_only=(
            *("initial_std", "mean_range", "covariance", "num_samples", "action_sampling", "estep_precision"),
            "kl_bound_scale",
        ),
        presets={"paper": CVPO_PAPER},
    ),
    "sac_lag": Algorithm(
        summary="Soft Actor-Critic with Lagrange multipliers, and CAL (--preset cal), off-policy",
        policy=SACLagPolicy,
        config=SACLagConfig,
        training=SACTraining,
        networks=sac_networks,
        defaults=_TWIN,
        presets={"paper": {**SAC_PAPER, **MULTIPLIER_PAPER}, "cal": CAL, "cal_paper": CAL_PAPER},
    ),
    "ddpg_lag": Algorithm(
        summary="DDPG with Lagrange multipliers, off-policy",
        policy=DDPGLagPolicy,
        config=DDPGLagConfig,
        training=OffpolicyTraining,
        networks=deterministic_networks,
        defaults=_DDPG,
        presets={"paper": {**DDPG_PAPER, **MULTIPLIER_PAPER}},
    ),
    "td3_lag": Algorithm(
        summary="TD3 with Lagrange multipliers, off-policy",
        policy=TD3LagPolicy,
        config=TD3LagConfig,
        training=OffpolicyTraining,
        networks=deterministic_networks,
        defaults=_TD3,
        presets={"paper": {**TD3_PAPER, **MULTIPLIER_PAPER}},
    ),
    "sac": Algorithm(
        summary="Soft Actor-Critic without a constraint; logs costs",
        policy=SACLagPolicy,
        config=SACConfig,
        training=SACTraining,
        networks=sac_networks,
        constrained=False,
        constrained_as="sac_lag",
        defaults=_TWIN,
        presets={"paper": SAC_PAPER},
    ),
    "ddpg": Algorithm(
        summary="DDPG without a constraint; logs costs",
        policy=DDPGLagPolicy,
        config=DDPGConfig,
        training=OffpolicyTraining,
        networks=deterministic_networks,
        constrained=False,
        constrained_as="ddpg_lag",
        defaults=_DDPG,
        presets={"paper": DDPG_PAPER},
    ),
    "td3": Algorithm(
        summary="TD3 without a constraint; logs costs",
        policy=TD3LagPolicy,
        config=TD3Config,
        training=OffpolicyTraining,
        networks=deterministic_networks,
        constrained=False,
        constrained_as="td3_lag",
        defaults=_TD3,
        presets={"paper": TD3_PAPER},
    ),
}
