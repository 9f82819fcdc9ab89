"""Summaries of runs: nothing of a run is lost that tables and figures show, and files of former runs stay."""

from pathlib import Path

import numpy as np
import pytest
from toys.studies import assert_refused, write_run

from fsrl_ext.cli import main
from fsrl_ext.report.files import in_json, read_json
from fsrl_ext.report.study import measures, read_study, study_table
from fsrl_ext.report.study.summary import MOST_POINTS, summarise, summary

TESTS = Path(__file__).parents[1]
# What the committed result files were made by, before summaries were part of the package, made of this run.
FORMER = TESTS / "report" / "data" / "summary_cpo_finished_0.1.0.json"


def test_a_former_run_has_its_former_summary():
    assert in_json(summary(TESTS / "saved_runs" / "cpo_finished_0.1.0")) == in_json(read_json(FORMER))


def both(folder, tmp_path, **settings):
    """The study of a run folder, and that of its summary."""
    (file,), skipped = summarise([folder], tmp_path / "results", **settings)
    assert not skipped
    return read_study([folder]).runs[0], read_study([file]).runs[0]


@pytest.mark.parametrize("limits", [(10.0,), (10.0, 7.0), (10.0, float("inf"))], ids=str)
def test_tables_of_a_summary_are_those_of_the_run(tmp_path, limits):
    costs = (5.0, 6.0)[: len(limits)]
    folder = write_run(tmp_path / "runs" / "x", limits=limits, best=(20.0, costs), last=(18.0, costs))
    run, small = both(folder, tmp_path)
    assert (run.settings, run.limits, run.seed) == (small.settings, small.limits, small.seed)
    assert (run.share_above, run.seconds) == (small.share_above, small.seconds)
    for which in ("best", "last"):
        there, kept = getattr(run, which), getattr(small, which)
        assert (there.return_mean, there.cost_mean) == (kept.return_mean, kept.cost_mean)
        assert measures.cost_tail(there) == measures.cost_tail(kept)
    for name in ("steps", "returns", "costs", "feasible"):
        np.testing.assert_array_equal(getattr(run.selections, name), getattr(small.selections, name))
    for name in ("steps", "returns", "costs", "violation"):
        np.testing.assert_allclose(getattr(run.training, name), getattr(small.training, name), rtol=1e-4)
    assert measures.cumulative_violation(run).kind == "exact"
    assert measures.cumulative_violation(small) == measures.cumulative_violation(run)
    columns = ["best-return", "best-cost", "CVaR-of-cost", "above", "violation", "feasible-selections"]
    tables = [study_table([x], columns=columns, form="csv")[0] for x in (folder, tmp_path / "results")]
    assert tables[0] == tables[1]


def test_a_thinned_curve_keeps_the_sum_of_the_violation_and_its_ends(tmp_path):
    rows = tuple((2 * i, float(i % 7), 12.0) for i in range(1, 501))
    folder = write_run(tmp_path / "runs" / "x", rows=rows)
    run, small = both(folder, tmp_path)
    assert len(small.training.steps) == MOST_POINTS
    assert small.training.steps[[0, -1]].tolist() == [2, 1000]
    assert measures.cumulative_violation(run).sums == (3500.0,)
    assert measures.cumulative_violation(small).sums == pytest.approx((3500.0,), rel=1e-4)


def test_a_run_that_recorded_no_violation_has_none(tmp_path):
    run, small = both(write_run(tmp_path / "runs" / "x", violation=False), tmp_path)
    assert run.training.violation is None
    assert small.training.violation is None


def test_a_run_in_which_no_episode_ended(tmp_path):
    _, small = both(write_run(tmp_path / "runs" / "x", rows=()), tmp_path)
    assert len(small.training.steps) == 0


def test_the_command_writes_a_file_for_each_finished_run(tmp_path, capsys):
    for seed in (0, 1):
        write_run(tmp_path / "runs" / f"run{seed}", seed=seed)
    write_run(tmp_path / "runs" / "cut", seed=2, status="interrupted")
    out = tmp_path / "results"
    arguments = ["summarise", str(tmp_path / "runs"), "--out", str(out), "--label", "long"]
    for _ in range(2):  # the same content again is no other content
        assert main(arguments) == 0
        printed = capsys.readouterr()
        files = [out / "Toy-v0" / "cvpo" / "long" / f"seed{seed}.json" for seed in (0, 1)]
        assert printed.out.splitlines() == [str(file) for file in files]
        assert "was interrupted" in printed.err
    assert sorted(x for x in out.rglob("*") if x.is_file()) == files
    assert {run.label for run in read_study([out]).runs} == {"long"}
    files[0].write_text("{}")
    assert_refused(arguments, "is there with other content; --replace replaces it", capsys)
    assert files[0].read_text() == "{}"
    assert main([*arguments, "--replace"]) == 0
    assert read_study([files[0]]).runs[0].seconds == 100.0


def test_what_cannot_be_summarised_is_one_line(tmp_path, capsys):
    write_run(tmp_path / "runs" / "a")
    write_run(tmp_path / "runs" / "b")
    out = ["--out", str(tmp_path / "results")]
    assert_refused(["summarise", str(tmp_path / "runs"), *out], "--label tells runs apart", capsys)
    assert_refused(["summarise", str(tmp_path / "no"), *out], "there is no folder", capsys)
    one = str(tmp_path / "runs" / "a")
    assert_refused(["summarise", one, *out, "--label", "../x"], "--label must be the name", capsys)
    assert not (tmp_path / "results").exists()
    assert main(["summarise", one, *out]) == 0
    capsys.readouterr()
    assert_refused(["summarise", str(tmp_path / "results"), *out], "are summaries already", capsys)
    (tmp_path / "runs" / "a" / "result.json").write_text("{")
    assert_refused(["summarise", one, *out], "result.json is damaged", capsys)
