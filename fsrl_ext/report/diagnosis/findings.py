"""The verdict of a diagnosis: plain sentences, each of which follows from numbers by a stated rule.

``docs/diagnose.md`` lists the rules. A rule that compares with a threshold looks at the interval of a number,
so that chance alone seldom makes a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fsrl_ext.report.diagnosis.training import row_label

Report = Mapping[str, Any]

LEVEL_LOW, LEVEL_HIGH = 0.8, 1.25
"""A ratio of critic to realised cost outside of these is wrong."""
WEAK_SLOPE = 0.5
"""Differences between actions of which less than this share is realised are not real."""
SMALL_SPREAD = 0.05
"""Values that depend less than this on the action, relative to the state, hardly depend on it."""
OFTEN = 0.5
"""Share of the last quarter of the training from which on something happens most of the time."""
MANY_EDGES = 0.5
"""Share of actions at the edge of the box from which on a dimension is saturated."""
APART = 1.2
"""Ratio of cost values in own states and in states of the buffer from which on the two differ."""
CROWDED = 0.4
"""Share of the cost that one of five phases has, from which on the cost is not spread over the episode: twice
the even share."""


def findings(report: Report) -> list[dict[str, str]]:
    """Return the sentences of a report: ``about`` what, ``text``, and the ``rule`` that gave it."""
    sentences: list[dict[str, str]] = []
    for i, name in enumerate(report["cost_names"]):
        rules = (_limit, _deterministic, _phases, _level, _states, _spread, _order, _multiplier, _buffer)
        sentences += [x for rule in rules for x in rule(report, i, name)]
    return sentences + list(_estep(report)) + list(_edges(report))


def _finding(about: str, text: str, rule: str) -> dict[str, str]:
    return {"about": about, "text": text, "rule": rule}


def _interval(estimate: Mapping[str, float], digits: int = 2) -> str:
    value, low, high = (estimate[x] for x in ("value", "low", "high"))
    if not math.isfinite(low):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _limit(report: Report, i: int, name: str) -> Iterator[dict[str, str]]:
    limit = report["cost_limit"][i]
    numbers = report["episodes"]["deterministic"]
    interval = numbers["cost_interval"][i]
    if not math.isfinite(limit) or interval is None:
        return
    mean = numbers["cost_mean"][i]
    kind = "discounted, " if report.get("limit_unit") == "discounted" else ""
    of = f"{kind_label(report)} episode"
    text = f"{mean:.1f} [{interval[0]:.1f}, {interval[1]:.1f}] {kind}per {of}"
    rule = f"95% interval of the mean cost of {of}s against the limit"
    if interval[0] > limit:
        yield _finding(name, f"The {name} is {text}, above the limit of {limit:g}.", rule)
    elif interval[1] < limit:
        yield _finding(name, f"The {name} is {text}, within the limit of {limit:g}.", rule)
    else:
        yield _finding(
            name, f"The {name} is {text}, which does not tell whether it keeps the limit of {limit:g}.", rule
        )


def kind_label(report: Report, kind: str = "deterministic") -> str:
    """Return the name of a kind of episodes, ``stochastic`` or the other one.

    The other ones, which selections and evaluations play, are called ``evaluation`` where they sample
    actions, too, and else ``deterministic``.
    """
    sampled = report.get("samples_in_evaluations", False)  # which earlier reports lack
    return "evaluation" if sampled and kind == "deterministic" else kind


def _deterministic(report: Report, i: int, name: str) -> Iterator[dict[str, str]]:
    if kind_label(report) != "deterministic":
        return
    difference = report["episodes"]["difference"]
    interval = difference["interval"][1 + i]
    if interval is None or interval[0] <= 0.0 <= interval[1]:
        return
    costs = [report["episodes"][kind]["cost_mean"][i] for kind in ("stochastic", "deterministic")]
    word = "more" if difference["mean"][1 + i] > 0 else "less"
    yield _finding(
        name,
        f"Sampled actions cost {word} than deterministic ones ({costs[0]:.1f} and {costs[1]:.1f}): the "
        "training holds the cost of the former, and evaluations judge the latter.",
        "95% interval of the difference over the same seeds excludes 0",
    )


def _phases(report: Report, i: int, name: str) -> Iterator[dict[str, str]]:
    dearest = report["episodes"]["dearest_phase"][i]
    if math.isnan(dearest["share"]["low"]) or dearest["share"]["low"] < CROWDED:
        return
    yield _finding(
        name,
        f"Phase {dearest['phase']} of 5 has {_interval(dearest['share'])} of the {name}: a threshold that "
        "spreads the limit evenly over the episode does not fit.",
        f"95% interval of the largest share of five phases above {CROWDED}, in sampled episodes",
    )


def _level(report: Report, i: int, name: str) -> Iterator[dict[str, str]]:
    ratio = report["signals"].get(name, {}).get("level", {}).get("ratio")
    if ratio is None or not math.isfinite(ratio["low"]):
        return
    rule = f"95% interval of the ratio of means against {LEVEL_LOW} to {LEVEL_HIGH}"
    text = f"The critic of the {name} is {_interval(ratio)} of the realised discounted {name}"
    decides = report["constraint"] and report["constraint"][i]["uses_threshold"]
    if ratio["high"] < LEVEL_LOW:
        effect = (
            ": the constraint is looser than it reads."
            if decides
            else ", too low; the constraint's level comes from measured costs, so only the differences "
            "between actions matter."
        )
        yield _finding(name, text + effect, rule)
    elif ratio["low"] > LEVEL_HIGH:
        effect = (
            ": the constraint is stricter than it reads."
            if decides
            else ", too high; the constraint's level comes from measured costs, so only the differences "
            "between actions matter."
        )
        yield _finding(name, text + effect, rule)
    elif ratio["low"] >= LEVEL_LOW and ratio["high"] <= LEVEL_HIGH:
        yield _finding(name, f"{text}: its level is right.", rule)
    else:
        yield _finding(name, f"{text}: more episodes are needed to tell whether its level is right.", rule)


def _states(report: Report, i: int, name: str) -> Iterator[dict[str, str]]:
    correlation = report["signals"].get(name, {}).get("level", {}).get("rank_correlation")
    if correlation is None or not math.isfinite(correlation["low"]) or correlation["low"] > 0:
        return
    yield _finding(
        name,
        f"The critic of the {name} does not tell dear states from cheap ones: rank correlation with what is "
        f"realised {_interval(correlation)}.",
        "95% interval of the rank correlation over states reaches 0",
    )


def _spread(report: Report, i: int, name: str) -> Iterator[dict[str, str]]:
    numbers = report["signals"].get(name, {}).get("spread")
    if not numbers:
        return
    relative = numbers["relative"]
    flat = numbers["over_actions"] == 0.0
    if flat or (math.isfinite(relative) and relative < SMALL_SPREAD):
        size = "not at all" if flat else f"{relative:.1%} of its spread over states"
        yield _finding(
            name,
            f"The critic of the {name} is nearly the same for all actions of a state (it differs by {size}).",
            f"standard deviation over actions below {SMALL_SPREAD:.0%} of that over states",
        )


def _order(report: Report, i: int, name: str) -> Iterator[dict[str, str]]:
    signal = report["signals"].get(name, {})
    played, order = signal.get("played_slope"), signal.get("order")
    if not played and not order:
        return
    rule = (
        "ranks: interval of the rank correlation in replays, or of the narrower slope, above 0; else does "
        f"not rank: values are constant, or that interval ends below {WEAK_SLOPE}; else undecided"
    )
    spread = signal["spread"]["over_actions"]
    if spread == 0.0:
        yield _finding(
            name, f"The critic of the {name} does not rank actions: all have the same value.", rule
        )
        return
    slopes = [x for x in (played, order and order["slope"]) if x and math.isfinite(x["low"])]
    if not slopes:
        return
    slope = min(slopes, key=lambda x: x["high"] - x["low"])
    source = "played" if slope is played else "replayed"
    correlation = order["rank_correlation"] if order else None
    numbers = f"slope {_interval(slope)} over {source} actions"
    if correlation is not None and math.isfinite(correlation["value"]):
        numbers += f", rank correlation {_interval(correlation)} in replays"
    if slope["low"] > 0.0 or (correlation is not None and correlation["low"] > 0.0):
        text = f"The critic of the {name} ranks actions: {numbers}."
        if slope["high"] < WEAK_SLOPE:
            text = f"{text[:-1]}; its differences are larger than the realised ones."
        elif slope["low"] > 1 / WEAK_SLOPE:
            text = f"{text[:-1]}; its differences are smaller than the realised ones."
    elif slope["high"] < WEAK_SLOPE:
        text = f"The critic of the {name} does not rank actions: {numbers}."
    else:
        text = (
            f"The data do not tell whether the critic of the {name} ranks actions: {numbers} (more of them: "
            "--episodes, --states)."
        )
    yield _finding(name, text, rule)


def _multiplier(report: Report, i: int, name: str) -> Iterator[dict[str, str]]:
    training = report["training"]
    if training is None:
        return
    share = training["at_cap"][i]
    rule = f"share of the rows of the last quarter within 1% of the cap, at least {OFTEN:.0%}"
    if share is not None and share >= OFTEN:
        cap = report["constraint"][i]["multiplier_cap"]
        yield _finding(
            name,
            f"The multiplier of the {name} is at its cap of {cap:g} in {share:.0%} of the last quarter: it "
            "cannot hold the limit.",
            rule,
        )
    row, cost = (
        training["rows"].get(row_label(label, report["cost_names"], i))
        for label in ("multiplier", "cost of training episodes")
    )
    limit = report["cost_limit"][i]
    if row and cost and row["quarters"][-1] < 1e-6 and cost["quarters"][-1] > limit:
        yield _finding(
            name,
            f"The multiplier of the {name} is zero in the last quarter, although its training episodes cost "
            f"{cost['quarters'][-1]:.1f} with a limit of {limit:g}: the constraint never engages.",
            "mean multiplier of the last quarter below 1e-6, and mean cost of its episodes above the limit",
        )


def _estep(report: Report) -> Iterator[dict[str, str]]:
    rows = {} if report["training"] is None else report["training"]["rows"]
    for label, meaning in (
        ("E-step infeasible", "no reweighting within the KL bound meets the threshold"),
        ("step recovery", "no step within the KL bound keeps the limit, so the step lowers the cost alone"),
    ):
        if label in rows and rows[label]["quarters"][-1] >= OFTEN:
            yield _finding(
                "constraint",
                f"{rows[label]['quarters'][-1]:.0%} of the updates of the last quarter are of the kind "
                f'"{label}": {meaning}.',
                f"share of the last quarter at least {OFTEN:.0%}",
            )
    above = [
        x > limit
        for x, limit in zip(report["episodes"]["stochastic"]["cost_mean"], report["cost_limit"], strict=True)
    ]
    for label in ("E-step slack", "step inactive"):
        if label in rows and rows[label]["quarters"][-1] >= OFTEN and any(above):
            yield _finding(
                "constraint",
                f"{rows[label]['quarters'][-1]:.0%} of the updates of the last quarter are of the kind "
                f'"{label}", in which no limit matters, although sampled episodes cost more than the limit.',
                f"share of the last quarter at least {OFTEN:.0%}; their mean cost above the limit",
            )


def _buffer(report: Report, i: int, name: str) -> Iterator[dict[str, str]]:
    numbers = None if report["buffer"] is None else report["buffer"][name]
    if numbers is None or min(numbers["own"], numbers["buffer"]) <= 0:
        return
    ratio = numbers["own"] / numbers["buffer"]
    if ratio > APART or ratio < 1 / APART:
        word = "dearer" if ratio > 1 else "cheaper"
        yield _finding(
            name,
            f"The policy's own states are {word} than those of the replay buffer (critic of the {name}: "
            f"{numbers['own']:.3g} and {numbers['buffer']:.3g}, ratio {ratio:.2f}): a constraint over states "
            "of the buffer is about others than those that are visited.",
            f"ratio of the means of the cost values above {APART} or below {1 / APART:.2f}",
        )


def _edges(report: Report) -> Iterator[dict[str, str]]:
    shares = report["actions"]["at_edge"]
    places = [str(i) for i, x in enumerate(shares) if x >= MANY_EDGES]
    if places:
        yield _finding(
            "actions",
            f"Actions lie at the edge of their box most of the time in dimension{'s' * (len(places) > 1)} "
            f"{', '.join(places)} ({', '.join(f'{shares[int(i)]:.0%}' for i in places)}).",
            f"at least {MANY_EDGES:.0%} of the sampled actions beyond 0.99 in a box of [-1, 1]",
        )
