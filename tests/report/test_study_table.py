"""The tables of a study: rows, marks, formats, scores, and published results beside them."""

import csv
import io
import math

import numpy as np
import pytest
from toys.studies import assert_refused, write_run, write_small

from fsrl_ext.cli import main
from fsrl_ext.cli.terminal import _IN_ASCII
from fsrl_ext.report.study.collect import read_study
from fsrl_ext.report.study.panels import make_panels
from fsrl_ext.report.study.published import PROTOCOLS, anchors, best_published
from fsrl_ext.report.study.scores import score_table
from fsrl_ext.report.study.select import group
from fsrl_ext.report.study.tables import study_table


def study(folder, runs):
    """Write a run for each dictionary of :func:`write_run`'s arguments."""
    for i, settings in enumerate(runs):
        write_run(folder / f"run{i:03}", **settings)
    return folder


def rows(folder, part="policies", **settings):
    """The CSV rows of a part of the table."""
    text, _ = study_table([folder], form="csv", parts=[part], **settings)
    return list(csv.DictReader(io.StringIO(text)))


def seeds(count, **settings):
    return [{"seed": seed, **settings} for seed in range(count)]


class TestChosenColumns:
    def csv(self, folder, columns, **settings):
        text, _ = study_table([folder], form="csv", columns=columns, **settings)
        return list(csv.DictReader(io.StringIO(text)))

    def test_columns_of_both_tables_and_of_the_selections(self, tmp_path):
        selections = ((5.0, False), (12.0, True), (15.0, True), (20.0, False))
        study(tmp_path, [{"seed": 0}, {"seed": 1, "selections": selections}])
        columns = ["best-cost", "CVaR of cost", "above", "selected-as-feasible", "feasible-selections"]
        (row,) = self.csv(tmp_path, [*columns, "first-feasible"])
        assert list(row)[:4] == ["task", "policy", "limit", "steps"]
        assert (row["best_cost_mean"], row["best_cost_cvar_mean"], row["share_above"]) == ("5", "10", "0.25")
        assert row["selected_as_feasible"] == "1"  # the best policy is that of step 1,000
        assert (row["feasible_selections"], row["selections"]) == ("5", "8")
        assert row["first_feasible"] == "375"  # 250 and 500
        assert "last_return_mean" not in row

    def test_training_episodes_before_a_step(self, tmp_path):
        """Rows end at 250, 500 and 1,000 steps with ten episodes each."""
        study(
            tmp_path, [{"seed": 0}, {"seed": 1, "rows": ((250, 3.0, 10.0), (500, 7.0, 8.0), (900, 1.0, 1.0))}]
        )
        (row,) = self.csv(tmp_path, [], at=[500, 1000, 2000], window=250)
        assert (row["return_at_500_mean"], row["cost_at_500_mean"]) == ("6", "10")
        assert (row["return_at_1000_mean"], row["cost_at_1000_mean"]) == ("5", "4.5")
        assert row["return_at_2000_mean"] == ""
        (row,) = self.csv(tmp_path, [], at=[500], window=251)
        assert (row["return_at_500_mean"], row["cost_at_500_mean"]) == ("4", "12.5")
        text, _ = study_table([tmp_path], at=[500, 2000], window=250)
        assert "6.0, 10.0" in text
        assert text.splitlines()[4].endswith(" -")

    def test_the_notes_are_those_of_the_columns(self, tmp_path):
        study(tmp_path, [{"seed": 0}])
        text, _ = study_table([tmp_path], columns=["above"])
        assert "above: share of all" in text
        assert "collapsed" not in text
        assert "warning: fewer than 5 seeds" in text

    @pytest.mark.parametrize("form", ["text", "markdown", "latex"])
    def test_a_bare_table_has_no_title_and_no_notes(self, tmp_path, form):
        study(tmp_path, [{"seed": 0}])
        whole, _ = study_table([tmp_path], parts=["policies"], form=form)
        bare, _ = study_table([tmp_path], parts=["policies"], form=form, bare=True)
        assert bare in whole
        for text in ("Final policies", "fewer than 5 seeds"):
            assert text in whole
            assert text not in bare


class TestPolicies:
    def test_numbers(self, tmp_path):
        study(
            tmp_path,
            [
                {"seed": 0, "best": (20.0, (4.0,)), "last": (9.0, (20.0,))},
                {"seed": 1, "best": (22.0, (8.0,)), "last": (21.0, (2.0,))},
                {"seed": 2, "best": (24.0, (12.0,)), "last": (30.0, (2.0,))},
            ],
        )
        (row,) = rows(tmp_path)
        assert (row["task"], row["policy"], row["limit"], row["steps"]) == ("Toy-v0", "cvpo", "10", "1000")
        assert float(row["best_return_mean"]) == 22.0
        half = 4.302652729911275 * 2 / math.sqrt(3)  # Student t with two degrees of freedom
        assert float(row["best_return_low"]) == pytest.approx(22 - half)
        assert (row["best_feasible"], row["last_feasible"], row["collapsed"]) == ("2", "2", "1")
        (row,) = rows(tmp_path, "training")
        assert float(row["share_above"]) == 0.25
        assert (row["violation_mean"], row["violation_kind"]) == ("21", "exact")
        assert float(row["best_cost_cvar_mean"]) == 16.0
        # The target is 90% of 22: the selection at 1,000 steps has 20.
        assert (row["reached"], row["target"], row["steps_to_it"]) == ("3", "19.8", "1000")

    def test_an_infeasible_row_is_marked_and_never_bold(self, tmp_path):
        study(
            tmp_path,
            [
                *seeds(2, policy="a", best=(99.0, (11.0,))),
                *seeds(2, policy="b", best=(20.0, (10.0,))),
                *seeds(2, policy="c", best=(15.0, (0.0,))),
            ],
        )
        text, _ = study_table([tmp_path])
        assert "99.0 [99.0, 99.0] !" in text
        assert "*99.0" not in text
        assert "*20.0 [20.0, 20.0]" in text
        assert "*15.0" not in text
        markdown, _ = study_table([tmp_path], form="markdown")
        assert "**20.0 [20.0, 20.0]**" in markdown
        latex, _ = study_table([tmp_path], form="latex")
        assert r"\textbf{20.0 [20.0, 20.0]}" in latex
        assert r"\textbf{99.0" not in latex

    def test_ties_are_both_bold_and_a_row_alone_is_not(self, tmp_path):
        study(tmp_path, [{"policy": "a"}, {"policy": "b"}, {"policy": "b", "task": "Other-v0"}])
        text, _ = study_table([tmp_path], parts=["policies"])
        assert text.count("*20.0") == 2

    def test_if_all_are_infeasible_nothing_is_bold_and_nothing_reached(self, tmp_path):
        study(tmp_path, [{"policy": p, "best": (20.0, (30.0,)), "last": (20.0, (30.0,))} for p in "ab"])
        text, _ = study_table([tmp_path])
        assert "*" not in text.replace("bold (*", "")
        assert [row["reached"] for row in rows(tmp_path, "training")] == ["", ""]
        assert [row["best_feasible"] for row in rows(tmp_path)] == ["0", "0"]
        assert [row["iqm"] for row in rows(tmp_path, "scores")] == ["0", "0"]
        (row, _) = rows(tmp_path, "improvement")
        assert row["over b"] == "0.5"

    def test_several_costs_each_have_their_limit(self, tmp_path):
        limits = (10.0, 3.0)
        study(
            tmp_path,
            [
                {"policy": "a", "limits": limits, "best": (20.0, (1.0, 4.0)), "last": (1.0, (0.0, 0.0))},
                {"policy": "b", "limits": limits, "best": (10.0, (9.0, 3.0)), "last": (1.0, (0.0, 0.0))},
            ],
        )
        text, _ = study_table([tmp_path], parts=["policies", "training"])
        assert "20.0 !" in text
        assert "1.0 / 4.0" in text
        assert "10/3" in text
        first = rows(tmp_path)[0]
        assert (first["best_cost0_mean"], first["best_cost1_mean"], first["best_within_limit"]) == (
            "1",
            "4",
            "false",
        )

    def test_without_a_limit_there_is_no_verdict(self, tmp_path):
        study(tmp_path, [{"limits": (math.inf,), "best": (20.0, (400.0,)), "last": (20.0, (400.0,))}])
        (row,) = rows(tmp_path)
        assert (row["best_feasible"], row["best_within_limit"], row["limit"]) == ("", "true", "inf")
        (row,) = rows(tmp_path, "training")
        assert row["share_above"] == ""
        assert "violation_mean" not in row
        assert "!" not in study_table([tmp_path])[0]

    def test_result_files_stand_beside_run_folders(self, tmp_path):
        study(tmp_path, seeds(2))
        write_small(tmp_path / "Toy-v0" / "sac_lag" / "long" / "seed0.json")
        small, run = sorted(rows(tmp_path), key=lambda row: row["policy"], reverse=True)
        assert (small["policy"], small["label"], run["label"]) == ("sac_lag", "long", "none")
        assert small["collapsed"] == "1"
        assert "≈ 80" in study_table([tmp_path], parts=["training"])[0]

    def test_few_seeds_and_missing_ones_are_said(self, tmp_path):
        study(tmp_path, [*seeds(2, policy="a"), *seeds(1, policy="b")])
        text = " ".join(study_table([tmp_path])[0].split())
        assert "warning: seeds that other rows have are missing from Toy-v0 b (1)" in text
        assert "fewer than 5 seeds (1, 2)" in text
        assert "fewer than 5 seeds per task (1, 2)" in text

    def test_runs_without_selections_and_without_episodes(self, tmp_path):
        study(tmp_path, [{"selections": (), "rows": ()}])
        (row,) = rows(tmp_path, "training")
        assert (row["reached"], row["steps_to_it"], row["training_return_mean"], row["share_above"]) == (
            "0",
            "",
            "",
            "",
        )

    def test_nan_of_a_peer_is_no_number(self, tmp_path):
        write_small(
            tmp_path / "seed0.json", curve={"env_step": [1000], "train_return": [None], "train_cost": [None]}
        )
        (row,) = rows(tmp_path, "training")
        assert row["training_return_mean"] == ""
        assert row["violation_mean"] == ""

    def test_every_character_has_a_counterpart_in_ascii(self, tmp_path):
        study(tmp_path, [{"violation": False, "task": "SafetyHopperVelocity-v1"}])
        write_small(tmp_path / "Toy-v0" / "sac_lag" / "seed0.json")
        text, _ = study_table([tmp_path], published=True)
        beyond = {x for x in text if not x.isascii()}
        assert beyond == set("≥≈±")
        assert beyond <= set(_IN_ASCII)


class TestScores:
    def table(self, folder, runs, **settings):
        return score_table(group(read_study([study(folder, runs)]).runs, ["policy"]), **settings)

    def test_an_infeasible_policy_is_lost(self, tmp_path):
        table = self.table(
            tmp_path,
            [
                {"policy": "a", "seed": 0, "best": (20.0, (5.0,))},
                {"policy": "a", "seed": 1, "best": (90.0, (14.0,))},
                {"policy": "b", "seed": 0, "best": (40.0, (9.0,))},
                {"policy": "b", "seed": 1, "best": (-3.0, (9.0,))},
            ],
        )
        # The mean of a is 55 at a mean cost of 9.5, which is within the limit.
        assert table.problems == ("Toy-v0 (limit 10)",)
        np.testing.assert_allclose(table.scores["a"][0], [20 / 55, 0.0])
        np.testing.assert_allclose(table.scores["b"][0], [40 / 55, 0.0])

    def test_last_policies_can_be_scored(self, tmp_path):
        table = self.table(
            tmp_path, [{"last": (7.0, (0.0,))}, {"seed": 1, "last": (21.0, (0.0,))}], which="last"
        )
        np.testing.assert_allclose(table.scores["cvpo"][0], [0.5, 1.5])

    def test_tasks_that_a_policy_lacks_or_without_a_positive_return_are_left_out(self, tmp_path):
        table = self.table(
            tmp_path,
            [
                *({"policy": p, "task": "Both-v0"} for p in "ab"),
                *({"policy": p, "task": "Negative-v0", "best": (-5.0, (0.0,))} for p in "ab"),
                {"policy": "a", "task": "One-v0"},
            ],
        )
        assert table.problems == ("Both-v0 (limit 10)",)
        assert any("One-v0 (limit 10) is not scored, without runs of b" in x for x in table.notes)
        assert any("Negative-v0 (limit 10) is not scored: no return" in x for x in table.notes)

    def test_step_budgets_are_told_apart(self, tmp_path):
        table = self.table(tmp_path, [{"seed": 0}, {"seed": 0, "settings": {"steps": 5000}}])
        assert set(table.scores) == {"cvpo 1,000 steps", "cvpo 5,000 steps"}

    def test_published_results_can_be_the_unit(self, tmp_path):
        table = self.table(tmp_path, [{"task": "SafetyHopperVelocity-v1"}], normalise="published")
        np.testing.assert_allclose(table.scores["cvpo"][0], [20.0 / 1716.08])
        nothing = self.table(tmp_path / "other", [{}], normalise="published")
        assert not nothing.problems
        assert "is published" in nothing.notes[0]

    def test_reasons_stay_short(self, tmp_path):
        # Every policy is alone on its task.
        study(tmp_path, [{"policy": f"p{i}", "task": f"T{i}-v0"} for i in range(9)])
        with pytest.raises(ValueError, match=r"p3 and 5 more\. .* 6 more tasks are not scored") as error:
            study_table([tmp_path], parts=["scores"])
        assert len(str(error.value)) < 400

    def test_without_a_common_task_the_reason_is_given(self, tmp_path):
        study(tmp_path, [{"policy": "a"}, {"policy": "b", "task": "Other-v0"}])
        text, _ = study_table([tmp_path])
        assert "Scores over tasks: none" in text
        assert "without runs of b" in text
        with pytest.raises(ValueError, match="no task can be scored"):
            study_table([tmp_path], parts=["scores"])


class TestPublished:
    def test_every_row_has_a_protocol_and_numbers(self):
        rows = anchors()
        assert len(rows) == 254
        assert {x.protocol.source for x in rows} == {x.source for x in PROTOCOLS.values()}
        assert all(math.isfinite(x.mean_return) and x.cost_limit > 0 and x.steps > 0 for x in rows)

    def test_circle_rows_are_those_of_one_episode(self):
        (row,) = (x for x in anchors() if (x.task, x.policy) == ("SafetyPointCircle1-v0", "sac_lag"))
        assert (row.mean_return, row.mean_cost, row.cost_limit) == (41.84, 6.415, 12.5)

    def test_the_best_published_row_is_within_its_limit(self):
        # CPO has 20.46 at a cost of 28.84, and TD3-Lag 25.27 at 28.0, for a limit of 25.
        assert best_published("SafetyPointGoal1-v0") == 21.45
        assert best_published("Toy-v0") is None

    def test_beside_ours(self, tmp_path):
        study(tmp_path, [{"policy": "sac_lag", "task": "SafetyCarCircle1-v0", "limits": (25.0,)}])
        text, _ = study_table([tmp_path], published=True)
        lines = [
            line for line in text[text.index("Beside published") :].splitlines() if "omnisafe table" in line
        ]
        assert "31.42" not in text
        (own,) = (line for line in lines if " sac_lag " in line)
        assert own.endswith("± 13.1  limit, steps (3,000 times ours)")
        assert "two of the task's 500-step episodes" in " ".join(text.split())

    def test_what_a_source_does_not_give_is_empty(self, tmp_path):
        study(tmp_path, [{"policy": "cpo", "task": "SafetyCarRun-v0"}])
        (row,) = (x for x in rows(tmp_path, "published") if x["source"] == "fsrl curves")
        assert (row["return"], row["cost"], row["cost_spread"], row["limit"]) == ("550", "", "", "10")

    def test_a_task_without_published_results(self, tmp_path):
        study(tmp_path, [{}])
        assert "Nothing is published" in study_table([tmp_path], published=True)[0]


class TestCommand:
    def run(self, capsys, *arguments):
        code = main(["table", *map(str, arguments)])
        return code, capsys.readouterr()

    @pytest.fixture(scope="class", name="folder")
    @staticmethod
    def _folder(tmp_path_factory):
        folder = tmp_path_factory.mktemp("study")
        return study(folder, [*seeds(2), *seeds(2, policy="sac_lag", best=(10.0, (1.0,)))])

    @pytest.mark.parametrize("form", ["text", "markdown", "csv", "latex"])
    def test_formats(self, folder, capsys, tmp_path, form):
        code, printed = self.run(capsys, folder, "--format", form)
        assert code == 0
        assert printed.out.count("sac_lag" if form != "latex" else r"sac\_lag") >= 1
        out = tmp_path / "table"
        out.write_text("older")
        assert self.run(capsys, folder, "--format", form, "--out", out)[0] == 0
        assert out.read_text() == printed.out

    def test_selection_and_left_out_runs(self, folder, capsys, tmp_path):
        study(tmp_path, [{"status": "interrupted", "seed": 9}])
        code, printed = self.run(
            capsys, folder, tmp_path, "--where", "policy=cvpo", "seed=0,1", "--by", "seed", "--format", "csv"
        )
        assert code == 0
        assert [row["seed"] for row in csv.DictReader(io.StringIO(printed.out))] == ["0", "1"]
        assert (
            printed.err == f"fsrl-ext: left out: {tmp_path}/run000 was interrupted at 1,000 of 1,000 steps\n"
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--where", "polcy=cvpo"], "did you mean 'policy'"),
            (["--where", "policy=cvpo", "seed=7"], "--where seed must be one of 0, 1, got 7"),
            (["--where", "policy"], "field=value"),
            (["--by", "polcy"], "--by must name a field"),
            (["--out", "nowhere/table.md"], "there is no folder nowhere"),
            (["--out", "."], "it is a folder"),
            (["--format", "word"], "invalid choice"),
            (["--format", "csv", "--part", "policies", "training"], "a CSV file holds one part"),
            (["nowhere"], "there is no folder nowhere"),
            (["--part", "scores", "--normalise", "published"], "no task can be scored"),
            (["--columns", "best-retrun"], "did you mean best-return"),
            (["--columns", "x"], "there are best-return, best-cost"),
            (["--columns", "above", "--part", "training"], "do not go with --part"),
            (["--at", "0"], "--at must be >= 1, got 0"),
            (["--at", "1e5"], "must be whole numbers, separated by commas, got '1e5'"),
            (["--at", "100", "--window", "0"], "--window must be >= 1, got 0"),
        ],
    )
    def test_bad_input_is_one_line(self, folder, capsys, arguments, message):
        assert_refused(["table", str(folder), *arguments], message, capsys)

    def test_damaged_and_empty_folders_are_one_line(self, folder, capsys, tmp_path):
        code, printed = self.run(capsys, tmp_path)
        assert (code, printed.err.count("\n")) == (2, 1)
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.json").write_text("{")
        (tmp_path / "run" / "result.json").write_text('{"status": "fini')
        code, printed = self.run(capsys, folder, tmp_path)
        assert (code, printed.err.count("\n")) == (2, 1)
        assert "result.json is damaged or edited" in printed.err
        assert self.run(capsys, folder, tmp_path, "--skip-damaged")[0] == 0

    def test_the_help_has_an_example(self, capsys):
        with pytest.raises(SystemExit):
            main(["table", "--help"])
        assert "fsrl-ext table runs --where" in capsys.readouterr().out


class TestUnitsOfLimits:
    def test_runs_of_both_units_have_rows_of_their_own(self, tmp_path):
        study(tmp_path, [{"seed": s, "unit": unit} for s in (0, 1) for unit in ("episode", "discounted")])
        plain, discounted = rows(tmp_path)
        assert (plain["task"], discounted["task"]) == ("Toy-v0", "Toy-v0 (discounted)")
        for row, episode_costs in ((plain, ("5", "8")), (discounted, ("15", "24"))):
            assert (row["seeds"], row["best_cost_mean"], row["last_cost_mean"]) == ("2", "5", "8")
            assert (row["best_episode_cost_mean"], row["last_episode_cost_mean"]) == episode_costs
        for row in rows(tmp_path, "training"):  # in the unit of the limit
            assert row["training_cost_mean"] == "8"
        text, _ = study_table([tmp_path])
        assert "Toy-v0 (discounted)" in text
        assert "episode cost: the sum of the costs of an episode." in " ".join(text.split())
        assert "different limit_unit" not in text

    def test_the_column_of_episode_costs_is_there_where_a_limit_is_on_others(self, tmp_path):
        study(tmp_path / "one", seeds(2))
        assert "episode cost" not in study_table([tmp_path / "one"])[0]
        assert "best_episode_cost_mean" not in rows(tmp_path / "one")[0]

    def test_figures_and_pages_name_the_unit(self, tmp_path):
        study(tmp_path, seeds(2, unit="discounted"))
        (panel,) = make_panels(read_study([tmp_path]).runs, ["policy"], [])
        assert panel.title == "Toy-v0 (discounted)"
        assert panel.cost_label(0) == "discounted cost"
