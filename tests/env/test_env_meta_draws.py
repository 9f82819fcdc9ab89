"""Check parameters, families, distributions and held-out suites as numbers, without a simulator."""

import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fsrl_ext
from fsrl_ext.env import list_tasks
from fsrl_ext.env.meta import (
    Choice,
    Computed,
    Distribution,
    Fixed,
    Integers,
    Parameters,
    TaskDistribution,
    Uniform,
    UnknownFamilyError,
    describe,
    held_out_suite,
    list_families,
)
from fsrl_ext.env.meta.family import FIRST_HELD_OUT_SEED, find_family
from fsrl_ext.env.meta.held_out import suites_as_text
from fsrl_ext.env.meta.safety_families import AGENTS, KINDS

FAMILIES = [f"Safety{agent}{kind}" for kind in KINDS for agent in AGENTS]
DRAWS = 2000


def draws(kind: str, level: int) -> dict[str, np.ndarray]:
    family = find_family(f"SafetyPoint{kind}")
    rows = [family.parameters(level, seed) for seed in range(DRAWS)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    """Assert that values fill the range; each assertion fails by chance once in 10**4 draws or less."""
    width = high - low
    assert values.min() >= low
    assert values.max() <= high
    assert values.min() < low + 0.01 * width
    assert values.max() > high - 0.01 * width
    assert abs(values.mean() - (low + high) / 2) < 4 * width / math.sqrt(12 * len(values))


def assert_integers(values: np.ndarray, low: int, high: int) -> None:
    found, counts = np.unique(values, return_counts=True)
    assert found.tolist() == list(range(low, high + 1))
    share = 1 / len(found)
    assert np.abs(counts / len(values) - share).max() < 4 * math.sqrt(share / len(values))


def test_families_are_the_listed_tasks() -> None:
    assert list_families()[: len(FAMILIES)] == FAMILIES
    ids = {f"{family}{level}-v0" for family in FAMILIES for level in range(3)}
    listed = {task.id: task for task in list_tasks() if task.suite == "meta"}
    assert listed.keys() == ids
    assert {task.horizon for task in listed.values()} == {500}
    assert {task.num_costs for task in listed.values()} == {1}
    for id, task in listed.items():
        assert task.can_terminate is id.startswith("SafetyAnt")


def test_level_0_is_fixed() -> None:
    expected = {
        "Stcircle": {"radius": 1.25, "scale": 0.75, "wall": 0.938},
        "StcircleHazard": {
            **{"radius": 1.25, "scale": 0.65, "wall": 0.812},
            **{"hazards": 5, "hazard_extent": 1.4},
        },
        "Stbutton": {"extent": 1.9, "buttons": 4, "hazards": 7},
    }
    for kind, parameters in expected.items():
        family = find_family(f"SafetyPoint{kind}")
        assert {family.parameters(0, seed) for seed in range(20)} == {Parameters(parameters)}


@pytest.mark.parametrize(
    ("kind", "level", "radius", "scale"),
    [
        ("Stcircle", 1, (1.0, 1.5), (0.55, 0.75)),
        ("Stcircle", 2, (2.0, 2.5), (0.55, 0.65)),
        ("StcircleHazard", 1, (1.0, 1.5), (0.55, 0.75)),
        ("StcircleHazard", 2, (1.5, 2.0), (0.55, 0.65)),
    ],
)
def test_circles(kind: str, level: int, radius: tuple, scale: tuple) -> None:
    drawn = draws(kind, level)
    assert_uniform(drawn["radius"], *radius)
    assert_uniform(drawn["scale"], *scale)
    products = drawn["radius"] * drawn["scale"]
    assert drawn["wall"].tolist() == [round(float(product), 3) for product in products]
    assert abs(np.corrcoef(drawn["radius"], drawn["scale"])[0, 1]) < 4 / math.sqrt(DRAWS)


@pytest.mark.parametrize(
    ("level", "number", "extent"),
    [(1, (4, 6), 1.4), (2, (10, 12), 1.8)],
)
def test_hazards_of_circles(level: int, number: tuple, extent: float) -> None:
    drawn = draws("StcircleHazard", level)
    assert_integers(drawn["hazards"], *number)
    assert set(drawn["hazard_extent"]) == {extent}


@pytest.mark.parametrize(
    ("level", "extent", "number", "more"), [(1, (1.75, 2.0), (3, 6), 3), (2, (2.6, 2.9), (6, 10), 6)]
)
def test_buttons(level: int, extent: tuple, number: tuple, more: int) -> None:
    drawn = draws("Stbutton", level)
    assert_uniform(drawn["extent"], *extent)
    assert_integers(drawn["buttons"], *number)
    assert np.array_equal(drawn["hazards"], drawn["buttons"] + more)


@pytest.mark.parametrize("kind", KINDS)
def test_level_2_is_outside_of_level_1(kind: str) -> None:
    family = find_family(f"SafetyCar{kind}")
    for seed in range(200):
        one, two = family.parameters(1, seed), family.parameters(2, seed)
        assert family.contains(1, one)
        assert family.contains(2, two)
        assert not family.contains(1, two)
        assert not family.contains(2, one)


def test_draws_are_the_same_on_every_machine() -> None:
    expected = {
        ("Stcircle", 1, 0): {"radius": 1.4803873744123217, "scale": 0.6668230245640282, "wall": 0.987},
        ("Stbutton", 2, 7): {"extent": 2.754708009180394, "buttons": 9, "hazards": 15},
        ("StcircleHazard", 1, 2**32 - 1): {
            "radius": 1.3858047334682966,
            "scale": 0.6303006684279757,
            "wall": 0.873,
            "hazards": 6,
            "hazard_extent": 1.4,
        },
    }
    for (kind, level, seed), parameters in expected.items():
        for agent in AGENTS:
            assert dict(find_family(f"Safety{agent}{kind}").parameters(level, seed)) == parameters


def test_distributions_turn_numbers_into_values() -> None:
    last = 1 - 2.0**-53
    assert [Uniform(2.0, 3.0).draw(u, {}) for u in (0.0, 0.5)] == [2.0, 2.5]
    assert [Integers(-1, 1).draw(u, {}) for u in (0.0, 0.4, last)] == [-1, 0, 1]
    assert [Choice(("a", "b")).draw(u, {}) for u in (0.0, last)] == ["a", "b"]
    assert Computed(max, ("x", "y")).draw(0.5, {"x": 3, "y": 4, "z": 9}) == 4
    assert not Integers(0, 3).contains(1.5, {})
    assert not Choice((1, 2)).contains(3, {})
    assert all(isinstance(d, Distribution) for d in (Fixed(1), Uniform(0, 1), Integers(0, 1), Choice((1,))))
    with pytest.raises(ValueError, match=r"low and high must be finite and low <= high, got 2\.0 and 1\.0"):
        Uniform(2.0, 1.0)
    with pytest.raises(ValueError, match="must be finite"):
        Uniform(0.0, math.inf)
    with pytest.raises(ValueError, match=r"must be integers and low <= high, got 0\.5 and 2"):
        Integers(0.5, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"values must not be empty, got \(\)"):
        Choice(())
    with pytest.raises(ValueError, match=r"of must name parameters that are drawn before, \['x'\], got"):
        Computed(max, ("x", "y")).draw(0.5, {"x": 3})


def test_parameters_are_values() -> None:
    one, two = Parameters({"a": 1, "b": 2.5}), Parameters({"b": 2.5, "a": 1})
    assert one == two
    assert hash(one) == hash(two)
    assert one != Parameters({"a": 1})
    assert repr(one) == "Parameters(a=1, b=2.5)"
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(TypeError):
        one["a"] = 2  # type: ignore[index]
    with pytest.raises(KeyError):
        one["c"]


@pytest.mark.parametrize("family", FAMILIES[::4])
def test_a_distribution_is_a_fixed_order_of_different_tasks(family: str) -> None:
    distribution = TaskDistribution(family, level=1, seed=0)
    tasks = distribution.draw(50)
    assert tasks == TaskDistribution(family).draw(50)
    assert tasks[10:20] == distribution.draw(10, start=10)
    assert len({task.task_seed for task in tasks}) == 50
    assert len({task.parameters for task in tasks}) == 50
    assert tasks != TaskDistribution(family, seed=1).draw(50)
    for task in tasks:
        assert task == describe(family, 1, task.task_seed)
        assert task.id == f"{family}1-v0"
        assert task.task_seed < FIRST_HELD_OUT_SEED
    assert pickle.loads(pickle.dumps(tasks)) == tasks
    assert len(set(tasks)) == 50
    assert json.loads(json.dumps(tasks[0].as_dict()))["parameters"] == tasks[0].parameters


def test_the_order_ends_before_the_held_out_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    distribution = TaskDistribution("SafetyPointStcircle")
    (first,) = distribution.draw(1)
    wrapped = distribution.draw(2, start=FIRST_HELD_OUT_SEED - first.task_seed - 1)
    assert [task.task_seed for task in wrapped] == [FIRST_HELD_OUT_SEED - 1, 0]


def test_all_robots_get_the_same_tasks() -> None:
    point, ant = (TaskDistribution(f"Safety{agent}Stbutton", seed=3).draw(5) for agent in ("Point", "Ant"))
    assert [task.parameters for task in point] == [task.parameters for task in ant]


@pytest.mark.parametrize("family", FAMILIES)
def test_held_out_suites(family: str) -> None:
    training = {task.parameters for task in TaskDistribution(family).draw(100)}
    suites = {where: held_out_suite(family, where) for where in ("inside", "outside")}
    known = find_family(family)
    for where, level in (("inside", 1), ("outside", 2)):
        suite = suites[where]
        assert len(set(suite)) == len({task.parameters for task in suite}) == 20
        assert training.isdisjoint(task.parameters for task in suite)
        for task in suite:
            assert task == describe(family, level, task.task_seed)
            assert task.task_seed >= FIRST_HELD_OUT_SEED
            assert known.contains(1, task.parameters) is (where == "inside")


def test_the_file_of_held_out_suites_is_what_the_families_draw() -> None:
    path = Path(fsrl_ext.__file__).parent / "env" / "meta" / "held_out.json"
    assert path.read_text(encoding="utf-8") == suites_as_text()


def test_the_file_is_part_of_the_package() -> None:
    text = (Path(fsrl_ext.__file__).parents[1] / "setup.cfg").read_text()
    assert "fsrl_ext.env.meta = *.json" in text


def test_wrong_names_and_numbers() -> None:
    with pytest.raises(UnknownFamilyError, match="'SafetyPointStcircel'; did you mean SafetyPointStcircle"):
        TaskDistribution("SafetyPointStcircel")
    with pytest.raises(UnknownFamilyError, match=r"'xyzzy'; see fsrl_ext\.env\.meta\.list_families"):
        held_out_suite("xyzzy")
    with pytest.raises(ValueError, match=r"level must be one of \[0, 1, 2\] for SafetyPointStcircle, got 3"):
        TaskDistribution("SafetyPointStcircle", level=3)
    for seed in (-1, 2**32, 0.5, True, "1"):
        with pytest.raises(ValueError, match=r"seed must be an integer in \[0, 2\*\*32\), got"):
            TaskDistribution("SafetyPointStcircle", seed=seed)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"task_seed must be an integer in \[0, 2\*\*32\), got"):
            describe("SafetyPointStcircle", 1, seed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"where must be one of \['inside', 'outside'\], got 'between'"):
        held_out_suite("SafetyPointStcircle", "between")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="count must be >= 1, got 0"):
        TaskDistribution("SafetyPointStcircle").draw(0)
    with pytest.raises(ValueError, match="start must be >= 0, got -1"):
        TaskDistribution("SafetyPointStcircle").draw(1, start=-1)


def test_drawing_needs_no_simulator() -> None:
    code = (
        "import sys\nfrom fsrl_ext.env.meta import TaskDistribution, held_out_suite\n"
        "TaskDistribution('SafetyPointStcircle').draw(3); held_out_suite('SafetyCarStbutton')\n"
        "sys.exit('safety_gymnasium' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
