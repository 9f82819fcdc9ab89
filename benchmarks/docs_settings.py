"""Prints the table of the settings of algorithms, for their page of the documentation.

    python benchmarks/docs_settings.py cvpo
    python benchmarks/docs_settings.py sac_lag sac
    python benchmarks/docs_settings.py sac_lag --presets
    python benchmarks/docs_settings.py --setting cost_margin
    python benchmarks/docs_settings.py --shared

The table has all settings of the policies, and those settings of the networks and the training loop whose
defaults differ from the ones on the page of concepts. A default that differs between the policies stands with
the names of the policies, and so does a setting that only some of them have. ``--presets`` prints the presets
of one policy instead, ``--setting`` the default of one setting of all policies, and ``--shared`` the table of
the page of concepts: the settings of a run, of its networks and of the training loop, with the families of
algorithms that have them.

``benchmarks/docs_results.py`` puts the tables into the pages, and a test compares them with the code.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from fsrl_ext.cli.policy_names import BUILT_IN
from fsrl_ext.experiment import ExperimentConfig
from fsrl_ext.experiment.algorithms import MetaTraining, OnpolicyTraining, SACTraining
from fsrl_ext.experiment.explained import Default, explained_defaults
from fsrl_ext.experiment.registry import algorithm
from fsrl_ext.experiment.settings import field_docs, list_settings
from fsrl_ext.policy.base import PolicyConfig

FAMILIES = {"off-policy": SACTraining, "on-policy": OnpolicyTraining, "meta-learning": MetaTraining}
"""The families of algorithms, and the training class with the settings of most of a family's algorithms."""
REPRESENTATIVES = {"off-policy": "cvpo", "on-policy": "cpo", "meta-learning": "meta_cpo"}
"""An algorithm of each family, which has the family's defaults of the settings of a run."""
SEE = {
    "costs": "[several costs](many_costs.md)",
    "limit_unit": "[the unit of a limit](#the-unit-of-a-limit)",
    "cost_limit_start": "[cost limits](#cost-limits)",
    "selections": "[the best policy](evaluation.md)",
    "selection_min_episodes": "[cores](runs.md#cores)",
    "actor": "[networks of your own](swapping_parts.md#networks)",
    "critic": "[networks of your own](swapping_parts.md#networks)",
    "worker_type": "[several machines](throughput.md#several-machines)",
    "agents": "[several agents](many_agents.md)",
    "cost_unit": "[several agents](many_agents.md)",
    "collect_ahead": "[training faster](throughput.md)",
}
"""Pages, as the page of concepts refers to them, that say more about a setting than its row has room for."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("policies", nargs="*", metavar="POLICY")
    parser.add_argument("--presets", action="store_true", help="print the presets of the first policy")
    parser.add_argument("--setting", help="print the default of this setting of all policies")
    parser.add_argument("--shared", action="store_true", help="print the settings that the algorithms share")
    options = parser.parse_args(argv)
    policies: list[str] = options.policies
    if options.shared:
        print_shared()
        return 0
    if options.setting:
        print_setting(options.setting)
        return 0
    if not policies:
        parser.error("a policy must be named")
    if options.presets:
        print_presets(policies[0])
        return 0
    defaults = {policy: defaults_of(policy) for policy in policies}
    print("| setting | default | meaning |\n|---|---|---|")
    for name in listed(policies, defaults):
        print(f"| `{name}` | {default_of(name, defaults)} | {meaning(name, policies)} |")
    return 0


def print_setting(name: str) -> None:
    """Prints a table of the default that a setting has for each algorithm that has it."""
    by_text: dict[str, list[str]] = {}
    for policy in BUILT_IN:
        if name in list_settings(policy):
            by_text.setdefault(as_cell(defaults_of(policy)[name]), []).append(policy)
    print(f"| algorithms | default of `{name}` |\n|---|---|")
    for text, policies in by_text.items():
        print(f"| {in_code(policies)} | {text} |")


def print_shared() -> None:
    """Prints the table of the settings that belong to a run, to its networks or to the training loop."""
    run = {x.name: field_docs(ExperimentConfig) for x in dataclasses.fields(ExperimentConfig)}
    for name in ("policy", "task", "policy_config", "training"):  # what a run is made of
        del run[name]
    loop = {x.name: field_docs(cls) for cls in FAMILIES.values() for x in dataclasses.fields(cls)}
    # The unit belongs to the policies, and to the limits, which come first.
    limits = {"cost_limit": run.pop("cost_limit"), "limit_unit": field_docs(PolicyConfig)}
    rows = limits | run | loop
    assert rows.keys() >= SEE.keys()
    print("| setting | algorithms | default | meaning |\n|---|---|---|---|")
    for name, docs in rows.items():
        defaults = {family: x for family in FAMILIES if (x := family_default(family, name)) is not None}
        families = "all" if len(defaults) == len(FAMILIES) else ", ".join(defaults)
        more = f" ({SEE[name]})" if name in SEE else ""
        print(f"| `{name}` | {families} | {by_family(defaults)} | {as_text(docs[name])}{more} |")


def family_default(family: str, name: str) -> Default | None:
    """The default of a setting in a family, or ``None`` where the family does not have it.

    That of a setting of the training is the default of the family's class, which the page of an algorithm
    takes as known; that of a setting of the run depends on the task, too.
    """
    fields = {x.name: x for x in dataclasses.fields(FAMILIES[family])}
    return Default(fields[name].default) if name in fields else defaults_of(REPRESENTATIVES[family]).get(name)


def by_family(defaults: dict[str, Default]) -> str:
    """The cell of a default, with the names of the families if they differ in it.

    A family that has the value of another one, and fewer tasks to train on, has the other one's default.
    """
    different: list[tuple[Default, list[str]]] = []
    for family, default in defaults.items():
        for other, families in different:
            if other.value == default.value and default.elsewhere.items() <= other.elsewhere.items():
                families.append(family)
                break
        else:
            different.append((default, [family]))
    if len(different) == 1:
        return as_cell(different[0][0])
    return "; ".join(f"{', '.join(families)}: {as_cell(default)}" for default, families in different)


def print_presets(policy: str) -> None:
    """Prints a table of the presets of an algorithm, each with all settings that it has."""
    known = list_settings(policy)
    print("| preset | settings of the policy | settings of the training |\n|---|---|---|")
    for name, preset in algorithm(policy).presets.items():
        cells = [
            ", ".join(
                f"`{x}` {shown(value)}"
                for x, value in preset.items()
                if (known[x].section == "policy") == of_policy
            )
            for of_policy in (True, False)
        ]
        print(f"| `{name}` | {cells[0]} | {cells[1]} |")


def defaults_of(policy: str) -> dict[str, Default]:
    """The defaults of a policy; those of a meta-learner without the rows of tasks that it cannot train on."""
    defaults = explained_defaults(policy)
    if not issubclass(algorithm(policy).training, MetaTraining):
        return defaults
    return {
        name: dataclasses.replace(x, elsewhere={k: v for k, v in x.elsewhere.items() if k == "meta tasks"})
        for name, x in defaults.items()
    }


def listed(policies: Sequence[str], defaults: dict[str, dict[str, Default]]) -> list[str]:
    """Names of the settings in the table: those of the policies first."""
    shared = shared_defaults()
    of_policy: dict[str, None] = {}
    others: dict[str, None] = {}
    for policy in policies:
        for name, setting in list_settings(policy).items():
            if name == "cost_limit":  # the page of concepts has those of all tasks
                continue
            if setting.section == "policy":
                of_policy[name] = None
            elif name in defaults[policy] and not covers(shared.get(name), defaults[policy][name]):
                others[name] = None
    return [*of_policy, *others]


def covers(shared: Default | None, default: Default) -> bool:
    """Whether the page of concepts tells a default on all tasks that the algorithm can train on."""
    return (
        shared is not None
        and shared.value == default.value
        and default.elsewhere.items() <= shared.elsewhere.items()
    )


def shared_defaults() -> dict[str, Default]:
    """The defaults that the page of concepts has: those of the run, and of the classes of training."""
    classes = (OnpolicyTraining, SACTraining)
    fields = [x for cls in classes for x in dataclasses.fields(cls)]
    training = {x.name: Default(x.default) for x in fields}
    run = {x.name for x in dataclasses.fields(ExperimentConfig)}
    return training | {name: x for name, x in explained_defaults("cvpo").items() if name in run}


def default_of(name: str, defaults: dict[str, dict[str, Default]]) -> str:
    """The cell of a setting's default; with the names of the policies if they differ in it."""
    by_text: dict[str, list[str]] = {}
    for policy, of_policy in defaults.items():
        if name in of_policy:
            by_text.setdefault(as_cell(of_policy[name]), []).append(policy)
    if len(by_text) == 1 and sum(map(len, by_text.values())) == len(defaults):
        return next(iter(by_text))
    return "; ".join(f"{in_code(policies)} {text}" for text, policies in by_text.items())


def as_cell(default: Default) -> str:
    """A default, and the tasks with another one."""
    by_value: dict[str, list[str]] = {}
    for tasks, value in default.elsewhere.items():
        by_value.setdefault(shown(value), []).append(tasks)
    parts = [f"{value} for {' and '.join(map(as_tasks, tasks))}" for value, tasks in by_value.items()]
    return "; ".join([shown(default.value), *parts])


def as_tasks(pattern: str) -> str:
    """The name of some tasks: a suite's in words, and an id or a pattern of ids as code."""
    return pattern if pattern.endswith(" tasks") else f"`{pattern}`"


def shown(value: Any) -> str:
    """A value as the pages write it."""
    if isinstance(value, tuple):
        return ", ".join(map(shown, value))
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}"


def meaning(name: str, policies: Iterable[str]) -> str:
    """The docstring of a setting's field, of the first policy that has the setting."""
    policy = next(x for x in policies if name in list_settings(x))
    row = algorithm(policy)
    texts = field_docs(ExperimentConfig) | field_docs(row.training) | field_docs(row.config)
    return as_text(texts[name])


def as_text(docstring: str) -> str:
    """The docstring of a field as the cell of a table."""
    return docstring.replace("``", "`").replace("|", r"\|")


def in_code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.exit(main())
