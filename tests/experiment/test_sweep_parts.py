"""What a sweep consists of, without Ray: objective, overview, folders and the outcome of trials."""

import io
import itertools
import json
import math
import shutil

import numpy as np
import pytest
from toys.runs import resumable_config, run_killed
from toys.settings import small_config

from fsrl_ext.data.interrupts import InterruptGuard
from fsrl_ext.errors import RunFolderError
from fsrl_ext.experiment.sweeps.child import Reporter, train
from fsrl_ext.experiment.sweeps.drive import outcome_of
from fsrl_ext.experiment.sweeps.folder import LOG_TAIL, StudyFolder
from fsrl_ext.experiment.sweeps.objective import FAILED, LOWEST_FEASIBLE, best_objective, objective_of
from fsrl_ext.experiment.sweeps.overview import Newest, Overview, read_newest
from fsrl_ext.experiment.sweeps.watch import TrialWatch
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.trainer import Evaluation


def judged(returns, costs, limits=(5.0,)):
    costs = np.array(costs, dtype=float).reshape(len(returns), -1)
    return Evaluation(env_step=100, returns=np.array(returns), costs=costs, cost_limit=limits)


RANKED = [
    judged([-3e9, -3e9], [9.0, 9.0]),
    judged([50.0, 60.0], [8.0, 8.0]),
    judged([10.0, 10.0], [4.0, 7.0]),
    judged([-2e9, -2e9], [4.0, 4.0]),
    judged([-20.0, -10.0], [0.0, 5.0], (5.0,)),
    judged([1.0, 3.0], [4.0, 4.0]),
]


def test_the_objective_ranks_as_the_choice_of_the_best_policy_does():
    values = [objective_of(x) for x in RANKED]
    assert values == sorted(values)
    assert all(b.is_better_than(a) for a, b in itertools.pairwise(RANKED))
    assert all(math.isfinite(x) and x >= FAILED for x in values)
    assert [x >= LOWEST_FEASIBLE for x in values] == [x.feasible for x in RANKED]
    assert values[-1] == 2.0
    # Mean 8 without spread exceeds the limit 5 by 3/5.
    assert values[1] == pytest.approx(-1e9 * (1 + 0.6 / 1.6), rel=1e-12)


@pytest.mark.parametrize("limits", [(5.0,), (0.5,), (math.inf,), (5.0, math.inf), (5.0, 1.0)])
def test_selections_in_a_file_have_the_objective_of_their_evaluations(limits):
    rng = np.random.default_rng(0)
    evaluations = [judged(rng.normal(size=4), rng.uniform(0, 8, (4, len(limits))), limits) for _ in range(20)]
    for number in range(1, 20):
        best = max(objective_of(x) for x in evaluations[:number])
        selections = json.loads(json.dumps([x.summary() for x in evaluations[:number]]))
        assert best_objective(selections, limits) == pytest.approx(best, rel=1e-12)
    assert best_objective([], limits) == FAILED


def test_what_cannot_be_continued_is_renamed_and_kept(tmp_path):
    study = StudyFolder(tmp_path)
    for count in (1, 2):
        study.run("a").checkpoints.mkdir(parents=True)
        study.run("a").config.write_text(f"{count}")
        target = study.set_aside("a")
        assert target == tmp_path / f"a.broken-{count}"
        assert (target / "config.json.broken").read_text() == f"{count}"
        assert not study.run("a").path.exists()


def test_the_end_of_a_log(tmp_path):
    study = StudyFolder(tmp_path)
    assert study.end_of_log("a") == ""
    study.logs.mkdir()
    study.log("a").write_text("x" * 9000 + "\n" + "".join(f"line {i}\n\n" for i in range(10)))
    assert study.end_of_log("a") == "\n".join(f"line {i}" for i in range(10 - LOG_TAIL, 10))


def write_rows(folder, *rows):
    header = "env_step,train/returns_stat/mean,train/costs_stat/0/mean,train/costs_stat/0/std,update/loss"
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.progress.write_text("\r\n".join((header, *rows)))


def test_the_newest_numbers_are_those_of_complete_rows(tmp_path):
    folder = RunFolder(tmp_path)
    assert read_newest(folder.progress) is None
    write_rows(folder, "40,1.5")
    assert read_newest(folder.progress) is None
    write_rows(folder, "40,,,,0.5", "")
    assert read_newest(folder.progress) == Newest(40, None, ())
    write_rows(folder, "40,1.5,2.5,0,", "80,,,,0.5", "120,9,9,9,")
    assert read_newest(folder.progress) == Newest(80, 1.5, (2.5,))
    write_rows(folder, *(f"{step},{step}.5,2.5,0," for step in range(40, 400_000, 40)), "")
    assert read_newest(folder.progress) == Newest(399_960, 399_960.5, (2.5,))


def overview(tmp_path, *, total=4):
    config = small_config("td3_lag", cost_limit=2.0)
    return Overview(StudyFolder(tmp_path), {"a": config}, total=total, finished=1, show=True)


def test_without_a_terminal_starts_and_ends_are_lines(tmp_path, capsys):
    (tmp_path / "logs").mkdir()
    StudyFolder(tmp_path).log("b").write_text("warning\n[bold]Error: nan\n")
    shown = overview(tmp_path)
    shown.began("a")
    shown.refresh()
    shown.ended("a", "finished")
    shown.began("b")
    shown.ended("b", "failed")
    shown.close()
    assert capsys.readouterr().err.splitlines() == [
        "started a (1 finished, 0 failed, 1 running, 2 waiting)",
        "finished a (2 finished, 0 failed, 0 running, 2 waiting)",
        "started b (2 finished, 0 failed, 1 running, 1 waiting)",
        "failed b (2 finished, 1 failed, 0 running, 1 waiting)",
        "    warning",
        "    [bold]Error: nan",
    ]


def test_a_terminal_has_a_table_of_the_running_trials(tmp_path, monkeypatch, capsys):
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "100"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    shown = overview(tmp_path, total=None)
    shown.began("a")
    write_rows(StudyFolder(tmp_path).run("a"), "40,1.5,2.25,0,", "")
    shown._table(10.0)
    write_rows(StudyFolder(tmp_path).run("a"), "40,1.5,2.25,0,", "140,2.5,1.25,0,", "")
    table, *_ = shown._table(20.0).renderables
    row = [next(iter(column.cells)) for column in table.columns]
    assert row == ["a", "140 of 800", "2.5", "1.2", "2", "10", "1:06"]
    shown.refresh()
    shown.close()
    assert "140 of 800" in capsys.readouterr().err
    write_rows(StudyFolder(tmp_path).run("a"), "800,1.5,2.25,0,", "")
    table, *_ = shown._table(30.0).renderables
    assert [next(iter(column.cells)) for column in table.columns][-1] == "judging"


class Signals(InterruptGuard):
    """A guard that has held a signal back, or not."""

    waiting = False


def test_trials_end_in_one_of_four_ways(tmp_path, capsys):
    (tmp_path / "logs").mkdir()
    guard = Signals()
    watch = TrialWatch(
        overview(tmp_path), lambda settings: settings["run"], guard, tmp_path / ".stop", StudyFolder(tmp_path)
    )
    for name, result in (("a", {"end": "finished"}), ("b", {"end": "failed"}), ("c", {"objective": 1.0})):
        watch.began({"run": name})
        watch.reported({"run": name}, result)
        watch.ended({"run": name}, result)
    watch.began({"run": "lost"})
    watch.lost({"run": "lost"}, "the node died")
    guard.waiting = True
    assert not (tmp_path / ".stop").exists()
    watch.step()
    assert (tmp_path / ".stop").exists()
    watch.began({"run": "d"})
    watch.ended({"run": "d"}, {})
    assert watch.ends == {"a": "finished", "b": "failed", "c": "stopped", "lost": "failed", "d": "unfinished"}
    assert watch.objectives == {"c": 1.0}
    assert StudyFolder(tmp_path).end_of_log("lost") == "the node died"
    outcome = outcome_of({name: name == "a" for name in [*watch.ends, "e"]}, watch.ends)
    assert (outcome.finished, outcome.failed) == (("a",), ("b", "lost"))
    assert (outcome.stopped, outcome.unfinished) == (("c",), ("d", "e"))


def test_a_process_continues_what_it_can_and_begins_anew_what_it_cannot(tmp_path, capsys):
    config = resumable_config("td3_lag", steps=400)
    job = {"study": str(tmp_path), "name": "run", "config": config.as_dict(), "command": "x", "cores": 1}
    run_killed(config, 100, tmp_path)
    shutil.copytree(tmp_path / "run", tmp_path / "kept")
    reports = io.StringIO()
    result = train(job, Reporter(reports))
    assert (result["status"], len(result["resumed"])) == ("finished", 1)
    assert "run is continued" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "kept").rename(tmp_path / "run")
    snapshot = RunFolder(tmp_path / "run").snapshot
    snapshot.write_bytes(snapshot.read_bytes()[:-1])
    fresh = train(job, Reporter(reports))
    assert (fresh["status"], "resumed" in fresh, fresh["command"]) == ("finished", False, "x")
    assert f"it was renamed to {tmp_path / 'run.broken-1'}" in capsys.readouterr().err
    assert fresh["selections"] == result["selections"]
    replayed = io.StringIO()
    assert train(job, Reporter(replayed)) == fresh  # it is not trained again
    assert [json.loads(x)["env_step"] for x in replayed.getvalue().splitlines()] == [
        x["env_step"] for x in fresh["selections"][:-1]
    ]
    assert replayed.getvalue() == "".join(reports.getvalue().splitlines(keepends=True)[-5:])
    other = resumable_config("td3_lag", steps=500)
    with pytest.raises(
        RunFolderError, match="run has other settings: steps is 400 there and 500 in the plan"
    ):
        train({**job, "config": other.as_dict()}, Reporter(reports))
