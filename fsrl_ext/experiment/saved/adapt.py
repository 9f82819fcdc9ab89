"""Adapts a saved policy to a task: a meta-learned one by its inner step, an on-policy one by its update.

Dimension letters: ``K`` steps of the adaptation, ``C`` costs.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tianshou.env import BaseVectorEnv
from tianshou.policy.base import policy_within_training_step

from fsrl_ext.cost_names import LimitUnit
from fsrl_ext.data import MetaCollector
from fsrl_ext.data.randomness import private_randomness
from fsrl_ext.env.builders import EnvFn
from fsrl_ext.env.meta import TaskDescription
from fsrl_ext.errors import check_argument, checked
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.registry import algorithm
from fsrl_ext.experiment.saved.chosen_task import ChosenTask
from fsrl_ext.experiment.saved.load import episode_seeds, load_saved, torch_threads
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training.build import discounts, test_collector
from fsrl_ext.experiment.training.checkpoint import read_checkpoint, save_checkpoint
from fsrl_ext.experiment.training_config import train_envs
from fsrl_ext.functional.returns import as_cost_limits
from fsrl_ext.policy import MetaCPOPolicy
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy
from fsrl_ext.report.files import check_new_file
from fsrl_ext.report.folder import Which, checkpoint_file
from fsrl_ext.trainer import Evaluation, evaluate_policy
from fsrl_ext.trainer.progress import progress
from fsrl_ext.trainer.seeds import adaptation_seeds


@dataclass(frozen=True, kw_only=True)
class AdaptationPoint:
    """The policy after some steps of its adaptation.

    :param steps: k of 0 to K.
    :param env_step: environment steps that these k steps learnt from.
    :param collected: episodes with sampled actions that ended in the policy's own data, which the next step
        learns from (the last point's are for judging alone); ``None`` if none ended or there are no data.
    :param tested: deterministic episodes; ``None`` where none were asked for.
    """

    steps: int
    env_step: int
    collected: Evaluation | None
    tested: Evaluation | None


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """The result of :func:`adapt`.

    :param checkpoint: the file that the policy came from.
    :param task: the environment id.
    :param parameters: the drawn parameters of a family's task; empty for other tasks.
    :param cost_limit: the limit that the policy adapted to and is judged by.
    :param limit_unit: unit of the limit and of the judged costs.
    :param points: ``K + 1`` points, from before the first step to after the last.
    :param policy: the adapted policy.
    """

    checkpoint: Path
    task: str
    task_seed: int | None
    parameters: dict[str, Any]
    cost_limit: tuple[float, ...]
    limit_unit: LimitUnit
    points: tuple[AdaptationPoint, ...]
    policy: OnpolicyPolicy[Any]


@checked(own=("cost_limit", "task_seed", "checkpoint"))
def adapt(
    run: str | os.PathLike[str],
    task: str | TaskDescription,
    *,
    task_seed: int | None = None,
    steps: int = 5,
    episodes: int = 10,
    seed: int = 0,
    checkpoint: Which = "best",
    cost_limit: float | Sequence[float] | None = None,
    cost_margin: float | None = None,
    kl_bound: float | None = None,
    step_per_collect: int | None = None,
    test_at: Sequence[int] | None = None,
    collect_last: bool = True,
    device: str | None = None,
    out: str | os.PathLike[str] | None = None,
    allow_import: bool = False,
    show_progress: bool = False,
) -> Adaptation:
    """Adapts a saved policy to a task, and measures it before, between and after the steps.

    A meta-learned policy takes inner steps from its meta-parameters; an on-policy one (``cpo``, ``trpo_lag``,
    ``ppo_lag``, ``focops``, ...) is fine-tuned by its own update. Each step learns from a collect of its own.
    Neither the saved run nor the global random numbers are changed.

    :param run: a run folder, a checkpoint file, or ``zoo:NAME``.
    :param task: an environment id or a family's task, with observations and actions as in training.
    :param task_seed: draws the task of a family's id; 0 if not given.
    :param steps: K, at least 0.
    :param episodes: deterministic episodes of each test, on the seeds of final evaluations.
    :param seed: the seed of exploration and of the episodes that are learnt from.
    :param checkpoint: which policy of a run folder, ``"best"`` or ``"last"``.
    :param cost_limit: adapt to and judge by another limit than the run's, in the same unit. A policy
        without a constraint is only judged by it.
    :param cost_margin: share of the limit that the steps keep free; the run's own if not given.
    :param kl_bound: mean KL divergence that a step may reach, in nats; the run's own if not given.
    :param step_per_collect: environment steps of each collect; those of the training if not given.
    :param test_at: the numbers of steps after which to test; all if not given.
    :param collect_last: collect once more after the last step, to judge it by episodes like those before.
    :param device: where the policy computes; the device it was trained on if not given.
    :param out: a new file for the adapted policy. It acts as adapted; adapted again, a meta-learned policy
        starts from its meta-parameters.
    :param allow_import: whether the module of networks of the user's may be imported, which runs its code.
    :param show_progress: whether to show on a terminal how many steps were taken.
    :raises CheckpointError: if there is no usable checkpoint.
    :raises ValueError: for arguments that cannot be used, naming them, and for a task that does not fit.
    """
    seeds = episode_seeds(episodes)
    check_argument("steps", steps, int, "at_least_zero")
    check_argument("seed", seed, int, "seed")
    check_argument("step_per_collect", step_per_collect, int | None, "at_least_one")
    if out is not None:
        try:
            check_new_file(out)
        except ValueError as error:
            raise ValueError(f"out must be a new file: {error}") from error
    chosen = ChosenTask.of(task, task_seed)
    file = checkpoint_file(run, checkpoint)
    policy, config, trained_on = load_saved(file, device, allow_import=allow_import)
    if not isinstance(policy, OnpolicyPolicy):
        raise ValueError(f"adapt needs an on-policy or a meta-learned policy, got {config.policy} in {file}")
    changes = _changes(config.policy, cost_margin=cost_margin, kl_bound=kl_bound)
    policy.config = dataclasses.replace(policy.config, **changes)
    saved: Any = config.policy_config
    config = dataclasses.replace(config, policy_config=dataclasses.replace(saved, **changes))
    limit = config.cost_limit if cost_limit is None else as_cost_limits(cost_limit)
    chosen = chosen.with_costs_of(config)
    spec, parameters = chosen.check(trained_on, config, limit)
    policy.max_episode_steps = spec.max_episode_steps
    if algorithm(config.policy).constrained:
        policy.cost_limit = limit
    training = config.training
    settings = dataclasses.replace(
        training, step_per_collect=int(step_per_collect or training.step_per_collect)
    )
    with torch_threads(config.threads), private_randomness(seed):
        measured = progress(
            _points(
                policy,
                dataclasses.replace(config, training=settings),
                spec,
                chosen.env_fn(),
                steps=steps,
                seeds=seeds,
                seed=seed,
                limit=limit,
                test_at=range(steps + 1) if test_at is None else test_at,
                collect_last=collect_last,
            ),
            "adaptation",
            total=steps + 1,
            show=show_progress,
            unit="point",
        )
        points = tuple(measured)
    if out is not None:
        counters = read_checkpoint(file)["counters"]
        counters["env_step"] += points[-1].env_step
        save_checkpoint(Path(out), policy, config=config, spec=spec, counters=counters)
    return Adaptation(
        checkpoint=file,
        task=chosen.id,
        task_seed=chosen.task_seed,
        parameters=parameters,
        cost_limit=limit,
        limit_unit=config.policy_config.limit_unit,
        points=points,
        policy=policy,
    )


def _changes(policy: str, **settings: float | None) -> dict[str, Any]:
    """The settings that are given; ``None`` leaves a setting of the policy as it is.

    :raises ValueError: for a setting that the policy does not have.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    known = list_settings(policy)
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{policy} has no setting {name}, got {value}")
    return given


def _points(
    policy: OnpolicyPolicy[Any],
    config: ExperimentConfig,
    spec: TaskSpec,
    make_env: EnvFn,
    *,
    steps: int,
    seeds: Sequence[int],
    seed: int,
    limit: tuple[float, ...],
    test_at: Sequence[int],
    collect_last: bool,
) -> Iterator[AdaptationPoint]:
    """Measures the policy, lets it take a step, and so on; yields what was measured after each step."""
    training, unit = config.training, config.policy_config.limit_unit

    def make_envs(make: EnvFn) -> BaseVectorEnv:
        return train_envs(make, training.env_processes(1, config.task), config.num_envs)

    collector = MetaCollector(
        policy,
        make_envs,
        step_per_collect=training.step_per_collect,
        num_envs=config.num_envs,
        num_costs=len(limit),
        discount=discounts(config),
    )
    tests = test_collector(policy, config, spec, episodes=len(seeds), make_env=make_env)
    if isinstance(policy, MetaCPOPolicy):
        policy.begin_task()
    try:
        collector.start(make_env, adaptation_seeds(seed, config.num_envs))
        for k in range(steps + 1):
            collected = tested = None
            env_step = k * collector.step_per_collect
            if k < steps or collect_last:
                with policy_within_training_step(policy):
                    stats = collector.collect()
                if stats.n_collected_episodes:
                    collected = Evaluation.of_collect(
                        stats, env_step=env_step, cost_limit=limit, limit_unit=unit
                    )
            if k in test_at:
                tested = evaluate_policy(tests, seeds, cost_limit=limit, limit_unit=unit, env_step=env_step)
            yield AdaptationPoint(steps=k, env_step=env_step, collected=collected, tested=tested)
            if k < steps:
                with policy_within_training_step(policy):
                    policy.update(0, collector.buffer, **training.update_arguments())
    finally:
        collector.close()
        tests.close()
