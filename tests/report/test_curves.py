"""Check that the picture of a run hides nothing and marks selections by their own verdict."""

import csv
import json
import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from fsrl_ext.errors import RunFolderError
from fsrl_ext.report import plot_run

STEPS = 60

# What a result.json has beside its selections.
INTERRUPTED = {
    "status": "interrupted", "command": "", "config_digest": "", "versions": {}, "env_step": 0,
    "gradient_step": 0, "train_episodes": 0, "share_above_limit": 0.0, "seconds": 0.0, "cores": 1,
    "config": {
        "policy": "cvpo", "task": "", "cost_limit": [], "cost_limit_start": None, "cost_limit_decay_steps": 1,
        "steps": 1, "seed": 0, "selections": 1, "selection_episodes": 1, "final_episodes": 1, "device": "cpu",
        "threads": 1, "policy_config": {}, "training": {},
    },
}  # fmt: skip


def draw(folder, monkeypatch, costs, limits):
    """Draws a run whose training episodes have the costs ``[steps, C]``, and gives the figure.

    Every second point is a selection with three quarters of the cost, and a standard error of a tenth.
    """
    rows, selections = [], []
    for i, cost in enumerate(costs):
        step, value = 1000 * (i + 1), float(10 * i - 50)
        row = {"env_step": step, "train/returns_stat/mean": value, "only/sometimes": "" if i else 1.0}
        rows.append(row | {f"train/costs_stat/{k}/mean": x for k, x in enumerate(cost)})
        if i % 2:
            mean, error = 0.75 * np.array(cost), 0.1 * np.abs(cost)
            selections.append(
                {
                    "env_step": step,
                    "episodes": 10,
                    "share_above_limit": 0.5,
                    "return_mean": value,
                    "return_stderr": 1.0,
                    "cost_mean": mean.tolist(),
                    "cost_stderr": error.tolist(),
                    "feasible": bool((mean + error <= limits).all()),
                }
            )
    with (folder / "progress.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    (folder / "result.json").write_text(json.dumps({**INTERRUPTED, "selections": selections}))
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    plot_run(folder, title="a run", cost_limit=limits, path=folder / "curves.png")
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"
    return drawn[0], selections


def column(*costs):
    return np.stack(costs, axis=1)


time = np.linspace(0, 1, STEPS)
RUNS = {
    "huge": (column(3000 * np.exp(-12 * time) + 9), (10.0,)),
    "zero": (column(0 * time), (10.0,)),
    "zero at limit zero": (column(0 * time), (0.0,)),
    "limit zero": (column(np.maximum(0, 3 - 5 * time)), (0.0,)),
    "no limit": (column(1e6 * np.exp(-9 * time)), (math.inf,)),
    "always above": (column(80 + time), (10.0,)),
    "negative": (column(-100 * time), (10.0,)),
    "several": (column(400 * np.exp(-9 * time), 30 + time, 20 * time), (10.0, math.inf, 25.0)),
    "two points": (column(np.array([30.0, 10.0])), (10.0,)),
}


@pytest.mark.parametrize("name", RUNS)
def test_every_value_is_on_its_axis_and_the_legend_is_beside_them(tmp_path, monkeypatch, name):
    costs, limits = RUNS[name]
    figure, selections = draw(tmp_path, monkeypatch, costs, limits)
    renderer = figure.canvas.get_renderer()
    (legend,) = figure.legends
    box = legend.get_window_extent(renderer)
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    for i, axis in enumerate(figure.axes):
        assert not axis.get_legend()
        assert not box.overlaps(axis.get_tightbbox(renderer))
        low, high = axis.get_ylim()
        lines = [line for line in axis.get_lines() if len(line.get_ydata())]
        for line in lines:
            assert low < np.min(line.get_ydata()) <= np.max(line.get_ydata()) < high
        training = lines[0].get_ydata()
        assert len(training) == len(costs)
        if i:
            np.testing.assert_allclose(training, costs[:, i - 1])
            ends = [x["cost_mean"][i - 1] + x["cost_stderr"][i - 1] for x in selections]
            assert low < min(ends) <= max(ends) < high
            if 0 < limits[i - 1] < math.inf:  # a tenth of the height is left for what is within the limit
                within = axis.transData.transform([(0, 0), (0, limits[i - 1])])
                assert within[1, 1] - within[0, 1] > 0.1 * axis.bbox.height


def test_marks_above_the_limit_are_those_whose_error_bars_reach_above_it(tmp_path, monkeypatch):
    costs, limits = RUNS["several"]
    figure, selections = draw(tmp_path, monkeypatch, costs, limits)
    verdicts = [[x["feasible"] for x in selections]]
    for i, limit in enumerate(limits):
        verdicts.append([x["cost_mean"][i] + x["cost_stderr"][i] <= limit for x in selections])
    assert [sum(x) for x in verdicts][2:] == [len(selections)] * 2  # no limit, and far below it
    assert 0 < sum(verdicts[0]) == sum(verdicts[1]) < len(selections)
    for axis, within in zip(figure.axes, verdicts, strict=True):
        marked = {
            bars.get_label(): bars.lines[0].get_xdata()
            for bars in axis.containers
            if len(bars.lines[0].get_xdata())
        }
        steps = np.array([x["env_step"] for x in selections])
        np.testing.assert_array_equal(marked["selection"], steps[within])
        above = marked.get("selection, mean + standard error above the limit", [])
        np.testing.assert_array_equal(above, steps[~np.array(within)])


def test_few_points_are_marked_so_that_one_alone_is_seen(tmp_path, monkeypatch):
    figure, _ = draw(tmp_path, monkeypatch, np.array([[4.0]]), (10.0,))
    assert figure.axes[1].get_lines()[0].get_marker() == "."


def test_a_run_that_has_not_ended_has_no_picture(tmp_path):
    (tmp_path / "progress.csv").write_text("env_step\n1\n")
    with pytest.raises(RunFolderError, match=r"no result\.json"):
        plot_run(tmp_path, title="", cost_limit=(1.0,), path=tmp_path / "curves.png")
