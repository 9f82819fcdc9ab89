"""Diagnoses a saved policy: what its critics, its constraint and its episodes are like, as plain numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tianshou.policy import BasePolicy

from fsrl_ext.cost_names import cost_label
from fsrl_ext.data.episodes import limited_costs
from fsrl_ext.env import make_joint
from fsrl_ext.errors import checked
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.saved.diagnosis.constraint import buffer_states, constraint_numbers
from fsrl_ext.experiment.saved.diagnosis.critic import Critic, critic_of
from fsrl_ext.experiment.saved.diagnosis.play import Episode, Player
from fsrl_ext.experiment.saved.diagnosis.signals import (
    SPREAD_STATES,
    Values,
    compare,
    critic_phases,
    level_numbers,
    order_numbers,
    phase_sums,
    played_slopes,
    replayed,
    sampled_values,
    spread_numbers,
    step_phases,
    thinned_states,
)
from fsrl_ext.experiment.saved.evaluate import evaluation_report
from fsrl_ext.experiment.saved.load import episode_seeds, load_saved, torch_threads
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.experiment.training.permission import check_import
from fsrl_ext.policy import MetaCPOPolicy
from fsrl_ext.report.diagnosis.findings import findings
from fsrl_ext.report.diagnosis.measures import largest_share
from fsrl_ext.report.diagnosis.training import training_numbers
from fsrl_ext.report.folder import Which, checkpoint_file
from fsrl_ext.report.statistics import mean_interval
from fsrl_ext.trainer import Evaluation
from fsrl_ext.trainer.progress import progress

EDGE = 0.99
"""From this absolute value on, an action in [-1, 1] counts as one at the edge of the box."""


@checked(at_least_one=("episodes",), at_least_zero=("states",), seed=("seed",), own=("checkpoint", "actions"))
def diagnose(
    run: str | os.PathLike[str],
    *,
    episodes: int = 20,
    states: int = 40,
    actions: int = 4,
    seed: int | None = None,
    checkpoint: Which = "best",
    device: str | None = None,
    allow_import: bool = False,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Plays a saved policy and measures its critics, its constraint and its episodes.

    ``docs/diagnose.md`` explains every number. A run that is still being trained may be diagnosed, too.

    :param run: a run folder, a checkpoint file, or ``zoo:NAME``.
    :param episodes: number of episodes with sampled actions, and of deterministic ones on the same seeds. A
        policy whose evaluations sample actions, too, samples in both.
    :param states: number of visited states from which several first actions are replayed; 0 for none.
    :param actions: number of these actions in each state, at least 2.
    :param seed: the seeds are ``seed, seed + 1, ...``; those of the final evaluation if not given.
    :param checkpoint: which policy of a run folder, ``"best"`` or ``"last"``.
    :param device: where the policy computes; the device it was trained on if not given.
    :param allow_import: whether the module of a saved task ``"module:id"`` may be imported, which runs its
        code.
    :param show_progress: whether to show on a terminal how far the work is.
    :return: plain numbers, lists and text, as in the file of ``fsrl-ext diagnose --json``.
    :raises CheckpointError: if there is no usable checkpoint.
    :raises ValueError: for arguments that cannot be used, naming them, and for a meta-learned or
        recurrent policy.
    """
    if actions < 2:
        raise ValueError(f"actions must be a whole number >= 2, got {actions}")
    seeds = episode_seeds(episodes, seed)
    file = checkpoint_file(run, checkpoint)
    policy, config, spec = load_saved(file, device, allow_import=allow_import)
    if isinstance(policy, MetaCPOPolicy):
        raise ValueError(
            f"diagnose needs a policy of one task, got {config.policy} in {file}, whose critic is fitted "
            "anew to the data of each task"
        )
    if getattr(policy, "is_recurrent", False):
        raise ValueError(
            f"diagnose needs a policy that acts on one observation at a time, got {config.policy} in {file}, "
            "which is recurrent"
        )
    check_import(config.env_id, file, allow_import=allow_import)
    limit = spec.max_episode_steps
    critic = critic_of(policy)
    env = make_joint(config.env_id, **config.env_arguments)
    try:
        player = Player(policy, env)
        with torch_threads(config.threads):
            played = {
                kind: [
                    player.episode(s, explore=kind == "stochastic")
                    for s in progress(seeds, f"{kind} episodes", total=len(seeds), show=show_progress)
                ]
                for kind in ("stochastic", "deterministic")
            }
            constraint = constraint_numbers(policy)
            folder = _run_folder(file)
            report: dict[str, Any] = {
                "checkpoint": str(file),
                "policy": config.policy,
                "task": config.env_id,
                "env_step": read_checkpoint(file)["counters"]["env_step"],
                "cost_names": _cost_names(config),
                "cost_limit": list(config.cost_limit),
                "limit_unit": config.policy_config.limit_unit,
                "time_limit": limit,
                "seeds": list(seeds),
                "samples_in_evaluations": getattr(policy, "samples_in_evaluations", False),
                "constraint": constraint,
                "episodes": _episode_numbers(played, config, limit),
                "actions": _action_numbers(player, played["stochastic"], seeds[0]),
                "critic": None,
                "signals": {},
                "buffer": None,
                "training": None,
                "notes": [],
            }
            if critic is None:
                report["notes"].append(
                    f"{config.policy} is no policy of this library: its critics are not read."
                )
            else:
                _add_critic(
                    report,
                    policy,
                    critic,
                    player,
                    played["stochastic" if critic.explores else "deterministic"],
                    folder,
                    states=states,
                    actions=actions,
                    show_progress=show_progress,
                )
    finally:
        env.close()
    names = report["cost_names"]
    caps = [x["multiplier_cap"] for x in constraint] or [None] * len(names)
    if folder is not None:
        report["training"] = training_numbers(folder, names, caps=caps)
    if report["training"] is None:
        report["notes"].append("There is no log of the training beside the policy.")
    report["findings"] = findings(report)
    return report


def _cost_names(config: ExperimentConfig) -> list[str]:
    """The names of the costs in a report."""
    count = len(config.cost_limit)
    return [cost_label(config.costs, count, i) for i in range(count)]


def _run_folder(file: Path) -> Path | None:
    """The run folder that a checkpoint file lies in; ``None`` for a file elsewhere."""
    return file.parent.parent if file.parent.name == "checkpoints" else None


def _episode_numbers(
    played: dict[str, list[Episode]], config: ExperimentConfig, time_limit: int
) -> dict[str, Any]:
    """Return and costs of the episodes by kind, their differences seed by seed, and their phases."""
    settings = config.policy_config
    totals: dict[str, np.ndarray] = {}
    numbers: dict[str, Any] = {}
    for kind, episodes in played.items():
        sums = np.array([x.signals.sum(0) for x in episodes])
        discounted = np.array([_discounted_costs(x, settings.discount_of_costs) for x in episodes])
        costs = limited_costs(sums[:, 1:], discounted, settings.limit_unit)
        totals[kind] = np.concatenate([sums[:, :1], costs], axis=1)
        evaluation = Evaluation(
            env_step=0,
            returns=sums[:, 0],
            costs=costs,
            cost_limit=config.cost_limit,
            limit_unit=settings.limit_unit,
            other_costs=discounted if settings.limit_unit == "episode" else sums[:, 1:],
            seeds=tuple(x.seed for x in episodes),
        )
        numbers[kind] = evaluation_report(evaluation)
        del numbers[kind]["env_step"]
        numbers[kind]["length_mean"] = float(np.mean([len(x.signals) for x in episodes]))
        numbers[kind]["terminated_share"] = float(np.mean([x.terminated for x in episodes]))
        names = ["reward", *_cost_names(config)]
        numbers[kind]["per_step"] = {
            name: step_phases(episodes, time_limit, i) for i, name in enumerate(names)
        }
    numbers["dearest_phase"] = []
    for i in range(len(config.cost_limit)):
        place, share = largest_share(phase_sums(played["stochastic"], time_limit, i + 1))
        numbers["dearest_phase"].append({"phase": place + 1, "share": share._asdict()})
    difference = totals["stochastic"] - totals["deterministic"]
    numbers["difference"] = {
        "mean": difference.mean(0).tolist(),
        "interval": [mean_interval(x.tolist()) for x in difference.T],
    }
    return numbers


def _discounted_costs(episode: Episode, discount: float) -> np.ndarray:
    """The discounted sum of each cost, ``[C]``, from the first step of an episode on."""
    return discount ** np.arange(len(episode.signals)) @ episode.signals[:, 1:]


def _action_numbers(player: Player, episodes: Sequence[Episode], seed: int) -> dict[str, Any]:
    """Spread of the sampled actions by dimension, in units of the box [-1, 1], and shares at its edge.

    Of discrete actions these are empty, and the share of each action in the episodes stands beside them.
    """
    space = player.policy.action_space
    if isinstance(space, gym.spaces.Discrete):
        counts = np.bincount(np.concatenate([x.act for x in episodes]), minlength=int(space.n))
        return {"std": [], "at_edge": [], "shares": (counts / counts.sum()).tolist()}
    obs = thinned_states(episodes, SPREAD_STATES)
    act = player.samples(obs, 16, seed=seed)
    executed = np.clip(np.concatenate([x.act for x in episodes]), -1.0, 1.0)
    return {
        "std": np.sqrt(act.var(1, ddof=1).mean(0)).tolist(),
        "at_edge": (np.abs(executed) >= EDGE).mean(0).tolist(),
    }


def _add_critic(
    report: dict[str, Any],
    policy: BasePolicy,
    critic: Critic,
    player: Player,
    episodes: Sequence[Episode],
    folder: Path | None,
    *,
    states: int,
    actions: int,
    show_progress: bool,
) -> None:
    """Adds what is known about the critic: levels, phases, spread, order, states of the buffer."""
    limit, seed = report["time_limit"], report["seeds"][0]
    compared: Values = compare(critic, episodes, limit)
    names = ["reward", *report["cost_names"]]
    report["critic"] = {
        "kind": critic.kind,
        "episodes": "stochastic" if critic.explores else "deterministic",
        "has_bonus": critic.bonus is not None,
    }
    signals = report["signals"]
    for i, name in enumerate(names):
        signals[name] = {
            "level": level_numbers(compared, critic, i),
            "phases": critic_phases(compared, limit, i),
            "spread": None,
            "played_slope": None,
            "order": None,
        }
        if i and np.isfinite(unit := _level_unit(policy)):
            level = signals[name]["level"]
            level["stands_for_episode_cost"] = level["critic_mean_of_all"] / unit
    if critic.kind == "v":
        report["notes"].append(
            f"The critic of {report['policy']} has values of states alone: spread and order of actions "
            "are left out."
        )
        return
    own = sampled_values(critic, player, thinned_states(episodes, SPREAD_STATES), seed=seed)
    for i, name in enumerate(names):
        signals[name]["spread"] = spread_numbers(own[:, :, i])
    if critic.explores:
        for name, slope in zip(names, played_slopes(critic, player, compared, seed=seed), strict=True):
            signals[name]["played_slope"] = slope
    report["buffer"] = _buffer_numbers(critic, player, own, folder, names, seed)
    if report["buffer"] is None:
        report["notes"].append("The run has no snapshot with a replay buffer (a finished run has none).")
    if not states:
        return
    finite = [i + 1 for i, x in enumerate(report["cost_limit"]) if np.isfinite(x)]
    replays = replayed(
        critic,
        player,
        compared,
        limit,
        states=states,
        actions=actions,
        chosen_by=finite[0] if finite else 1,
        seed=seed,
        show_progress=show_progress,
    )
    if replays is None:
        report["notes"].append(
            f"{report['task']} does not repeat itself after the same seed and actions: the order of actions "
            "is left out."
        )
        return
    for i, name in enumerate(names):
        signals[name]["order"] = order_numbers(replays[0][:, :, i], replays[1][:, :, i])


def _level_unit(policy: Any) -> float:
    """The discounted value that an episode cost of one, in the unit of the limits, stands for."""
    return float(policy.discounted([1.0] * policy.num_costs)[0])


def _buffer_numbers(
    critic: Critic, player: Player, own: np.ndarray, folder: Path | None, names: list[str], seed: int
) -> dict[str, Any] | None:
    """Values in states of the replay buffer against those in the policy's own states, by signal.

    :param own: values ``[n, N, S]`` in own states.
    """
    stored = None if folder is None else buffer_states(folder, 2 * SPREAD_STATES)
    if stored is None:
        return None
    obs, age = stored
    values = sampled_values(critic, player, obs, seed=seed).mean(1)
    return {
        name: {
            "own": float(own[:, :, i].mean()),
            "buffer": float(values[:, i].mean()),
            "newest_tenth": float(values[age < 0.1, i].mean()),
            "oldest_tenth": float(values[age >= 0.9, i].mean()) if (age >= 0.9).any() else float("nan"),
        }
        for i, name in enumerate(names)
    }
