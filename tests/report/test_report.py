"""Statistics and tables."""

import numpy as np
import pytest

from fsrl_ext.errors import RunFolderError
from fsrl_ext.report import plot_trajectories, read_progress, read_result, result_table, text_table
from fsrl_ext.report.files import check_new_file
from fsrl_ext.report.folder import RunFolder, checkpoint_file
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


def test_bootstrap_interval_is_repeatable_and_a_point_without_spread():
    values = np.random.default_rng(0).normal(size=20).tolist()
    low, high = bootstrap_interval(values)
    assert low < np.mean(values) < high
    assert (low, high) == bootstrap_interval(values)
    assert bootstrap_interval(values, confidence=0.5)[0] > low
    assert bootstrap_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)


def test_tables_align():
    table = text_table(["name", "x"], [["a", "1"], ["long name", "22"]])
    assert table.splitlines() == ["name        x", "-------------", "a           1", "long name  22"]


def test_brackets_are_text_and_long_rows_are_one_line_outside_a_terminal():
    interval, words = "[red]1.00, 2.00[/red] :smile:", "word " * 100
    lines = text_table(["", "interval"], [[words, interval]]).splitlines()
    assert lines[-1] == f"{words.strip()}{' ' * 3}{interval}"
    assert all(line == line.rstrip() for line in lines)


def test_a_narrow_terminal_folds_cells(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    lines = text_table(["name", "what"], [["a", "several words in a cell"]], left=(0, 1)).splitlines()
    assert lines[0] == "name  what"
    assert max(map(len, lines)) <= 20
    assert " ".join(" ".join(lines[2:]).split()) == "a several words in a cell"


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


def test_a_run_folder_is_laid_out_in_one_place(tmp_path):
    folder = RunFolder(tmp_path)
    assert checkpoint_file(tmp_path) == folder.best
    assert checkpoint_file(tmp_path, "last") == folder.last
    assert checkpoint_file(tmp_path / "some.pt", "last") == tmp_path / "some.pt"
    with pytest.raises(ValueError, match="checkpoint must be 'best' or 'last', got 'first'"):
        checkpoint_file(tmp_path, "first")


def test_new_files_overwrite_nothing(tmp_path):
    (tmp_path / "taken.json").touch()
    assert check_new_file(tmp_path / "new.json") == tmp_path / "new.json"
    for name, suffixes, words in (
        ("taken.json", (), "exists already; nothing was overwritten"),
        ("new.json", (".gif", ".mp4"), "must end in .gif or .mp4"),
        ("none/new.json", (), "there is no folder"),
    ):
        with pytest.raises(ValueError, match=words):
            check_new_file(tmp_path / name, suffixes)


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
