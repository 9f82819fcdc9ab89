"""The options of ``fsrl-ext train``, and a help that says what a run would have."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from fsrl_ext.cli.options import add_cores
from fsrl_ext.cli.setting_groups import COMMON, grouped
from fsrl_ext.experiment.defaults import TUNED, suite_of
from fsrl_ext.experiment.explained import explained_defaults
from fsrl_ext.experiment.registry import algorithm, algorithms
from fsrl_ext.experiment.settings import Setting, as_text, list_settings


def add_options(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Adds policy, task and all options.

    :param arguments: what follows ``train``. If they ask for help, they say which policy, task and preset it
        is about.
    :raises ValueError: if they ask for help about an unknown policy, preset or family.
    """
    texts: dict[str, str] = {}
    if any(x == "-h" or (len(x) > 3 and "--help".startswith(x)) for x in arguments):
        asked = _asked(arguments)
        if asked is not None:
            parser.description = textwrap.fill(_description(asked), 90)
            texts = _help_texts(asked)
    _add(parser, texts)


class _Reader(argparse.ArgumentParser):
    """A parser whose errors are exceptions."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def all_settings() -> dict[str, Setting]:
    """The settings of all policies, so that an error can say that a policy does not have one."""
    settings = {name: x for policy in algorithms() for name, x in list_settings(policy).items()}
    return {name: x for name, x in settings.items() if name not in ("policy", "task")}


def names_of_several() -> list[str]:
    """The names of the settings that have several values."""
    return [name for name, setting in all_settings().items() if setting.has_several]


def _add(parser: argparse.ArgumentParser, texts: Mapping[str, str], nargs: str | None = None) -> None:
    """Adds policy, task and all options to a parser.

    :param texts: by name the help of the settings and of ``preset``; a setting without one is not shown.
    :param nargs: argparse's number of policies, and of tasks; one of each if not given.
    """
    parser.add_argument("policy", nargs=nargs, help="cvpo, ...: 'fsrl-ext list policies' lists them")
    parser.add_argument("task", nargs=nargs, help="an environment id: 'fsrl-ext list tasks' lists them")
    settings = all_settings()
    for title, names in grouped(settings).items():
        group = parser.add_argument_group(title)
        for name in names:
            group.add_argument(
                f"--{name.replace('_', '-')}",
                default=argparse.SUPPRESS,
                metavar=settings[name].shown_value,
                help=texts[name].replace("%", "%%") if name in texts else argparse.SUPPRESS,
            )
        if title == COMMON:
            _add_options_of_the_call(group, texts)


def _add_options_of_the_call(group: Any, texts: Mapping[str, str]) -> None:
    """Adds the options that are no settings of the config."""
    group.add_argument("--preset", default=TUNED, help=texts.get("preset"))
    group.add_argument("--out", default="runs", help="the run folder's parent (default: runs)")
    group.add_argument("--run-name", help="the run folder's name (default: a fresh one)")
    group.add_argument(
        "--init-from",
        metavar="RUN",
        help="start from the policy of a run folder, a checkpoint file or zoo:NAME",
    )
    add_cores(group)
    group.add_argument("--quiet", action="store_true", help="show no progress bar")


def _asked(arguments: Sequence[str]) -> dict[str, Any] | None:
    """The options beside a request for help; ``policy`` is CVPO and ``task`` is ``None`` if they are missing.

    :return: ``None`` if the arguments have a mistake, which the command's own parser reports.
    :raises ValueError: for an unknown policy.
    """
    reader = _Reader(add_help=False)
    _add(reader, {}, nargs="?")
    reader.add_argument("-h", "--help", action="store_true")
    try:
        options = vars(reader.parse_known_intermixed_args(list(arguments))[0])
    except ValueError:
        return None
    options["policy"] = options["policy"] or "cvpo"
    algorithm(options["policy"])
    return options


def _description(asked: Mapping[str, Any]) -> str:
    policy, task = asked["policy"], asked["task"]
    bundle = "" if asked["preset"] == TUNED else f" with the preset {asked['preset']}"
    if task is None:
        shown = (
            f"The settings and defaults below are those of {policy}{bundle}, and the tasks that change a "
            "default stand beside it; 'fsrl-ext train POLICY TASK --help' shows the settings of a run."
        )
    else:
        suite = suite_of(algorithm(policy).training.judged_task(task))
        kind = "a task of yours" if suite == "user" else f"suite {suite}"
        shown = f"The settings and defaults below are those of {policy}{bundle} on {task} ({kind})."
    return f"Train a policy on a task. The run ends with an evaluation, a table and a picture. {shown}"


def _help_texts(asked: Mapping[str, Any]) -> dict[str, str]:
    """The help of each setting: the field's text, the default, where it comes from, and what is given."""
    policy, preset = asked["policy"], asked["preset"]
    defaults = explained_defaults(policy, asked["task"], preset=preset)
    sources = {"policy": "", "task": ", from the task", "preset": f", from the preset {preset}"}
    presets = ", ".join([TUNED, *algorithm(policy).presets])
    texts = {"preset": f"a bundle of settings: {presets} (default: {TUNED})"}
    for name, setting in list_settings(policy).items():
        notes = []
        if name in defaults:
            default = defaults[name]
            notes = [f"default: {as_text(default.value)}{sources[default.source]}"]
            notes += [f"{as_text(value)} on {tasks}" for tasks, value in default.elsewhere.items()]
        if name in asked:
            notes.append(f"given here: {asked[name]}")
        texts[name] = f"{setting.help} ({'; '.join(notes)})".strip() if notes else setting.help
    return texts
