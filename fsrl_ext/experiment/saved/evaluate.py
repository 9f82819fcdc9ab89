"""Judges saved policies again, on any number of episodes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fsrl_ext.cost_names import LimitUnit, cost_label, cost_word, other_cost_word
from fsrl_ext.data import CostCollector
from fsrl_ext.env import env_fn
from fsrl_ext.env.agents import TeamEpisode
from fsrl_ext.env.meta import TaskDescription
from fsrl_ext.errors import CostCountError, checked
from fsrl_ext.experiment.saved.chosen_task import other_task
from fsrl_ext.experiment.saved.load import episode_seeds, load_saved, torch_threads
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training.build import test_collector, test_envs
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.experiment.training.permission import check_import
from fsrl_ext.functional.returns import as_cost_limits
from fsrl_ext.report import text_table
from fsrl_ext.report.folder import Which, checkpoint_file
from fsrl_ext.report.statistics import (
    cost_interval,
    interval_note,
    mean_interval,
    share_interval,
    share_text,
)
from fsrl_ext.trainer import Evaluation, evaluate_policy


@checked(at_least_one=("episodes",), seed=("seed",), own=("cost_limit", "task_seed", "checkpoint"))
def evaluate(
    run: str | os.PathLike[str],
    *,
    task: str | TaskDescription | None = None,
    task_seed: int | None = None,
    episodes: int = 50,
    seed: int | None = None,
    stochastic: bool = False,
    checkpoint: Which = "best",
    cost_limit: float | Sequence[float] | None = None,
    device: str | None = None,
    allow_import: bool = False,
    show_progress: bool = False,
) -> Evaluation:
    """Plays a saved policy on its task, or on another one that it fits.

    With the final seeds and as many episodes as the run's own final evaluation, the numbers are those of
    ``result.json``, to the last bit on the same machine.

    :param run: a run folder, a checkpoint file, or ``zoo:NAME``.
    :param task: an environment id or a family's task; the one of the training if not given.
    :param task_seed: draws the task of a family's id; 0 if not given.
    :param episodes: the number of episodes, one for each seed.
    :param seed: the seeds are ``seed, seed + 1, ...``; those of the final evaluation if not given.
    :param stochastic: sample actions instead of taking the deterministic ones.
    :param checkpoint: which policy of a run folder, ``"best"`` or ``"last"``.
    :param cost_limit: judge by another limit on the cost of an episode than the run's, in the same unit, one
        number per cost.
    :param device: where the policy computes; the device it was trained on if not given.
    :param allow_import: whether the module of a saved task ``"module:id"`` may be imported, which runs its
        code. The module of a ``task`` that is given here needs no permission.
    :param show_progress: whether to show on a terminal how many episodes were played.
    :return: returns ``[episodes]`` and costs ``[episodes, C]`` in the order of their ``seeds``, judged by the
        limit; of a task with several agents a :class:`TeamEvaluation`.
    :raises CheckpointError: if there is no usable checkpoint.
    :raises ValueError: for arguments that cannot be used, naming them, and for a task that does not fit.
    """
    seeds = episode_seeds(episodes, seed)
    with saved_player(
        run,
        task=task,
        task_seed=task_seed,
        episodes=episodes,
        checkpoint=checkpoint,
        cost_limit=cost_limit,
        device=device,
        allow_import=allow_import,
    ) as player:
        played: list[TeamEpisode] = []
        team, envs = player.spec.team, player.collector.env
        evaluation = evaluate_policy(
            player.collector,
            seeds,
            cost_limit=player.cost_limit,
            limit_unit=player.limit_unit,
            env_step=player.env_step,
            stochastic=stochastic,
            show_progress=show_progress,
            on_group_end=None if team is None else lambda: played.extend(envs.get_env_attr("last_episode")),
        )
        evaluation = dataclasses.replace(evaluation, cost_names=player.cost_names)
    return evaluation if team is None else TeamEvaluation.of(evaluation, team.names, played)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeamEvaluation(Evaluation):
    """Episodes of a team of ``N`` agents; ``returns`` and ``costs`` are the team's.

    :param agents: names ``[N]``.
    :param agent_returns: ``[E, N]`` sums of the agents' own rewards.
    :param agent_costs: ``[E, N]`` sums of the agents' own costs.
    :param agent_lens: ``[E, N]`` steps that the agents took.
    """

    agents: tuple[str, ...]
    agent_returns: np.ndarray
    agent_costs: np.ndarray
    agent_lens: np.ndarray

    @classmethod
    def of(
        cls, evaluation: Evaluation, agents: tuple[str, ...], episodes: Sequence[TeamEpisode]
    ) -> TeamEvaluation:
        """The evaluation with what the agents did in its episodes."""
        return cls(
            **vars(evaluation),
            agents=agents,
            agent_returns=np.array([x.returns for x in episodes]),
            agent_costs=np.array([x.costs for x in episodes]),
            agent_lens=np.array([x.lens for x in episodes]),
        )


class SavedPlayer(NamedTuple):
    """A saved policy with environments to play in."""

    collector: CostCollector
    cost_limit: tuple[float, ...]
    """What its episodes are judged by, one number per cost."""
    limit_unit: LimitUnit
    """Unit of these limits."""
    cost_discount: float
    """Discount factor of the costs."""
    spec: TaskSpec
    """Shapes and time limit of the task that is played."""
    episode_steps: int
    """Environment steps of the longest episode, rounded up to whole decisions."""
    env_step: int
    """Environment steps of the policy's training."""
    cost_names: tuple[str, ...] | None
    """Names of the costs; ``None`` for costs without names."""


@contextlib.contextmanager
def saved_player(
    run: str | os.PathLike[str],
    *,
    task: str | TaskDescription | None,
    task_seed: int | None,
    episodes: int | None,
    checkpoint: Which,
    cost_limit: float | Sequence[float] | None,
    device: str | None,
    allow_import: bool,
) -> Iterator[SavedPlayer]:
    """Loads a policy and makes its environments for a block, with as many threads as in training.

    Parameters and errors are those of :func:`evaluate`.

    :param episodes: a number that the number of environments divides; ``None`` for the run's own groups.
    """
    chosen = other_task(task, task_seed)
    limit = None if cost_limit is None else as_cost_limits(cost_limit)
    file = checkpoint_file(run, checkpoint)
    policy, config, spec = load_saved(file, device, allow_import=allow_import)
    if limit is not None and len(limit) != len(config.cost_limit):
        which = f" ({', '.join(config.costs)})" if config.costs else ""
        raise CostCountError(
            f"cost_limit must have one number per cost: {config.task} has {len(config.cost_limit)}{which}, "
            f"got {len(limit)}"
        )
    if chosen is None:
        check_import(config.env_id, file, allow_import=allow_import)
        make_env = env_fn(config.env_id, **config.env_arguments)
    else:
        chosen = chosen.with_costs_of(config)
        spec, _ = chosen.check(spec, config, limit or config.cost_limit)
        make_env = chosen.env_fn(**config.training.env_arguments)
    group = test_envs(config, episodes or config.selection_episodes)
    collector = test_collector(policy, config, spec, episodes=group, make_env=make_env)
    try:
        with torch_threads(config.threads):
            env_step = read_checkpoint(file)["counters"]["env_step"]
            settings = config.policy_config
            yield SavedPlayer(
                collector=collector,
                cost_limit=limit or config.cost_limit,
                limit_unit=settings.limit_unit,
                cost_discount=settings.discount_of_costs,
                spec=spec,
                episode_steps=spec.max_episode_steps * config.training.action_repeat,
                env_step=env_step,
                cost_names=config.costs,
            )
    finally:
        collector.close()


def evaluation_report(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as plain numbers: its summary, 95% intervals over episodes, every episode.

    Episodes count as independent: the intervals are about further episodes of this policy, not about further
    training runs. The interval of a mean is ``None`` for one episode. Lists called ``cost_...`` or
    ``..._per_cost...`` have one entry for each cost, and ``cost_names`` is there if the costs have
    names. ``seeds``, ``returns`` and ``costs`` have one entry for each episode, in the same order; ``seeds``
    is ``None`` for training data. Costs are in the unit of the limits, ``limit_unit``; entries that begin
    with ``other_`` are in the other unit, and are missing where costs were counted in one unit alone. With
    several agents ``agents`` has their ``names``, and by episode each agent's ``returns``, ``costs`` and
    ``lens``.
    """
    others: dict[str, Any] = {}
    if evaluation.other_costs is not None:
        others["other_costs"] = evaluation.other_costs.tolist()
        others["other_cost_interval"] = [cost_interval(c.tolist()) for c in evaluation.other_costs.T]
    agents: dict[str, Any] = {}
    if isinstance(evaluation, TeamEvaluation):
        agents["agents"] = {
            "names": list(evaluation.agents),
            "returns": evaluation.agent_returns.tolist(),
            "costs": evaluation.agent_costs.tolist(),
            "lens": evaluation.agent_lens.tolist(),
        }
    per_cost = [
        dataclasses.replace(
            evaluation, costs=c[:, None], cost_limit=(limit,), cost_names=None, other_costs=None
        )
        for c, limit in zip(evaluation.costs.T, evaluation.cost_limit, strict=True)
    ]
    return {
        **evaluation.summary(),
        **({} if evaluation.cost_names is None else {"cost_names": list(evaluation.cost_names)}),
        "cost_limit": list(evaluation.cost_limit),
        "limit_unit": evaluation.limit_unit,
        "intervals": interval_note("episodes"),
        "return_interval": mean_interval(evaluation.returns.tolist()),
        "cost_interval": [cost_interval(c.tolist()) for c in evaluation.costs.T],
        "share_above_limit_interval": _share_interval(evaluation),
        "feasible_per_cost": [one.feasible for one in per_cost],
        "share_above_limit_per_cost": [one.share_above_limit for one in per_cost],
        "share_above_limit_per_cost_interval": [_share_interval(one) for one in per_cost],
        "seeds": None if evaluation.seeds is None else list(evaluation.seeds),
        "returns": evaluation.returns.tolist(),
        "costs": evaluation.costs.tolist(),
        **others,
        **agents,
    }


def _share_interval(evaluation: Evaluation) -> tuple[float, float]:
    """The interval of the share of the episodes above the limit."""
    total = len(evaluation.returns)
    return share_interval(round(evaluation.share_above_limit * total), total)


def _cells(mean: float, interval: Sequence[float] | None) -> list[str]:
    """A mean and its interval, as text."""
    return [f"{mean:.2f}", "-" if interval is None else f"[{interval[0]:.2f}, {interval[1]:.2f}]"]


def agents_table(evaluation: TeamEvaluation) -> str:
    """A table with a row for each agent: its own return and cost, and the steps that it took."""
    columns = (evaluation.agent_returns, evaluation.agent_costs, evaluation.agent_lens)
    rows = []
    for i, name in enumerate(evaluation.agents):
        returns, costs, lens = (x[:, i].astype(float).tolist() for x in columns)
        rows.append(
            [
                name,
                *_cells(float(np.mean(returns)), mean_interval(returns)),
                *_cells(float(np.mean(costs)), cost_interval(costs)),
                f"{np.mean(lens):.1f}",
            ]
        )
    return text_table(["agent", "return", "95% interval", "cost", "95% interval", "steps"], rows)


def evaluation_table(evaluation: Evaluation) -> str:
    """The report as a table: a row for the return, each cost in both units, and all costs together."""
    report = evaluation_report(evaluation)
    names = evaluation.cost_names
    if isinstance(evaluation, TeamEvaluation) and len(evaluation.cost_limit) > 1:  # one cost for each agent
        names = tuple(f"of {agent}" for agent in evaluation.agents)

    def verdict(
        share: float, interval: Sequence[float], feasible: bool, limits: Sequence[float]
    ) -> list[str]:
        if not any(math.isfinite(limit) for limit in limits):
            return ["-", "-"]
        return [share_text(share, interval), "yes" if feasible else "no"]

    rows = [["return", *_cells(report["return_mean"], report["return_interval"]), "", "", ""]]
    for i, limit in enumerate(evaluation.cost_limit):
        rows.append(
            [
                cost_label(names, len(evaluation.cost_limit), i, cost_word(evaluation.limit_unit)),
                *_cells(report["cost_mean"][i], report["cost_interval"][i]),
                f"{limit:g}",
                *verdict(
                    report["share_above_limit_per_cost"][i],
                    report["share_above_limit_per_cost_interval"][i],
                    report["feasible_per_cost"][i],
                    [limit],
                ),
            ]
        )
    for i, mean in enumerate(report.get("other_cost_mean", ())):
        label = cost_label(names, len(evaluation.cost_limit), i, other_cost_word(evaluation.limit_unit))
        rows.append([label, *_cells(mean, report["other_cost_interval"][i]), "", "", ""])
    overall = verdict(
        report["share_above_limit"],
        report["share_above_limit_interval"],
        report["feasible"],
        evaluation.cost_limit,
    )
    rows.append(["overall", "", "", "", *overall])
    return text_table(["", "mean", "95% interval", "limit", "episodes above [95%]", "feasible"], rows)
