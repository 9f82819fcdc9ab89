"""``fsrl-ext completion``: a script that lets a shell complete commands, options and names."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_EXAMPLE = """examples:
  fsrl-ext completion bash > ~/.local/share/bash-completion/completions/fsrl-ext
  source <(fsrl-ext completion bash)      # for this shell alone
  source <(fsrl-ext completion zsh)       # in ~/.zshrc, after compinit
"""

_SCRIPT = """\
{start}_fsrl_ext() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words=""
    if [[ $COMP_CWORD -eq 1 ]]; then
        words={commands}
    elif [[ $current == -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{options}
        esac
    else
        case "${{COMP_WORDS[1]}} $previous" in
{values}
            *" "-*) ;;
            *) case "${{COMP_WORDS[1]}} $COMP_CWORD" in
{places}
            esac ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _fsrl_ext fsrl-ext
"""

ParserOf = Callable[[str], argparse.ArgumentParser]
"""Makes the complete parser of a command; some commands have options that take imports."""


def add_command(commands: Any, parser_of: ParserOf) -> None:
    """Adds the command and its options.

    :param commands: all commands, of which the later ones are completed, too.
    """
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands, options, policies and tasks in a shell",
        description="Print a script for a shell. With it, the Tab key completes commands, options,\n"
        "settings, their values, policies, tasks and files. The script knows the policies and tasks\n"
        "that are installed when it is printed, so that completing starts no Python.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="which shell")

    def complete(options: argparse.Namespace, command: str) -> int:
        print(completion_script(options.shell, {name: parser_of(name) for name in commands.choices}), end="")
        return 0

    parser.set_defaults(command=complete)


def completion_script(shell: str, parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """The script for ``bash`` or ``zsh``, which reads it by its emulation of bash's completion.

    :param parsers: the complete parser of each command, by its name.
    """
    values = _values()
    options, after, places = [], [], []
    for name, parser in parsers.items():
        place = 2
        shown = []
        for action in parser._actions:
            known = values.get((name, action.dest)) or values.get(("", action.dest), ())
            texts = list(action.choices or known)
            if not action.option_strings:
                if texts:
                    places.append((f"{name} {place}", texts))
                place += 1
                continue
            shown += [x for x in action.option_strings if x.startswith("--")]
            if texts and action.nargs != 0:
                after.append((" | ".join(f'"{name} {x}"' for x in action.option_strings), texts))
        options.append((name, shown))
    return _SCRIPT.format(
        start="" if shell == "bash" else "autoload -U +X bashcompinit && bashcompinit\n",
        commands=_words(parsers),
        options=_cases(options, 12),
        values=_cases(after, 12, quote=False),
        places=_cases(places, 16),
    )


def _values() -> dict[tuple[str, str], Iterable[str]]:
    """Texts by command and destination of an option, where ``""`` stands for every command."""
    from fsrl_ext.cli.train_options import all_settings
    from fsrl_ext.env import list_tasks
    from fsrl_ext.env.meta import list_families
    from fsrl_ext.experiment.registry import algorithms
    from fsrl_ext.zoo.policies import zoo_policies

    tasks = [task.id for task in list_tasks()]
    policies = list(algorithms())
    presets = {preset: None for row in algorithms().values() for preset in ("tuned", *row.presets)}
    values: dict[tuple[str, str], Iterable[str]] = {
        ("", "task"): tasks,
        ("train", "task"): [*tasks, *list_families()],
        ("train", "policy"): policies,
        ("train", "preset"): presets,
        ("sweep", "tasks"): tasks,
        ("sweep", "policies"): policies,
        ("zoo", "name"): [one.name for one in zoo_policies()],
    }
    for name, setting in all_settings().items():
        if setting.words:
            values["train", name] = setting.words
    return values


def _words(texts: Iterable[str]) -> str:
    return shlex.quote(" ".join(texts))


def _cases(rows: Iterable[tuple[str, Iterable[str]]], indent: int, *, quote: bool = True) -> str:
    """Branches of a ``case``, one for each pattern."""
    blanks = " " * indent
    return "\n".join(
        f"{blanks}{shlex.quote(pattern) if quote else pattern}) words={_words(texts)} ;;"
        for pattern, texts in rows
    )
