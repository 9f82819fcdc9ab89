"""Run folders and result files that are written without training, with the numbers that a test names."""

from __future__ import annotations

import csv
import json

from fsrl_ext.cli import main
from fsrl_ext.report.files import write_json

SELECTION_STEPS = (250, 500, 750, 1000)


def judged(value, costs, limits, *, step=1000, episodes=True):
    """A final evaluation whose mean costs are the given ones, without spread."""
    data = {
        "env_step": step,
        "episodes": 4,
        "return_mean": value,
        "return_stderr": 0.0,
        "cost_mean": list(costs),
        "cost_stderr": [0.0] * len(costs),
        "feasible": all(c <= limit for c, limit in zip(costs, limits, strict=True)),
        "share_above_limit": 0.0,
    }
    if episodes:
        # The first episode has no cost and the last one twice the mean.
        data["returns"] = [value] * 4
        data["costs"] = [[share * c for c in costs] for share in (0.0, 1.0, 1.0, 2.0)]
    return data


def write_run(
    folder,
    *,
    policy="cvpo",
    task="Toy-v0",
    seed=0,
    limits=(10.0,),
    best=(20.0, (5.0,)),
    last=(18.0, (8.0,)),
    selections=((5.0, True), (12.0, False), (15.0, True), (20.0, True)),
    rows=((250, 1.0, 20.0), (500, 5.0, 12.0), (1000, 9.0, 8.0)),
    violation=True,
    status="finished",
    settings=None,
    command="",
    versions=None,
    logged=None,
    unit="episode",
    **training,
):
    """Write a run of 1,000 steps, with ten episodes in every row of its curve; return its folder.

    :param best: return and costs of the best policy in the final evaluation.
    :param selections: mean return and verdict of each selection, whose costs are 0 or twice the limit.
    :param rows: step, mean return and mean cost of each collect cycle; all costs have this mean.
    :param logged: by column of the updates, such as ``constraint/multiplier``, its values in the rows.
    :param unit: of the limits and of all costs that are given. The other unit has a third, or three times as
        much for discounted limits.
    :param violation: whether the sums of ``max(cost - limit, 0)`` were recorded; they are 7 per row.
    """
    folder.mkdir(parents=True)
    config = {
        "policy": policy, "task": task, "cost_limit": list(limits), "cost_limit_start": None,
        "cost_limit_decay_steps": 100, "steps": 1000, "seed": seed, "selections": 4, "selection_episodes": 2,
        "final_episodes": 4, "device": "cpu", "threads": 1, "policy_config": {"gamma": 0.97},
        "training": {"hidden_sizes": [16, 16], **training},
    }  # fmt: skip
    config |= settings or {}
    other = 3.0 if unit == "discounted" else 1 / 3
    if unit == "discounted":
        config["policy_config"] = {**config["policy_config"], "limit_unit": unit}
    points = []
    for step, (value, feasible) in zip(SELECTION_STEPS, selections, strict=False):
        finite = [x if x < float("inf") else 1.0 for x in limits]
        point = judged(
            value, [0.0 if feasible else 2 * x + 1 for x in finite], limits, step=step, episodes=False
        )
        points.append(point | {"feasible": feasible})
    result = {
        "status": status, "command": command, "config": config, "config_digest": "",
        "versions": versions or {},
        "env_step": 1000, "gradient_step": 0, "train_episodes": 10 * len(rows), "share_above_limit": 0.25,
        "seconds": 100.0, "cores": 1, "selections": points,
    }  # fmt: skip
    if status == "finished":
        result["best"] = judged(*best, limits) | {"selected_as_feasible": any(x for _, x in selections)}
        result["last"] = judged(*last, limits)
        for one in (result["best"], result["last"]):
            one["other_cost_mean"] = [other * x for x in one["cost_mean"]]
    write_json(folder / "config.json", {"command": command, **config})
    write_json(folder / "result.json", result)
    columns = ["env_step", "update/loss", "train/n_collected_episodes", "train/returns_stat/mean"]
    columns += [f"train/costs_stat/{i}/mean" for i in range(len(limits))]
    columns += [f"train/discounted_cost/{i}" for i in range(len(limits))]
    columns += [f"train/violation/{i}" for i in range(len(limits))] if violation else []
    logged = logged or {}
    with (folder / "progress.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*columns, *(f"update/{name}" for name in logged)])
        # an update before the first episode ended
        table.writerow([100, 0.5, *[""] * (len(columns) - 2 + len(logged))])
        for number, (step, value, cost) in enumerate(rows):
            excess = [7.0] * len(limits) if violation else []
            updates = [values[number] for values in logged.values()]
            pair = (other * cost, cost) if unit == "discounted" else (cost, other * cost)
            costs = [x for x in pair for _ in limits]
            table.writerow([step, "", 10, value, *costs, *excess, *updates])
    return folder


def write_small(path, **changes):
    """Write a result file as ``benchmarks/learning.py`` does, with one cost of limit 10."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "config": {
            "policy": "sac_lag", "task": "Toy-v0", "cost_limit": [10.0], "steps": 1000,
            "seed": int(path.stem.removeprefix("seed")), "policy_config": {"gamma": 0.99}, "training": {},
        },
        "env_step": 1000, "train_episodes": 40, "share_above_limit": 0.5, "seconds": 50.0,
        "best": judged(30.0, (4.0,), (10.0,), episodes=False),
        "last": judged(8.0, (12.0,), (10.0,), episodes=False),
        "curve": {"env_step": [500.0, 1000.0], "train_return": [10.0, 20.0], "train_cost": [14.0, 6.0]},
        "selections": {
            "env_step": [500.0, 1000.0], "return_mean": [28.0, 30.0], "cost_mean": [4.0, 5.0],
            "feasible": [1.0, 1.0],
        },
        **changes,
    }  # fmt: skip
    path.write_text(json.dumps(data))
    return path


def assert_refused(arguments, message, capsys):
    """Check that a command ends with exit code 2 and one line on stderr that holds ``message``."""
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1
