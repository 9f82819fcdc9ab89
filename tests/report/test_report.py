"""Statistics and tables."""

import numpy as np
import pytest

from fsrl_ext.errors import RunFolderError
from fsrl_ext.report import plot_trajectories, read_progress, read_result, result_table, text_table
from fsrl_ext.report.files import check_new_file
from fsrl_ext.report.folder import RunFolder, checkpoint_file
from fsrl_ext.report.statistics import (
    caution,
    cost_interval,
    mean_interval,
    mean_text,
    share_interval,
    share_text,
)
from fsrl_ext.report.table import error_text


def test_mean_intervals_of_three_seeds_hold_the_mean_of_normal_values_95_times_in_100():
    samples = np.random.default_rng(0).normal(3.0, 1.0, (10_000, 3))
    low, high = np.array([mean_interval(row) for row in samples.tolist()]).T
    assert 0.94 <= ((low <= 3.0) & (high >= 3.0)).mean() <= 0.96


def test_mean_intervals_are_those_of_a_table_of_student_t():
    low, high = mean_interval([1.0, 2.0, 3.0])
    np.testing.assert_allclose([low, high], [2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5], rtol=1e-4)
    assert mean_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
    assert mean_interval([4.5]) is None
    with pytest.raises(ValueError, match=r"one number per observation, got shape \[0\]"):
        mean_interval([])
    with pytest.raises(ValueError, match=r"values must be 0 to 1, got 0\.5 to 2"):
        mean_interval([0.5, 2.0], lowest=0.0, highest=1.0)


def test_intervals_end_where_a_quantity_does():
    low, high = mean_interval([0.0, 0.0, 1.0], lowest=0.0, highest=1.0)
    assert (low, high) == (0.0, 1.0)
    uncut = mean_interval([0.0, 0.0, 9.0])
    assert uncut[0] < 0.0
    assert cost_interval([0.0, 0.0, 9.0]) == (0.0, uncut[1])
    # A task may reward with negative costs; then 0 is not the least one.
    assert cost_interval([-1.0, 0.0, 9.0])[0] < -1.0


def test_share_intervals_are_those_of_clopper_and_pearson():
    np.testing.assert_allclose(share_interval(3, 3), [0.025 ** (1 / 3), 1.0])
    np.testing.assert_allclose(share_interval(0, 50), [0.0, 1 - 0.025 ** (1 / 50)])
    np.testing.assert_allclose(share_interval(2, 3), [0.0943, 0.9916], atol=1e-4)
    for count, total in ((4, 3), (-1, 3), (0, 0)):
        with pytest.raises(ValueError, match=f"got {count} of {total}"):
            share_interval(count, total)


def test_few_values_are_a_warning():
    assert caution([5, 50], "seeds") == ""
    assert "warning: fewer than 5 seeds (1, 3)." in caution([3, 8, 3, 1], "seeds")


def test_texts_of_single_values_claim_no_interval():
    assert mean_text(2.0, (1.25, 2.75), 2) == "2.00 [1.25, 2.75]"
    assert mean_text(2.0, None) == "2.0"
    assert mean_text(1.0, (-0.04, 2.0)) == "1.0 [0.0, 2.0]"
    assert share_text(0.5, (0.1, 0.9)) == "50% [10%, 90%]"
    assert share_text(0.5, None) == "50%"
    assert error_text(2.0, 0.0, 1) == "2.0"
    assert error_text(2.0, 0.0, 2) == "2.0 ± 0.0"


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


def result(best, last, **kwargs):
    return {
        "config": {"cost_limit": [5.0, float("inf")], "final_episodes": 50},
        "best": best,
        "last": last,
        "share_above_limit": 0.25,
        "train_episodes": 4_000,
    } | kwargs


@pytest.mark.parametrize("selected", [True, False])
@pytest.mark.parametrize("final", [True, False])
def test_result_table_names_the_verdicts_of_selection_and_final_evaluation(selected, final):
    best = evaluation(selected_as_feasible=selected, feasible=final)
    lines = result_table(result(best, evaluation())).splitlines()
    assert lines[0].endswith("selected as feasible  feasible now")
    yes = {True: "yes", False: "no"}
    assert lines[2].split()[:2] == ["best", "policy"]
    assert lines[2].split()[-2:] == [yes[selected], yes[final]]
    assert lines[3].split()[-2:] == ["-", "yes"]
    assert "3.0 ± 0.1, 4.0 ± 0.2" in lines[3]
    assert "5, inf" in lines[3]
    assert ("no policy was feasible in a selection" in lines[5]) is not selected
    assert lines[-1] == "training episodes above the limit: 25% of 4,000"


def test_result_table_of_a_run_without_an_ended_episode_or_a_limit_gives_no_verdict():
    none = result(evaluation(), evaluation(), train_episodes=0, share_above_limit=0.0)
    last = result_table(none).splitlines()[-1]
    assert last == "training episodes above the limit: unknown, no episode ended"
    free = result(evaluation(), evaluation())
    free["config"]["cost_limit"] = [float("inf")] * 2
    lines = result_table(free).splitlines()
    assert [line.split()[-2:] for line in lines[2:4]] == [["-", "-"], ["-", "-"]]
    assert lines[-1].endswith("no cost is limited)")


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


def test_rounding_between_machines_does_not_decide_a_digit():
    exact = 8.35
    for value in (exact, np.nextafter(exact, 0), np.nextafter(exact, 9), exact + 1e-13):
        assert mean_text(float(value), None) == mean_text(exact, None)
