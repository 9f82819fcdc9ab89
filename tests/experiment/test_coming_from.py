"""docs/coming_from.md: our numbers, names and commands on the page are those of the code."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

import fsrl_ext.data
import fsrl_ext.policy
import fsrl_ext.trainer
from fsrl_ext.experiment import make_config
from fsrl_ext.experiment.settings import list_settings

PAGE = (Path(__file__).parents[2] / "docs" / "coming_from.md").read_text()
TABLE = re.compile(r"<!-- make_config (\w+) ([\w-]+) -->\n((?:\|.*\n)+)")
ROWS = [
    pytest.param(policy, task, *row, id=f"{policy}-{task}-{row[0]}")
    for policy, task, table in TABLE.findall(PAGE)
    for row in re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", table, re.MULTILINE)
]


def as_value(text):
    """The value that a cell of the page shows: a number, numbers, a truth value or a word."""
    if text in ("true", "false"):
        return text == "true"
    try:
        numbers = tuple(float(part.replace(",", "")) for part in text.split(", "))
    except ValueError:
        return text
    return numbers if len(numbers) > 1 else numbers[0]


@pytest.mark.parametrize(("policy", "task", "setting", "shown"), ROWS)
def test_our_number_is_that_of_the_run(policy, task, setting, shown):
    config = make_config(policy, task)
    values = {**vars(config), **asdict(config.policy_config), **asdict(config.training)}
    value = values[setting]
    if setting == "cost_limit":
        (value,) = value
    assert as_value(shown) == value


def test_every_library_has_numbers():
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    with_numbers = [section.partition("\n")[0] for section in sections if TABLE.search(section)]
    assert with_numbers == ["FSRL", "OmniSafe", "SafePO", "cvpo-safe-rl", "Meta-CPO"]
    assert len(ROWS) > 50


@pytest.mark.parametrize(
    ("policy", "task", "options"), re.findall(r"`fsrl-ext train (\w+) ([\w-]+)([^`]*)`", PAGE)
)
def test_a_command_names_what_exists(policy, task, options):
    settings = {}
    for name, value in re.findall(r"--([\w-]+) (\S+)", options):
        name = name.replace("-", "_")
        assert name == "preset" or name in list_settings(policy)
        settings[name] = value if name == "preset" else int(value)
    assert make_config(policy, task, **settings).task == task


def test_our_classes_exist():
    ours = "\n".join(line.split("|")[2] for line in PAGE.splitlines() if line.startswith("|"))
    classes = re.findall(r"\b(?:Cost[A-Z]|[A-Z]\w*Policy\b)\w*", ours)
    assert len(classes) > 20
    for name in classes:
        assert any(hasattr(room, name) for room in (fsrl_ext.data, fsrl_ext.policy, fsrl_ext.trainer)), name
