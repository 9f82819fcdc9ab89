"""Certifies that a saved policy keeps its cost limits, or that it does not, by episodes as it needs them."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fsrl_ext.cost_names import cost_label, cost_word
from fsrl_ext.data.stats import any_cost_above
from fsrl_ext.env.meta import TaskDescription
from fsrl_ext.errors import checked
from fsrl_ext.experiment.saved.evaluate import SavedPlayer, evaluation_report, saved_player
from fsrl_ext.experiment.saved.load import episode_seeds
from fsrl_ext.functional.returns import discounted_steps
from fsrl_ext.report import text_table
from fsrl_ext.report.betting import anytime_bounds, log_capital_above, log_capital_below
from fsrl_ext.report.folder import Which
from fsrl_ext.trainer import Evaluation, evaluate_policy
from fsrl_ext.trainer.progress import progress

Verdict = Literal["within", "above", "undecided"]
MAX_EPISODES = 2000
"""Episodes until a certification gives up, if the caller names no number."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What episodes of one policy prove about its mean episode costs, and about the share above the limits.

    :param evaluation: the episodes that were played.
    :param confidence: each verdict and each bound is right with at least this probability.
    :param cost_bound: the largest cost that an episode can have, which the proof rests on, one per cost.
    :param verdict: ``"within"``: the mean of every cost is at most its limit; ``"above"``: that of some cost
        exceeds its limit; ``"undecided"`` otherwise.
    :param cost_bounds: ``[C]`` lower and upper bound of each mean, valid at the moment of stopping.
    :param share_bounds: the same of the share of episodes in which any cost exceeds its limit.
    :param share_limit: the share that is tolerated; ``None`` if nobody asked.
    :param share_verdict: the verdict on the share; ``None`` if nobody asked.
    """

    evaluation: Evaluation
    confidence: float
    cost_bound: tuple[float, ...]
    verdict: Verdict
    cost_bounds: tuple[tuple[float, float], ...]
    share_bounds: tuple[float, float]
    share_limit: float | None
    share_verdict: Verdict | None


@checked(
    open_unit_interval=("confidence", "share_limit"),
    at_least_one=("max_episodes",),
    seed=("seed",),
    own=("cost_limit", "cost_bound", "task_seed", "checkpoint"),
)
def certify(
    run: str | os.PathLike[str],
    *,
    confidence: float = 0.95,
    share_limit: float | None = None,
    cost_bound: float | Sequence[float] | None = None,
    max_episodes: int = MAX_EPISODES,
    task: str | TaskDescription | None = None,
    task_seed: int | None = None,
    seed: int | None = None,
    stochastic: bool = False,
    checkpoint: Which = "best",
    cost_limit: float | Sequence[float] | None = None,
    device: str | None = None,
    allow_import: bool = False,
    show_progress: bool = False,
) -> Certificate:
    """Plays episodes until they decide whether the mean episode cost is within the limit.

    The verdict holds although it is looked for after every group of episodes
    (:mod:`fsrl_ext.report.betting`): if the mean is above the limit, the probability of the verdict
    ``"within"`` is at most ``1 - confidence``, and if it is within, so is that of ``"above"``. The verdict is
    about further episodes of this policy in this environment, and about the means over them.

    :param share_limit: decide, too, whether the share of episodes above the limit is at most this.
    :param cost_bound: the largest cost that an episode can have, in the unit of the limits, one number or one
        per cost. A proof needs one, because no number of episodes excludes a rare one of any cost. If it is
        not given, it is the cost of an episode with a cost of one in each step of the time limit.
    :param max_episodes: episodes after which an open question stays undecided.

    The other parameters are those of :func:`~fsrl_ext.experiment.evaluate`.

    :raises CheckpointError: if there is no usable checkpoint.
    :raises ValueError: for arguments that cannot be used, naming them; if no limit is finite and positive, or
        an episode costs less than 0 or more than ``cost_bound``.
    """
    with saved_player(
        run,
        task=task,
        task_seed=task_seed,
        episodes=None,
        checkpoint=checkpoint,
        cost_limit=cost_limit,
        device=device,
        allow_import=allow_import,
    ) as player:
        bounds = _bounds(cost_bound, player)
        groups = _groups(max_episodes, player.collector.env_num, seed)
        evaluation: Evaluation | None = None
        for seeds in progress(groups, "certify", total=len(groups), show=show_progress, unit="group"):
            newest = evaluate_policy(
                player.collector,
                seeds,
                cost_limit=player.cost_limit,
                limit_unit=player.limit_unit,
                env_step=player.env_step,
                stochastic=stochastic,
            )
            _check_bounds(newest, bounds)
            newest = dataclasses.replace(newest, cost_names=player.cost_names)
            evaluation = newest if evaluation is None else evaluation.followed_by(newest)
            verdict = _verdict_on_costs(evaluation, bounds, confidence)
            on_share = None
            if share_limit is not None:
                on_share = _verdict(_above(evaluation), share_limit, 1.0 - confidence)
            if "undecided" not in (verdict, on_share):
                break
    assert evaluation is not None  # there is at least one group
    ends = [anytime_bounds(x, confidence) for x in (evaluation.costs / np.asarray(bounds)).T]
    return Certificate(
        evaluation=evaluation,
        confidence=confidence,
        cost_bound=bounds,
        verdict=verdict,
        cost_bounds=tuple((b * low, b * high) for b, (low, high) in zip(bounds, ends, strict=True)),
        share_bounds=anytime_bounds(_above(evaluation), confidence),
        share_limit=share_limit,
        share_verdict=on_share,
    )


def _bounds(cost_bound: float | Sequence[float] | None, player: SavedPlayer) -> tuple[float, ...]:
    """The largest cost of an episode, one per cost.

    :raises ValueError: if there is not one per cost, or if there is nothing to certify.
    """
    limits, steps = player.cost_limit, float(player.episode_steps)
    if not any(math.isfinite(limit) for limit in limits):
        raise ValueError("cost_limit must be finite for at least one cost, or there is nothing to certify")
    most = steps
    if player.limit_unit == "discounted":
        most = discounted_steps(steps, player.cost_discount) * (1.0 + 1e-9)  # sums of costs are rounded
    given = most if cost_bound is None else cost_bound
    bounds = tuple(float(x) for x in np.atleast_1d(np.asarray(given, dtype=float)))
    if len(bounds) == 1:
        bounds *= len(limits)
    if len(bounds) != len(limits) or not all(0 < bound < math.inf for bound in bounds):
        raise ValueError(
            f"cost_bound must be one finite number > 0, or {len(limits)}, one per cost, got {cost_bound}"
        )
    return bounds


def _groups(max_episodes: int, size: int, seed: int | None) -> list[list[int]]:
    """The seeds of the episodes, in groups that are played side by side.

    :raises ValueError: if there is no whole group.
    """
    if max_episodes < size:
        raise ValueError(f"max_episodes must be >= {size}, which are played side by side, got {max_episodes}")
    seeds = list(episode_seeds(max_episodes - max_episodes % size, seed))
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


def _check_bounds(evaluation: Evaluation, bounds: tuple[float, ...]) -> None:
    """:raises ValueError: if an episode's cost is not between 0 and its bound."""
    outside = (evaluation.costs < 0) | (evaluation.costs > np.asarray(bounds))
    if outside.any():
        episode, cost = (int(i) for i in np.argwhere(outside)[0])
        raise ValueError(
            f"cost_bound must be a bound of every episode's cost, which is never negative: an episode cost "
            f"{evaluation.costs[episode, cost]:g}, cost_bound is {bounds[cost]:g}"
        )


def _above(evaluation: Evaluation) -> np.ndarray:
    """``[E]`` 1 for each episode in which any cost exceeds its limit, and 0 for the others."""
    return any_cost_above(evaluation.costs, evaluation.cost_limit).astype(float)


def _verdict_on_costs(evaluation: Evaluation, bounds: tuple[float, ...], confidence: float) -> Verdict:
    """The verdict on all costs together.

    "Above" is wrong only if it is wrong for one of the costs, so these share the probability of an error.
    "Within" is wrong only if the cost whose mean is above its limit was proved to be within.
    """
    alpha = 1.0 - confidence
    constrained = [i for i, limit in enumerate(evaluation.cost_limit) if math.isfinite(limit)]
    scaled = [(evaluation.costs[:, i] / bounds[i], evaluation.cost_limit[i] / bounds[i]) for i in constrained]
    if any(_verdict(values, limit, alpha / len(scaled)) == "above" for values, limit in scaled):
        return "above"
    if all(_verdict(values, limit, alpha) == "within" for values, limit in scaled):
        return "within"
    return "undecided"


def _verdict(values: np.ndarray, limit: float, alpha: float) -> Verdict:
    """Whether the mean of values in [0, 1] is within a limit, with a probability ``alpha`` of each error."""
    if limit >= 1.0:
        return "within"
    if limit == 0.0:  # a mean of zero is never proved, and refuted by the first larger value
        return "above" if values.any() else "undecided"
    if log_capital_above(values, limit) >= -math.log(alpha):
        return "above"
    return "within" if log_capital_below(values, limit) >= -math.log(alpha) else "undecided"


def certificate_report(certificate: Certificate) -> dict[str, Any]:
    """The certificate as plain numbers, with what :func:`evaluation_report` says of its episodes."""
    return {
        "verdict": certificate.verdict,
        "confidence": certificate.confidence,
        "cost_bound": list(certificate.cost_bound),
        "anytime_cost_bounds": [list(pair) for pair in certificate.cost_bounds],
        "anytime_share_bounds": list(certificate.share_bounds),
        "share_limit": certificate.share_limit,
        "share_verdict": certificate.share_verdict,
        **evaluation_report(certificate.evaluation),
    }


_WORDS = {"within": "yes", "above": "no", "undecided": "undecided"}


def certificate_table(certificate: Certificate) -> str:
    """A row for each cost, and one for the share of episodes above the limit."""
    evaluation = certificate.evaluation
    bounds, names = certificate.cost_bounds, evaluation.cost_names
    several, word = len(bounds) > 1, cost_word(evaluation.limit_unit)
    rows = [
        [
            f"mean of {cost_label(names, len(bounds), i, word)}" if several or names else f"mean {word}",
            f"{mean:.2f}",
            f"[{low:.2f}, {high:.2f}]",
            f"{limit:g}",
            "" if several else _WORDS[certificate.verdict],
        ]
        for i, (mean, (low, high), limit) in enumerate(
            zip(evaluation.cost_mean, bounds, evaluation.cost_limit, strict=True)
        )
    ]
    if several:
        rows.append(["all costs", "", "", "", _WORDS[certificate.verdict]])
    low, high = certificate.share_bounds
    rows.append(
        [
            "episodes above",
            f"{evaluation.share_above_limit:.1%}",
            f"[{low:.1%}, {high:.1%}]",
            "-" if certificate.share_limit is None else f"{certificate.share_limit:.1%}",
            "-" if certificate.share_verdict is None else _WORDS[certificate.share_verdict],
        ]
    )
    header = ["", "played", f"{certificate.confidence:.0%} at any time", "limit", "within the limit"]
    return text_table(header, rows)
