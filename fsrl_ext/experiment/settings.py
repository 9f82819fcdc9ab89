"""Every config field as one flat list: by name, from Python and from text."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import math
import textwrap
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from fsrl_ext.errors import checked
from fsrl_ext.experiment.config import LIMIT_SCHEDULE, ExperimentConfig
from fsrl_ext.experiment.defaults import TUNED, default_settings, preset_settings
from fsrl_ext.experiment.registry import algorithm

Section = Literal["run", "policy", "training"]
Separator = Literal[",", "/"]


@dataclass(frozen=True)
class Setting:
    """One field of one config.

    :param section: which config the field belongs to.
    :param kind: the field's type, resolved.
    :param help: the field's docstring, without a full stop.
    """

    name: str
    section: Section
    kind: Any
    help: str

    @property
    def has_several(self) -> bool:
        """Whether the value is a tuple."""
        return any(typing.get_origin(x) is tuple for x in _members(self.kind))

    @property
    def words(self) -> tuple[str, ...]:
        """The values that are words, such as ``exact`` and ``slsqp``, or ``true`` and ``false``."""
        words: list[str] = []
        for kind in _members(self.kind):
            words += typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
            words += ("true", "false") if kind is bool else ()
        return tuple(words)

    @property
    def shown_value(self) -> str:
        """What stands for a value in a help: its words, or ``VALUE`` for numbers and other texts."""
        if self.has_several:
            return "VALUE[,VALUE]"
        others = [x for x in _members(self.kind) if x is not bool and typing.get_origin(x) is not Literal]
        free = ["VALUE"] if [x for x in others if x is not type(None)] else []
        return "|".join([*free, *self.words])

    def parse(self, text: str, *, separator: Separator = ",") -> Any:
        """The field's value from text.

        :param separator: what stands between the parts of a value that is a tuple.
        :raises ValueError: naming the setting, what it received and what is allowed.
        """
        try:
            return _convert(text, self.kind, separator)
        except (ValueError, KeyError):
            allowed = _describe(self.kind, separator)
            raise ValueError(f"{self.name} must be {allowed}, got {text!r}") from None


def list_settings(policy: str = "cvpo") -> dict[str, Setting]:
    """All settings of an experiment with this policy, by name.

    :raises ValueError: for an unknown policy.
    """
    row = algorithm(policy)
    nested = {"policy_config", "training"}
    absent = nested if row.constrained else nested | set(LIMIT_SCHEDULE)
    sections: tuple[tuple[Section, type], ...] = (
        ("run", ExperimentConfig),
        ("policy", row.config),
        ("training", row.training),
    )
    settings = {}
    for section, cls in sections:
        kinds, texts = _kinds(cls), field_docs(cls)
        for name in (x.name for x in dataclasses.fields(cls)):
            if name in absent:
                continue
            text = texts.get(name, "").replace("``", "")
            settings[name] = Setting(name, section, kinds[name], text)
    return settings


@checked()
def make_config(policy: str, task: str, *, preset: str = TUNED, **settings: Any) -> ExperimentConfig:
    """A config from the policy's defaults, the task's, the preset's and the settings given, in this order.

    A policy without a constraint has the limit ``inf``, whatever the task's is.

    .. code-block:: python

        config = make_config("cvpo", "SafetyBallCircle-v0", steps=200_000, gamma=0.98)

    :param policy: a name that ``fsrl-ext list`` prints.
    :param task: an environment id; for meta-learners the name of a family.
    :param preset: ``"tuned"`` for the defaults, or one of the algorithm's presets.
    :param settings: any fields of ``ExperimentConfig``, of the policy's config and of its training class.
    :raises ValueError: for unknown names (with the nearest known one) and values that are not allowed.
    """
    row, known = algorithm(policy), list_settings(policy)
    sections: dict[Section, dict[str, Any]] = {"run": {}, "policy": {}, "training": {}}
    defaults = default_settings(policy, row.training.judged_task(task), list(known))
    if not row.constrained:
        costs = settings.get("costs")
        defaults["cost_limit"] = (math.inf,) * (len(costs) if isinstance(costs, list | tuple) else 1)
    for name, value in {**defaults, **preset_settings(policy, preset), **settings}.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"unknown setting {name!r}{hint}")
        sections[known[name].section][name] = value
    return ExperimentConfig(
        policy=policy,
        task=task,
        policy_config=row.config(**sections["policy"]),
        training=row.training(**sections["training"]),
        **sections["run"],
    )


@functools.cache
def _kinds(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """The docstring below each field of a dataclass and of its bases, as one line without a full stop.

    A field without a docstring has that of the base class, or none. A class without source code, such as one
    that was typed into an interpreter, has no texts of its own.
    """
    docs: dict[str, str] = {}
    for owner in reversed([c for c in cls.__mro__ if dataclasses.is_dataclass(c)]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        except (OSError, TypeError):  # inspect's answers where there is no file
            continue
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, [*body.body[1:], None], strict=True):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                docs[field.target.id] = " ".join(str(text.value.value).split()).rstrip(".")
    return docs


def _members(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union; of another kind the kind itself."""
    is_union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    return typing.get_args(kind) if is_union else (kind,)


def _convert(text: str, kind: Any, separator: Separator) -> Any:
    if typing.get_origin(kind) is Literal:
        if text not in typing.get_args(kind):
            raise ValueError(text)
        return text
    if typing.get_origin(kind) is typing.Union:  # a number or a word, such as int | Literal["auto"]
        number, words = typing.get_args(kind)
        return text if text in typing.get_args(words) else _convert(text, number, separator)
    if isinstance(kind, types.UnionType):
        if text.lower() == "none":
            return None
        return _convert(text, typing.get_args(kind)[0], separator)
    if typing.get_origin(kind) is tuple:
        # Help and errors show tuples as Python writes them.
        inner = text.strip()
        if inner[:1] + inner[-1:] in ("()", "[]"):
            inner = inner[1:-1].strip().removesuffix(",")
        return tuple(_convert(part, typing.get_args(kind)[0], separator) for part in inner.split(separator))
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]
    if kind not in (int, float, str):
        raise ValueError(text)
    return text.strip() if kind is str else kind(text)


def as_text(value: Any, separator: str = ",") -> str:
    """The text that :meth:`Setting.parse` turns into a value; of what text cannot express, its ``repr``.

    :param separator: what stands between the parts of a tuple.
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, tuple) and value:
        return separator.join(as_text(part) for part in value)
    return value if isinstance(value, str) else repr(value)


def _describe(kind: Any, separator: Separator) -> str:
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(typing.get_args(kind))}"
    if typing.get_origin(kind) is typing.Union:
        number, words = typing.get_args(kind)
        return f"{_describe(number, separator)} or {' or '.join(typing.get_args(words))}"
    if isinstance(kind, types.UnionType):
        return f"{_describe(typing.get_args(kind)[0], separator)} or none"
    if typing.get_origin(kind) is tuple:
        word = {",": "commas", "/": "slashes"}[separator]
        return f"{_describe(typing.get_args(kind)[0], separator)}, or several separated by {word}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(kind, f"set from Python, because text cannot express {kind}")
