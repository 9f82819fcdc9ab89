"""Names and units of costs: which are allowed, what a name stands for, how tables and curves write them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

LimitUnit = Literal["episode", "discounted"]
"""Unit of cost limits: the sum of the costs of an episode, or their discounted sum from its first step on.

Policies have the same type from :mod:`fsrl_ext.functional.returns`, so that they are read in few files."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


class CostNamesError(ValueError):
    """Names of costs cannot be used, or stand for no cost of the task."""


def checked_names(costs: str | Sequence[str], what: str = "costs") -> tuple[str, ...]:
    """Return names of costs as a tuple; a text is one name.

    :param what: what an error begins with.
    :raises CostNamesError: there is no name, a name is there twice, or a name has a character that columns
        of files and command lines keep for themselves.
    """
    names = (costs,) if isinstance(costs, str) else tuple(costs)
    if not names:
        raise CostNamesError(f"{what} must hold at least one name, got none")
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise CostNamesError(
                f"{what} must be names of letters, digits and the characters _ . - that begin with a letter "
                f"or _, got {name!r}"
            )
    if len(set(names)) < len(names):
        raise CostNamesError(f"{what} must differ, got {', '.join(names)}")
    return names


def select(names: Sequence[str], known: Collection[str], task: str) -> tuple[tuple[str, ...], ...]:
    """Return for each name the costs that it stands for.

    A name that a cost has stands for that cost. Any other name is a prefix, and stands for all costs that
    begin with it.

    :param names: what was asked for.
    :param known: the costs that the task has.
    :param task: the task's name in errors.
    :raises CostNamesError: a name stands for no cost, or two names stand for the same one.
    """
    if not known:
        raise CostNamesError(
            f"costs must not be given for {task}, whose cost has no named parts, got {', '.join(names)}"
        )
    owner: dict[str, str] = {}
    chosen = []
    for name in names:
        members = (name,) if name in known else tuple(x for x in known if x.startswith(name))
        if not members:
            raise CostNamesError(
                f"costs must be of {', '.join(known)} for {task}, or begin several of them, got {name!r}"
            )
        for member in members:
            if member in owner:
                raise CostNamesError(
                    f"costs must not share a cost of {task}, got {owner[member]!r} and {name!r}, which both "
                    f"stand for {member!r}"
                )
            owner[member] = name
        chosen.append(members)
    return tuple(chosen)


def cost_keys(names: Sequence[str] | None, num_costs: int) -> list[str]:
    """Return what tells the costs of a run apart in columns: their names, or ``0, 1, ...`` without names."""
    return list(names) if names else [str(i) for i in range(num_costs)]


def cost_label(names: Sequence[str] | None, num_costs: int, index: int, word: str = "cost") -> str:
    """Return what tables and axes call a cost: ``cost hazards``, ``cost 0``, or ``cost`` for a single one.

    :param names: of the costs; ``None`` for costs without names.
    :param word: what a cost is called, see :func:`cost_word`.
    """
    if not names and num_costs == 1:
        return word
    return f"{word} {cost_keys(names, num_costs)[index]}"


def labelled(texts: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """Return the texts of the costs, each with the name of its cost before it if there are names."""
    return [f"{name} {text}" for name, text in zip(names, texts, strict=True)] if names else list(texts)


def names_of(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the costs in a run's settings; ``None`` if its costs have none."""
    names = config.get("costs")
    return tuple(map(str, names)) if names else None


def limit_unit_of(config: Mapping[str, Any]) -> LimitUnit:
    """Return the unit of the limits in a run's settings; that of earlier versions is ``episode``."""
    nested = config.get("policy_config")
    unit = nested.get("limit_unit") if isinstance(nested, Mapping) else config.get("limit_unit")
    return "discounted" if unit == "discounted" else "episode"


def cost_word(unit: LimitUnit) -> str:
    """Return what tables and axes call a cost in the unit of its limit: ``cost`` or ``discounted cost``."""
    return "cost" if unit == "episode" else "discounted cost"


def other_cost_word(unit: LimitUnit) -> str:
    """Return what tables call a cost in the unit that its limit is not in."""
    return "discounted cost" if unit == "episode" else "episode cost"


def training_column(key: str, unit: LimitUnit) -> str:
    """Return the column of ``progress.csv`` with mean costs of training episodes, in the limits' unit.

    :param key: what tells the cost apart, see :func:`cost_keys`.
    """
    return f"train/costs_stat/{key}/mean" if unit == "episode" else f"train/discounted_cost/{key}"


def in_unit(name: str, unit: LimitUnit) -> str:
    """Return what tables call a cost, from a name that :func:`cost_label` gave it: ``discounted cost 0``."""
    return name if unit == "episode" else f"discounted {name}"
