"""Statistics and tables."""

import numpy as np
import pytest

from fsrl_ext.errors import RunFolderError
from fsrl_ext.report import plot_trajectories, read_progress, read_result, result_table, text_table
from fsrl_ext.report.statistics import bootstrap_interval


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        low, high = bootstrap_interval(rng.normal(3.0, 1.0, 30), resamples=1000, seed=trial)
        hits += low <= 3.0 <= high
    assert 0.88 <= hits / 300 <= 0.98  # percentile intervals are a little short


def test_bootstrap_interval_of_one_seed_is_that_seed():
    assert bootstrap_interval([4.5]) == (4.5, 4.5)
    with pytest.raises(ValueError, match="one number per seed"):
        bootstrap_interval([])


def test_tables_align():
    table = text_table(["name", "x"], [["a", "1"], ["long name", "22"]])
    assert table.splitlines() == ["name        x", "-------------", "a           1", "long name  22"]


def evaluation(**kwargs):
    numbers = {"env_step": 10, "return_mean": 1.25, "return_stderr": 0.5}
    costs = {"cost_mean": [3.0, 4.0], "cost_stderr": [0.1, 0.2], "feasible": True}
    return numbers | costs | {"selected_as_feasible": True} | kwargs


def test_result_table_tells_an_infeasible_best_policy_by_name():
    result = {
        "config": {"cost_limit": [5.0, float("inf")], "final_episodes": 50},
        "best": evaluation(selected_as_feasible=False, feasible=False),
        "last": evaluation(),
        "share_above_limit": 0.25,
        "train_episodes": 40,
    }
    lines = result_table(result).splitlines()
    assert lines[2].startswith("least infeasible policy")
    assert lines[2].endswith("no")
    assert "3.0 ± 0.1, 4.0 ± 0.2" in lines[3]
    assert "5, inf" in lines[3]
    assert lines[-1] == "training episodes above the limit: 25% of 40"


def test_folders_that_are_no_runs_are_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"no progress\.csv"):
        read_progress(tmp_path)
    with pytest.raises(RunFolderError, match=r"no result\.json"):
        read_result(tmp_path)


def test_trajectories_are_drawn_over_circle_and_walls(tmp_path):
    angle = np.linspace(0, 6, 50)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    where = {"radius": 1.0, "wall": 0.8}
    plot_trajectories({"adapted": [circle]}, **where, path=tmp_path / "one.png")
    plot_trajectories({"before": [circle, 2 * circle], "after": []}, **where, path=tmp_path / "two.png")
    one, two = ((tmp_path / f"{name}.png").read_bytes() for name in ("one", "two"))
    assert one[:4] == two[:4] == b"\x89PNG"
    assert one != two
    with pytest.raises(ValueError, match="at least one trajectory, got none"):
        plot_trajectories({"adapted": []}, **where, path=tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"paths must be \[T, 2\], got \[50, 3\] in 'adapted'"):
        plot_trajectories({"adapted": [np.zeros((50, 3))]}, **where, path=tmp_path / "none.png")
