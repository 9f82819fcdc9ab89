"""Meta-learners for the tasks of a family: Meta-CPO, MAML with TRPO's steps, and CPO for all tasks."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from tianshou.env import BaseVectorEnv
from tianshou.policy import BasePolicy

from fsrl_ext.data import MetaCollector
from fsrl_ext.data.sizes import ceil_div
from fsrl_ext.env.meta import TaskDescription, TaskDistribution, find_family
from fsrl_ext.errors import check_fields
from fsrl_ext.experiment.algorithms.onpolicy import ValueCriticTraining, onpolicy_networks
from fsrl_ext.experiment.registry import Algorithm, TaskDefaults
from fsrl_ext.experiment.training_config import named, train_envs
from fsrl_ext.policy import MAMLConfig, MAMLLagConfig, MetaCPOConfig, MetaCPOPolicy
from fsrl_ext.trainer import MetaTrainer
from fsrl_ext.trainer.seeds import meta_iteration_seeds


@dataclass(frozen=True, kw_only=True)
class MetaTraining(ValueCriticTraining):
    """Training on tasks of a family, which is what a run's ``task`` names."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # The environments of a meta-learner change with every task, so no actor could keep its own.
        check_fields(self, choices={"worker_type": ("process",)})

    @classmethod
    def judged_task(cls, task: str) -> str:
        """The family's task of level 0, or of its lowest level.

        :raises UnknownFamilyError: if there is no family of that name.
        """
        family = find_family(task)
        return family.id(min(family.levels))

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
    ) -> MetaCollector[TaskDescription]:
        """Collects the data of one task of the family after the other."""
        assert isinstance(policy, MetaCPOPolicy)
        policy.cores = cores
        processes = self.env_processes(cores, task)

        def make_envs(task: TaskDescription) -> BaseVectorEnv:
            own_share = self.workers == "auto"
            return train_envs(task.env_fn(**named(costs)), processes, self.num_envs, own_share=own_share)

        return MetaCollector(
            policy,
            make_envs,
            step_per_collect=self.step_per_collect,
            num_envs=self.num_envs,
            num_costs=num_costs,
            discount=discount,
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
    ) -> MetaTrainer:
        assert isinstance(policy, MetaCPOPolicy)
        tasks = TaskDistribution(task, seed=seed)
        # Epochs hold whole meta-iterations, so their number follows from their length.
        iteration = policy.config.num_tasks * (policy.config.inner_steps + 1) * collector.step_per_collect
        step_per_epoch = max(round(round(steps / selections) / iteration), 1) * iteration

        return MetaTrainer(
            policy=policy,
            train_collector=collector,
            draw_tasks=lambda count, start: tasks.draw(count, start=start),
            env_seeds=functools.partial(meta_iteration_seeds, seed),
            max_epoch=ceil_div(steps, step_per_epoch),
            step_per_epoch=step_per_epoch,
            **shared,
        )


# Networks, amount of data and critics as in the code published with Meta-CPO.
_DEFAULTS: dict[str, Any] = {
    "hidden_sizes": (24, 12),
    "critic_hidden_sizes": (128, 128),
    "critic_optimiser": "lbfgs",
    "num_envs": 6,
    "normalise_steps": 360_000,
    "steps": 3_600_000,
}
_TASKS: tuple[TaskDefaults, ...] = (("*", "*", {"step_per_collect": 3_000}),)

# Cho and Sun 2024: three tasks, three inner steps, KL bound, discount factor, lambda, no margin, and a limit
# on discounted cost. Written out, so that other defaults leave the preset as it is.
_PAPER: dict[str, Any] = {
    **_DEFAULTS,
    "cost_limit": (10.0,),
    "limit_unit": "discounted",
    "cost_margin": 0.0,
    "num_tasks": 3,
    "inner_steps": 3,
    "kl_bound": 0.01,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "cost_gae_lambda": 0.95,
}

ALGORITHMS = {
    "meta_cpo": Algorithm(
        summary="Meta-CPO (Cho and Sun, AAAI 2024): learns to adapt to the tasks of a family within their "
        "limits",
        policy=MetaCPOPolicy,
        config=MetaCPOConfig,
        training=MetaTraining,
        networks=onpolicy_networks,
        # Adapted policies cost more than the steps of the adaptation promise (docs/algorithms/meta_cpo.md).
        defaults={**_DEFAULTS, "cost_margin": 0.5},
        task_defaults=_TASKS,
        presets={"paper": _PAPER},
    ),
    "maml_lag": Algorithm(
        summary="MAML with TRPO's steps and Lagrange multipliers",
        policy=MetaCPOPolicy,
        config=MAMLLagConfig,
        training=MetaTraining,
        networks=onpolicy_networks,
        defaults=_DEFAULTS,
        task_defaults=_TASKS,
    ),
    "maml_trpo": Algorithm(
        summary="MAML with TRPO's steps (Finn et al., ICML 2017) without a constraint; logs costs",
        policy=MetaCPOPolicy,
        config=MAMLConfig,
        training=MetaTraining,
        networks=onpolicy_networks,
        constrained=False,
        constrained_as="meta_cpo",
        defaults=_DEFAULTS,
        task_defaults=_TASKS,
    ),
    "multitask_cpo": Algorithm(
        summary="CPO for all tasks of a family at once, without adaptation; fsrl-ext adapt fine-tunes it",
        policy=MetaCPOPolicy,
        config=MetaCPOConfig,
        training=MetaTraining,
        networks=onpolicy_networks,
        # It takes a step for every collect and therefore more steps, each as long as CPO's.
        defaults={**_DEFAULTS, "inner_steps": 0, "outer_kl_bound": 0.01},
        task_defaults=_TASKS,
    ),
}
