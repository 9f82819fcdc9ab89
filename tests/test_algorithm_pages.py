"""The pages of the algorithms: their sections, the functions they name, and the metrics that a run logs."""

import ast
import functools
import re
from pathlib import Path

import pytest
from toys.every import data_for, learn, make
from toys.settings import small_config

import fsrl_ext
from fsrl_ext.cli.policy_names import BUILT_IN
from fsrl_ext.experiment import run
from fsrl_ext.report import read_progress

PACKAGE = Path(fsrl_ext.__file__).parent
FOLDER = PACKAGE.parent / "docs" / "algorithms"
TEXTS = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
SETTINGS = re.compile(r"^<!-- python benchmarks/docs_settings\.py ((?:\w+ ?)+) -->$", re.MULTILINE)
# The algorithms that each page is about, as its table of settings names them.
ALGORITHMS = {page: table[1].split() for page, text in TEXTS.items() if (table := SETTINGS.search(text))}
SECTIONS = ["Equations", "Implementation details", "Run it", "Logged metrics", "Settings", "Results"]
TOYS = {
    "cvpo": "cvpo", "sac_lag": "sac", "ddpg_lag": "ddpg", "td3_lag": "td3",
    "cpo": "cpo", "trpo_lag": "trpo", "ppo_lag": "ppo", "focops": "focops",
}  # fmt: skip


def section(page, title):
    """The text of a section of a page, without its subsections."""
    text = re.search(rf"^## {title}\n(.*?)(?=^##|\Z)", TEXTS[page], re.MULTILINE | re.DOTALL)
    assert text is not None, f"{page} has no section {title}"
    return text[1]


def test_every_algorithm_has_one_page():
    assert sorted(name for names in ALGORITHMS.values() for name in names) == sorted(BUILT_IN)


@pytest.mark.parametrize("page", ALGORITHMS)
def test_a_page_has_the_sections_of_the_others(page):
    *sections, last = re.findall(r"^## (.*)$", TEXTS[page], re.MULTILINE)
    assert sections == SECTIONS
    assert last.startswith("Departures from the ")


@functools.cache
def definitions():
    """Names of all functions, classes and methods of the package; methods as ``Class.method``."""
    names = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            if isinstance(node, ast.ClassDef):
                names |= {f"{node.name}.{x.name}" for x in node.body if isinstance(x, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("page", TEXTS)
def test_every_detail_names_a_function_that_does_it(page):
    details = re.split(r"^(\d+)\. ", section(page, "Implementation details"), flags=re.MULTILINE)[1:]
    numbers, texts = details[::2], details[1::2]
    assert [int(x) for x in numbers] == list(range(1, len(numbers) + 1))
    assert len(numbers) > 3
    for number, text in zip(numbers, texts, strict=True):
        named = set(re.findall(r"`([\w.]+)`", text))
        assert named & definitions(), f"detail {number} of {page} names no function"
        methods = {x for x in named if re.fullmatch(r"[A-Z]\w+\.\w+", x)}
        assert methods <= definitions(), f"detail {number} of {page} names {methods - definitions()}"


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Returns a function from a page to the metrics that its algorithms log, without ``update/``."""

    @functools.cache
    def of_page(page):
        if page in TOYS:
            policy = make(TOYS[page])
            return set(learn(policy, data_for(policy), updates=4))
        out = tmp_path_factory.mktemp("runs")
        columns = set()
        for name in ("meta_cpo", "maml_lag"):
            config = small_config(name, inner_steps=2, steps=480)
            columns |= set(read_progress(run(config, out=out, show_progress=False).folder))
        return {x.removeprefix("update/") for x in columns if x.startswith("update/")}

    return of_page


def patterns(page):
    """The metrics of a page as regular expressions; ``<k>`` stands for anything."""
    rows = re.findall(r"^\| (`.*?) \| ", section(page, "Logged metrics"), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert len(names) == len(set(names)) > 5
    return {name: re.compile(re.sub(r"<\w+>", ".+", name)) for name in names}


@pytest.mark.parametrize("page", ALGORITHMS)
def test_every_metric_that_a_run_logs_is_on_the_page(page, logged):
    known = patterns(page).values()
    missing = {name for name in logged(page) if not any(x.fullmatch(name) for x in known)}
    assert missing == set()


@pytest.mark.parametrize("page", ALGORITHMS)
def test_every_metric_of_the_page_is_logged(page, logged):
    unknown = {name for name, x in patterns(page).items() if not any(map(x.fullmatch, logged(page)))}
    assert unknown == set()
