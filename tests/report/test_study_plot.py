"""Figures of a study: curves on one grid, what is drawn, and bad input."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats
from toys.studies import assert_refused, write_run, write_small

from fsrl_ext.cli import main
from fsrl_ext.report.study.grid import Points, on_grid, over_seeds
from fsrl_ext.report.study.plots import study_plot
from fsrl_ext.report.study.style import PALETTE, colours, lines

PLACES = np.linspace(0.0, 10.0, 11)


def points(x, y, weights=None):
    return Points(*(np.array(v, dtype=float) for v in (x, y, [1.0] * len(x) if weights is None else weights)))


class TestGrid:
    def test_between_points_it_interpolates_and_outside_there_is_nothing(self):
        values = on_grid(points([2, 6], [10, 30]), PLACES)
        np.testing.assert_allclose(values, [np.nan] * 2 + [10, 15, 20, 25, 30] + [np.nan] * 4)

    def test_points_in_a_window_are_averaged_by_their_episodes(self):
        curve = points([1.5, 2.5, 5, 8], [0, 30, 100, 200], [1, 2, 1, 1])
        values = on_grid(curve, PLACES, window=1.2)
        assert values[2] == 20.0  # the mean of 0 and twice 30
        assert values[5] == 100.0  # one point alone in its window
        assert values[6] == pytest.approx(100 + 100 / 3)

    def test_points_that_are_not_finite_or_without_episodes_are_left_out(self):
        curve = points([0, 2, 4, 6, 10], [0, np.nan, 1e9, np.inf, 10], [1, 1, 0, 1, 1])
        np.testing.assert_allclose(on_grid(curve, PLACES), PLACES)
        assert np.isnan(on_grid(points([], []), PLACES)).all()

    def test_a_mean_is_drawn_where_every_seed_has_a_value(self):
        seeds = [points([0, 10], [0, 10]), points([2, 7], [4, 9]), points([1, 8], [3, 10])]
        band = over_seeds(seeds, PLACES, "mean")
        assert band.x.tolist() == [2, 3, 4, 5, 6, 7]
        assert band.y[0] == pytest.approx((2 + 4 + 4) / 3)
        half = stats.t.ppf(0.975, 2) * np.std([2, 4, 4], ddof=1) / math.sqrt(3)
        assert (band.low[0], band.high[0]) == (pytest.approx(10 / 3 - half), pytest.approx(10 / 3 + half))

    def test_one_seed_has_no_interval_and_seeds_without_overlap_no_curve(self):
        band = over_seeds([points([0, 10], [0, 10])], PLACES, "iqm")
        np.testing.assert_allclose(band.y, PLACES)
        assert np.isnan(band.low).all()
        assert not len(over_seeds([points([0, 2], [0, 1]), points([5, 9], [0, 1])], PLACES, "mean").x)

    def test_iqm_cuts_a_quarter_at_either_end(self):
        seeds = [points([0, 10], [y, y]) for y in (-100.0, 1.0, 2.0, 3.0, 100.0)]
        band = over_seeds(seeds, PLACES, "iqm")
        np.testing.assert_allclose(band.y, 2.0)
        assert (band.low <= 2.0).all()
        assert (band.high >= 3.0).all()


class TestColours:
    def test_a_policy_has_its_colour_in_every_figure(self):
        alone = colours({"cvpo": ["cvpo"]})["cvpo"]
        assert colours({"mine": ["mine"], "cpo": ["cpo"], "cvpo": ["cvpo"]})["cvpo"] == alone

    def test_names_differ_in_colour_or_line(self):
        names = {f"cvpo {i}": ["cvpo"] for i in range(20)}
        chosen = colours(names)
        styles = lines(chosen)
        assert len({(chosen[name], styles[name]) for name in names}) == 20
        assert len(set(chosen.values())) == len(PALETTE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two policies, tasks, limits and seeds, whose curves end at other steps; a result file; two costs."""
    root = tmp_path_factory.mktemp("plots")
    number = 0
    for task in ("A-v0", "B-v0"):
        for policy in ("cvpo", "sac_lag"):
            for limit in (5.0, 10.0):
                for seed in range(2):
                    end = 900 + 100 * seed
                    rows = [(step, step / 50, 9000 / step) for step in range(100, end + 1, 100)]
                    best = (20.0 + limit, (limit - 2 + seed,))
                    names = {"task": task, "policy": policy, "seed": seed, "limits": (limit,)}
                    write_run(root / str(number), **names, rows=rows, best=best)
                    number += 1
    write_small(root / "A-v0" / "ddpg_lag" / "seed0.json")
    several = {"limits": (10.0, math.inf), "best": (1.0, (1.0, 2.0)), "last": (1.0, (1.0, 2.0))}
    write_run(root / "several", task="C-v0", **several)
    return root


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    return figures


def visible(figure):
    return [axis for axis in figure.axes if axis.get_visible()]


class TestFigures:
    @pytest.mark.parametrize(
        ("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")]
    )
    def test_files(self, folder, tmp_path, suffix, start):
        out = tmp_path / f"figure{suffix}"
        for _ in range(2):
            study_plot([folder], out, kind="scatter", conditions=["task=A-v0"])
            content = out.read_bytes()
            assert content.startswith(start)
            out.with_suffix(".again").write_bytes(content)
        assert out.read_bytes() == out.with_suffix(".again").read_bytes()

    def test_a_kind_and_a_file_that_cannot_be_drawn(self, folder, tmp_path):
        with pytest.raises(ValueError, match=r"kind must be one of curves, .*, got 'pie'"):
            study_plot([folder], tmp_path / "a.png", kind="pie")
        with pytest.raises(ValueError, match=r"out must end in .png or .pdf or .svg"):
            study_plot([folder], tmp_path / "a.jpg")

    def test_curves_and_limits(self, folder, tmp_path, drawn):
        conditions = ["task=A-v0,B-v0", "cost_limit=10", "policy=cvpo,sac_lag"]
        caption, _ = study_plot([folder], tmp_path / "a.png", conditions=conditions)
        (figure,) = drawn
        returns = [axis for axis in visible(figure) if axis.get_ylabel() == "return"]
        costs = [axis for axis in visible(figure) if axis.get_ylabel() == "cost"]
        assert [axis.get_title() for axis in returns] == ["A-v0", "B-v0"]
        assert len(costs) == 2
        curve = returns[0].lines[0]
        assert curve.get_label() == "cvpo"
        x, y = curve.get_data()
        assert (x.min(), x.max()) == (100, 900)  # where both seeds have values
        np.testing.assert_allclose(y, x / 50, atol=1e-9)
        limit = next(line for line in costs[0].lines if line.get_label() == "limit")
        assert set(limit.get_ydata()) == {10.0}
        assert "95% Student t interval" in caption

    def test_both_kinds_of_episodes(self, folder, tmp_path, drawn):
        arguments = {"conditions": ["task=A-v0", "cost_limit=10", "policy=cvpo"], "episodes": "both"}
        study_plot([folder], tmp_path / "a.png", **arguments)
        training, deterministic = drawn[0].axes[0].lines[:2]
        assert deterministic.get_xdata().tolist() == [250, 500, 750, 1000]
        assert training.get_linestyle() != deterministic.get_linestyle()

    @pytest.mark.parametrize(("x", "end"), [("steps", 1000), ("time", 100.0), ("cost", 80 * 20.0)])
    def test_what_curves_are_over(self, tmp_path, drawn, x, end):
        rows = [(step, 1.0, 20.0) for step in range(125, 1001, 125)]  # eight rows of ten episodes
        write_run(tmp_path / "run", rows=rows)
        study_plot([tmp_path], tmp_path / "a.png", x=x)
        assert drawn[0].axes[0].lines[0].get_xdata().max() == pytest.approx(end)

    def test_names_tell_limits_apart(self, folder, tmp_path, drawn):
        study_plot([folder], tmp_path / "a.png", conditions=["task=A-v0", "policy=cvpo"], statistic="iqm")
        labels = [line.get_label() for line in drawn[0].axes[0].lines]
        assert labels == ["cvpo, limit 5", "cvpo, limit 10"]

    def test_a_facet_by_another_field(self, folder, tmp_path, drawn):
        arguments = {"conditions": ["policy=cvpo,sac_lag"], "facet": ["cost_limit"], "kind": "costs"}
        study_plot([folder], tmp_path / "a.png", **arguments)
        titles = [axis.get_title() for axis in visible(drawn[0])]
        assert titles[:2] == ["A-v0, cost_limit 10", "A-v0, cost_limit 5"]

    def test_scatter_has_a_mark_for_each_seed_and_hollow_ones_for_infeasible_seeds(
        self, folder, tmp_path, drawn
    ):
        write_run(tmp_path / "runs" / "0", best=(20.0, (30.0,)))
        write_run(tmp_path / "runs" / "1", best=(22.0, (5.0,)), seed=1)
        study_plot([tmp_path / "runs"], tmp_path / "a.png", kind="scatter")
        infeasible, feasible = drawn[0].axes[0].lines[:2]
        assert (infeasible.get_xdata()[0], infeasible.get_ydata()[0]) == (30.0, 20.0)
        assert (infeasible.get_markerfacecolor(), feasible.get_markerfacecolor() == "none") == ("none", False)

    def test_the_frontier_goes_through_the_means_in_the_order_of_the_limits(self, folder, tmp_path, drawn):
        study_plot([folder], tmp_path / "a.png", kind="frontier", conditions=["task=A-v0", "policy=cvpo"])
        (axis,) = visible(drawn[0])
        assert axis.lines[0].get_xydata().tolist() == [[3.5, 25.0], [8.5, 30.0]]
        assert [text.get_text() for text in axis.texts] == ["5", "10"]
        with pytest.raises(ValueError, match="at least two cost limits"):
            study_plot([folder], tmp_path / "b.png", kind="frontier", conditions=["cost_limit=5"])
        assert not (tmp_path / "b.png").exists()

    def test_boxes_from_five_seeds_on(self, tmp_path, drawn):
        for seed in range(5):
            write_run(tmp_path / "runs" / str(seed), seed=seed, best=(1.0, (float(seed),)))
        study_plot([tmp_path / "runs"], tmp_path / "a.png", kind="costs")
        (tmp_path / "runs" / "0" / "result.json").unlink()
        study_plot([tmp_path / "runs"], tmp_path / "b.png", kind="costs")
        with_box, without = (len(figure.axes[0].lines) for figure in drawn)
        assert with_box == without + 6  # the box, its median, two whiskers and two caps

    def test_profiles_drop_where_runs_are_lost(self, tmp_path, drawn):
        for seed, cost in enumerate((1.0, 2.0, 3.0, 14.0)):
            write_run(tmp_path / "runs" / str(seed), seed=seed, best=(20.0, (cost,)))
        caption, _ = study_plot([tmp_path / "runs"], tmp_path / "a.png", kind="profiles")
        x, y = drawn[0].axes[0].lines[0].get_data()
        assert set(y[x < 0.999]) == {0.75}
        assert set(y[x > 1.001]) == {0.0}
        assert "Toy-v0 (limit 10)" in caption

    @pytest.mark.parametrize("kind", ["curves", "costs", "scatter"])
    def test_several_costs_and_infinite_limits(self, folder, tmp_path, drawn, kind):
        study_plot([folder], tmp_path / "a.png", kind=kind, conditions=["task=C-v0"])
        labels = {text for axis in visible(drawn[0]) for text in (axis.get_xlabel(), axis.get_ylabel())}
        assert any(text.endswith("cost 0") for text in labels)
        assert any(text.endswith("cost 1") for text in labels)
        assert sum(line.get_label() == "limit" for axis in drawn[0].axes for line in axis.lines) == 1

    def test_a_run_without_curves_selections_or_finite_values(self, tmp_path):
        write_run(tmp_path / "runs" / "0", rows=(), selections=())
        write_run(tmp_path / "runs" / "1", seed=1, rows=((250, math.nan, math.nan),))
        study_plot([tmp_path / "runs"], tmp_path / "a.png", episodes="both")
        assert (tmp_path / "a.png").exists()


class TestCommand:
    def test_it_names_the_file_and_what_it_shows(self, folder, tmp_path, capsys):
        out = tmp_path / "a.svg"
        out.write_text("older")
        arguments = [
            "--where",
            "policy=cvpo",
            "task=A-v0",
            "--by",
            "policy,cost_limit",
            "--iqm",
            "--x",
            "cost",
        ]
        assert main(["plot", str(folder), "--out", str(out), *arguments]) == 0
        assert capsys.readouterr().out.startswith(f"{out}: IQM over seeds, 95% bootstrap interval")
        assert "cvpo 5" in out.read_text()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--where", "polcy=cvpo"], "did you mean 'policy'"),
            (["--facet", "tsk"], "--facet must name a field"),
            (["--by", "tsk"], "--by must name a field"),
            (["--out", "figure.jpg"], "--out must end in .png or .pdf or .svg"),
            (["--out", "nowhere/figure.png"], "there is no folder nowhere"),
            (["--kind", "pie"], "invalid choice"),
            (["--mean", "--iqm"], "not allowed with"),
            (["--kind", "frontier", "--where", "cost_limit=5"], "at least two cost limits"),
            (["--kind", "profiles", "--where", "task=C-v0,Toy-v0"], "no task can be scored"),
        ],
    )
    def test_bad_input_is_one_line(self, folder, tmp_path, capsys, arguments, message):
        out = [] if "--out" in arguments else ["--out", str(tmp_path / "a.png")]
        assert_refused(["plot", str(folder), *out, *arguments], message, capsys)
        assert not list(tmp_path.iterdir())

    def test_the_help_has_an_example(self, capsys):
        with pytest.raises(SystemExit):
            main(["plot", "--help"])
        assert "fsrl-ext plot runs --where" in capsys.readouterr().out
