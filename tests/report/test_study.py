"""Reading, selecting and measuring runs."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from toys.studies import write_run, write_small

from fsrl_ext.errors import RunFolderError
from fsrl_ext.report.files import read_json, write_json
from fsrl_ext.report.progress import read_columns, read_progress
from fsrl_ext.report.study import measures
from fsrl_ext.report.study.collect import read_study
from fsrl_ext.report.study.read import read_run
from fsrl_ext.report.study.select import (
    default_fields,
    group,
    missing_seeds,
    mixed_settings,
    repeated_seeds,
    value_text,
    where,
)

SAVED = Path(__file__).parents[1] / "saved_runs"
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


class TestReading:
    def test_columns_are_those_of_the_whole_table(self):
        folder = SAVED / "cpo_finished_0.1.0"
        whole = read_progress(folder)
        chosen = read_columns(folder / "progress.csv", [*whole, "not/there"])
        np.testing.assert_array_equal(chosen.T[:-1], list(whole.values()))
        assert np.isnan(chosen[:, -1]).all()

    @pytest.mark.parametrize("line", ["1,2,3", "1,many"])
    def test_a_damaged_line_is_named(self, tmp_path, line):
        path = tmp_path / "progress.csv"
        path.write_text(f"env_step,x\n0,1\n{line}\n")
        with pytest.raises(RunFolderError, match=r"progress.csv is damaged in line 3"):
            read_columns(path, ["env_step", "x"])

    def test_a_line_that_is_being_written_is_left_out(self, tmp_path):
        path = tmp_path / "progress.csv"
        path.write_text("env_step,x\n0,1\n1,")
        assert read_columns(path, ["x"]).tolist() == [[1.0]]

    def test_a_run_folder_and_a_small_file(self, tmp_path):
        write_run(tmp_path / "b", seed=3)
        write_small(tmp_path / "Toy-v0" / "sac_lag" / "long" / "run" / "seed4.json")
        small, run = read_study([tmp_path]).runs
        assert (run.policy, run.task, run.seed, run.limits, run.label) == ("cvpo", "Toy-v0", 3, (10.0,), "")
        assert run.settings["gamma"] == 0.97
        assert run.settings["hidden_sizes"] == [16, 16]
        assert run.training.steps.tolist() == [250, 500, 1000]
        assert run.training.episodes.tolist() == [10, 10, 10]
        assert run.selections.feasible.tolist() == [True, False, True, True]
        assert (small.label, small.policy) == ("long/run", "sac_lag")
        assert small.training.episodes.tolist() == [20.0, 20.0]

    def test_every_committed_result_file_is_read(self):
        study = read_study([RESULTS])
        assert len(study.runs) == len(list(RESULTS.rglob("seed*.json")))
        assert not study.skipped
        assert {run.policy for run in study.runs} >= {"cvpo", "meta_cpo", "fsrl_cvpo"}

    def test_runs_of_earlier_versions_are_read_and_unfinished_ones_named(self):
        study = read_study([SAVED])
        assert [run.policy for run in study.runs] == ["cpo"]
        assert len(study.skipped) == 1
        assert "cvpo_interrupted_0.1.0 was interrupted at 1,000 of 3,200 steps" in study.skipped[0]

    def test_a_run_counts_once(self, tmp_path):
        write_run(tmp_path / "a")
        write_run(tmp_path / "copy")
        study = read_study([tmp_path, tmp_path / "a"])
        assert [run.path.name for run in study.runs] == ["a"]
        assert study.skipped == (f"{tmp_path}/copy is the same run as {tmp_path}/a",)

    def test_a_run_without_a_result_is_named(self, tmp_path):
        write_run(tmp_path / "a")
        (write_run(tmp_path / "b", seed=1) / "result.json").unlink()
        study = read_study([tmp_path])
        assert study.skipped == (f"{tmp_path}/b has no result.json: the run has not finished",)
        with pytest.raises(RunFolderError, match=r"no run has finished: .*b has no result.json"):
            read_study([tmp_path / "b"])

    @pytest.mark.parametrize(("name", "half"), [("result.json", "{\n"), ("progress.csv", "env_step,x\n7\n")])
    def test_a_damaged_file_stops_unless_it_is_to_be_left_out(self, tmp_path, name, half):
        write_run(tmp_path / "a")
        (write_run(tmp_path / "b", seed=1) / name).write_text(half)
        with pytest.raises(RunFolderError, match=f"b/{name} is damaged.*--skip-damaged"):
            read_study([tmp_path])
        study = read_study([tmp_path], skip_damaged=True)
        assert len(study.runs) == 1
        assert "is damaged" in study.skipped[0]

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"config": 3}', "null"])
    def test_a_small_file_that_is_none_is_named(self, tmp_path, text):
        path = tmp_path / "seed0.json"
        path.write_text(text)
        with pytest.raises(RunFolderError, match=r"seed0\.json is damaged or no result of a run"):
            read_study([tmp_path])

    def test_folders_without_runs(self, tmp_path):
        with pytest.raises(RunFolderError, match="has no runs"):
            read_study([tmp_path])
        with pytest.raises(RunFolderError, match="there is no folder"):
            read_study([tmp_path / "nothing"])
        (tmp_path / "x.json").write_text("{}")
        with pytest.raises(RunFolderError, match="is no run"):
            read_study([tmp_path / "x.json"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for i, (policy, seed, limit) in enumerate(
        [("cvpo", 0, 5.0), ("cvpo", 1, 5.0), ("cvpo", 0, 10.0), ("sac_lag", 0, 10.0)]
    ):
        settings = {"batch_size": 64} if policy == "sac_lag" else {}
        write_run(folder / str(i), policy=policy, seed=seed, limits=(limit,), **settings)
    return read_study([folder]).runs


class TestSelecting:
    @pytest.mark.parametrize(
        ("conditions", "expected"),
        [
            ([], 4),
            (["policy=cvpo"], 3),
            (["policy=cvpo,sac_lag", "cost_limit=10"], 2),
            (["cost-limit=1e1"], 2),
            (["hidden_sizes=16/16", "gamma=.97"], 4),
            (["cost_limit_start=None", "label=none"], 4),
            (["batch_size=64"], 1),
        ],
    )
    def test_where(self, runs, conditions, expected):
        assert len(where(runs, conditions)) == expected

    @pytest.mark.parametrize(
        ("conditions", "message"),
        [
            (["polcy=cvpo"], "--where must name a field .* got 'polcy'; did you mean 'policy'"),
            (["policy"], "--where must be field=value"),
            (["policy="], "--where must be field=value"),
            (["policy=cvp"], "--where policy must be one of cvpo, sac_lag, got cvp"),
            (["policy=sac_lag", "cost_limit=5"], "no run meets --where policy=sac_lag cost_limit=5"),
        ],
    )
    def test_what_selects_nothing_is_named(self, runs, conditions, message):
        with pytest.raises(ValueError, match=message):
            where(runs, conditions)

    def test_limits_and_budgets_are_never_in_one_group(self, runs):
        groups = group(runs, default_fields(runs))
        assert [(x.name, x.limits, x.seeds) for x in groups] == [
            ("cvpo", (5.0,), (0, 1)),
            ("cvpo", (10.0,), (0,)),
            ("sac_lag", (10.0,), (0,)),
        ]
        assert [x.name for x in group(runs, ["batch_size"])] == ["64", "-", "-"]
        assert not missing_seeds(groups)
        assert not repeated_seeds(groups)

    def test_what_weakens_a_group_is_named(self, tmp_path):
        for i, (policy, seed, gamma) in enumerate([("a", 0, 0.9), ("a", 0, 0.99), ("b", 2, 0.9)]):
            write_run(tmp_path / str(i), policy=policy, seed=seed, gamma=gamma)
        groups = group(read_study([tmp_path]).runs, ["policy"])
        assert missing_seeds(groups) == [
            "seeds that other rows have are missing from Toy-v0 a (2), Toy-v0 b (0)"
        ]
        assert repeated_seeds(groups) == ["Toy-v0 a: more than one run of seed 0"]
        assert "different gamma (0.9, 0.99) are in one row" in mixed_settings(groups)[0]
        assert len(mixed_settings(groups)) == 1

    def test_values_are_written_as_they_are_given(self):
        assert [*map(value_text, (None, True, 10.0, [1, 2.5], math.inf, "mean"))] == [
            "none", "true", "10", "1/2.5", "inf", "mean",
        ]  # fmt: skip


class TestMeasures:
    @pytest.fixture
    def run(self, tmp_path):
        return lambda **settings: read_run(write_run(tmp_path / "run", **settings))

    @pytest.mark.parametrize(
        ("best", "last", "collapsed"),
        [
            (20.0, 10.0, False),
            (20.0, 9.9, True),
            (-10.0, -15.0, False),
            (-10.0, -15.1, True),
            (0.0, 0.0, False),
        ],
    )
    def test_collapse(self, run, best, last, collapsed):
        assert measures.has_collapsed(run(best=(best, (0.0,)), last=(last, (0.0,)))) is collapsed

    @pytest.mark.parametrize(
        ("values", "share", "expected"),
        [
            (np.arange(10.0), 0.1, 9.0),
            (np.arange(10.0), 0.25, (9 + 8 + 0.5 * 7) / 2.5),
            (np.arange(10.0), 1.0, 4.5),
            (np.array([3.0]), 0.1, 3.0),
        ],
    )
    def test_cvar(self, values, share, expected):
        assert measures.tail_mean(np.random.default_rng(0).permutation(values), share) == pytest.approx(
            expected
        )

    def test_cvar_is_the_minimum_of_rockafellar_and_uryasev(self):
        costs = np.random.default_rng(3).exponential(size=53)
        thresholds = np.sort(costs)
        excess = np.maximum(costs - thresholds[:, None], 0).mean(1)
        assert measures.tail_mean(costs, 0.1) == pytest.approx((thresholds + excess / 0.1).min())

    def test_violation_is_as_exact_as_the_files(self, run, tmp_path):
        assert measures.cumulative_violation(run()) == measures.Violation((21.0,), "exact")
        bound = read_run(write_run(tmp_path / "old", violation=False))
        # Ten episodes of mean cost 20, ten of 12 and ten of 8, for a limit of 10.
        assert measures.cumulative_violation(bound) == measures.Violation((120.0,), "at least")
        (small,) = read_study([write_small(tmp_path / "seed0.json")]).runs
        assert measures.cumulative_violation(small) == measures.Violation((80.0,), "about")

    def test_a_run_that_recorded_its_violation_only_in_part_has_a_bound(self, tmp_path):
        folder = write_run(tmp_path / "resumed")
        path = folder / "progress.csv"
        text = path.read_text()
        without, changes = re.subn(r"^(250,.*,)7\.0$", r"\1", text, flags=re.MULTILINE)
        assert changes == 1
        path.write_text(without)
        assert measures.cumulative_violation(read_run(folder)) == measures.Violation((120.0,), "at least")

    def test_violation_of_several_costs_and_of_no_limit(self, run):
        done = run(limits=(10.0, math.inf), best=(1.0, (0.0, 5.0)), last=(1.0, (0.0, 5.0)), violation=False)
        assert measures.cumulative_violation(done).sums == (120.0, 0.0)

    def test_nan_in_the_curve_is_left_out(self, run):
        done = run(rows=((250, 1.0, 20.0), (500, math.nan, math.nan), (1000, 9.0, 8.0)), violation=False)
        assert done.training.steps.tolist() == [250, 1000]
        assert measures.cumulative_violation(done).sums == (100.0,)

    def test_a_run_in_which_no_episode_ended(self, run):
        done = run(rows=())
        assert done.share_above is None
        assert measures.late_training(done) is None
        assert measures.cumulative_violation(done).sums == (0.0,)

    def test_late_training_weighs_by_episodes(self, tmp_path):
        folder = write_run(tmp_path / "a", rows=((850, 0.0, 0.0), (950, 2.0, 4.0), (1000, 8.0, 1.0)))
        path = folder / "progress.csv"
        path.write_text(path.read_text().replace("950,,10,", "950,,30,"))
        assert measures.late_training(read_run(folder)) == (pytest.approx(3.5), (pytest.approx(3.25),))

    def test_the_first_selection_that_reaches_a_return_is_feasible(self, run):
        done = run()
        assert measures.steps_to(done, 5.0) == 250
        assert measures.steps_to(done, 11.0) == 750  # the second one has 12, and is infeasible
        assert measures.steps_to(done, 21.0) is None
        assert measures.seconds_at(done, 750) == 75.0

    def test_a_run_without_selections_reaches_nothing(self, run):
        assert measures.steps_to(run(selections=()), 0.0) is None

    def test_the_tail_needs_episodes(self, run, tmp_path):
        assert measures.cost_tail(run(best=(1.0, (6.0,))).best) == (pytest.approx(12.0),)
        (small,) = read_study([write_small(tmp_path / "seed0.json")]).runs
        assert measures.cost_tail(small.best) is None


def test_a_small_file_keeps_several_costs_apart(tmp_path):
    path = write_small(tmp_path / "seed0.json")
    data = read_json(path)
    data["config"]["cost_limit"] = [10.0, 3.0]
    for which in ("best", "last"):
        data[which]["cost_mean"] = [1.0, 2.0]
    write_json(path, data)
    (run,) = read_study([path]).runs
    assert run.best.cost_mean == (1.0, 2.0)
    # The file has the curve of the first cost alone.
    first, second = measures.cumulative_violation(run).sums
    assert first == 80.0
    assert math.isnan(second)
    data["best"]["cost_mean"] = [1.0]
    path.write_text(json.dumps(data))
    with pytest.raises(RunFolderError, match="1 costs for 2 limits"):
        read_study([path])
