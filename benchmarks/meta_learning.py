"""Trains meta-learners over several seeds, adapts them to held-out tasks, and prints and draws the results.

    python benchmarks/meta_learning.py run meta_cpo SafetyPointStcircle --seeds 0 1 2
    python benchmarks/meta_learning.py adapt SafetyPointStcircle [--checkpoint last]
    python benchmarks/meta_learning.py table SafetyPointStcircle [--checkpoint last] [--labels NAME ...]
    python benchmarks/meta_learning.py plot SafetyPointStcircle --out adaptation.png
    python benchmarks/meta_learning.py training SafetyPointStcircle --out training.png

``run`` trains what has no result file yet, as ``benchmarks/learning.py`` does. ``adapt`` adapts every run of
the family, and CPO from fresh networks of the same size: to 20 tasks outside of the training range, before,
during and after 5 steps, and over 20 steps on five of them for curves. All policies are judged by the
family's default limit, also those that know no limit. ``adapt`` keeps one file per run, and does not repeat a
run that has one: ``benchmarks/results/<family>/<policy>/[<label>/]adaptation<seed>.json``, or
``adaptation_last<seed>.json`` for the last checkpoints in place of the best ones. ``table`` prints these
files, ``--csv`` writes the curves of the adaptation, and ``plot`` draws them. ``training`` prints the cosine
between first-order and exact meta-gradient along the training, and draws level 0, the adapted policies, and
the cosine. All three show the runs without a label, and those with the labels named.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from learning import RESULTS, add_run, run_command
from meta_pictures import Found, plot_adaptation, plot_training

from fsrl_ext.env.meta import find_family, held_out_suite
from fsrl_ext.experiment import adapt, evaluate_suite, make_config
from fsrl_ext.experiment.algorithms.meta import MetaTraining
from fsrl_ext.experiment.registry import algorithm
from fsrl_ext.experiment.saved.suite import suite_report
from fsrl_ext.experiment.training.build import build_policy, seed_everything
from fsrl_ext.experiment.training.checkpoint import read_checkpoint, save_checkpoint
from fsrl_ext.report import text_table
from fsrl_ext.report.files import read_json, write_json
from fsrl_ext.report.statistics import caution, cost_interval, mean_interval, mean_text, share_text

SCRATCH = "cpo_from_scratch"
# Networks, critics and amount of data are those of the meta-learners; CPO's KL bound and theirs is 0.01.
AS_META = {
    "hidden_sizes": (24, 12),
    "critic_hidden_sizes": (128, 128),
    "critic_optimiser": "lbfgs",
    "step_per_collect": 3_000,
    "num_envs": 6,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    add_run(commands, runs="runs/meta")
    command = commands.add_parser("adapt", help="adapt every run to held-out tasks")
    command.add_argument("family")
    command.add_argument("--runs", default="runs/meta", help="folder of the run folders")
    command.add_argument("--steps", type=int, default=5, help="steps of the adaptation to all tasks")
    command.add_argument("--curve-steps", type=int, default=20)
    command.add_argument("--curve-tasks", type=int, default=5, help="tasks of the curves; 0 draws none")
    command.add_argument("--episodes", type=int, default=10, help="deterministic episodes of each test")
    command.add_argument("--step-per-collect", type=int, help="environment steps of a step")
    command.add_argument("--kl-bound", type=float, help="bound of a step, in nats (default: as trained)")
    command.add_argument("--jobs", type=int, default=2)
    _add_checkpoint(command)
    command.set_defaults(command=_adapt)
    command = commands.add_parser("table", help="print the results")
    command.add_argument("family")
    command.add_argument("--markdown", action="store_true", help="print a table for a page, without notes")
    command.add_argument("--csv", type=Path, help="also write the curves of the adaptation")
    _add_checkpoint(command)
    _add_labels(command)
    command.set_defaults(command=_table)
    command = commands.add_parser("plot", help="draw the curves of the adaptation")
    command.add_argument("family")
    command.add_argument("--out", type=Path, required=True)
    _add_checkpoint(command)
    _add_labels(command)
    command.set_defaults(command=_plot)
    command = commands.add_parser("training", help="print cosines along training, draw its curves")
    command.add_argument("family")
    command.add_argument("--out", type=Path, required=True)
    _add_labels(command)
    command.set_defaults(command=_training)
    options, rest = parser.parse_known_args()
    if rest and options.command is not run_command:
        sys.exit(f"unrecognized arguments: {' '.join(rest)}")
    return options.command(options, rest)


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="which meta-policy of a run (default: best)",
    )


def _add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--labels", nargs="+", default=(), metavar="NAME", help="labels of runs to show, too")


def _read(options: argparse.Namespace, stem: str) -> Found:
    """Returns the result files of a family that are to be shown, by learner."""
    folder = RESULTS / options.family
    found: Found = {}
    for path in sorted(folder.rglob("*.json")):
        learner = str(path.parent.relative_to(folder))
        label = learner.partition("/")[2]
        if path.stem.rstrip("0123456789") == stem and (not label or label in options.labels):
            found.setdefault(learner, []).append(read_json(path))
    return found


def _stem(policy: str, checkpoint: str) -> str:
    """Returns the start of a result's name; fresh networks have one checkpoint."""
    return "adaptation" if checkpoint == "best" or policy == SCRATCH else f"adaptation_{checkpoint}"


def _adapt(options: argparse.Namespace, rest: list[str]) -> int:
    family, folder = options.family, RESULTS / options.family
    runs: dict[tuple[str, int], Path] = {}  # by learner and seed; a label of the run makes another learner
    for run in sorted(Path(options.runs).glob(f"{family}-*")):
        if (run / "result.json").exists():
            config = read_checkpoint(run / "checkpoints" / "best.pt")["config"]
            policy, seed = config["policy"], config["seed"]
            if config["task"] == family and issubclass(algorithm(policy).training, MetaTraining):
                label = run.name.removeprefix(f"{family}-{policy}").removesuffix(f"-seed{seed}").strip("-")
                runs[f"{policy}/{label}".strip("/"), seed] = run
    for seed in sorted({seed for _, seed in runs}):
        runs[SCRATCH, seed] = _fresh(family, seed, Path(options.runs))
    settings = {
        name: getattr(options, name)
        for name in (
            "steps",
            "curve_steps",
            "curve_tasks",
            "episodes",
            "step_per_collect",
            "checkpoint",
            "kl_bound",
        )
    }
    command = "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    jobs = [
        (
            family,
            str(run),
            settings,
            command,
            folder / policy / f"{_stem(policy, options.checkpoint)}{seed}.json",
        )
        for (policy, seed), run in runs.items()
    ]
    missing = [job for job in jobs if not job[-1].exists()]
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for file in pool.map(_adapt_run, missing):
            print(f"{file.relative_to(RESULTS)}: done", flush=True)
    return 0


def _fresh(family: str, seed: int, runs: Path) -> Path:
    """Returns a checkpoint of CPO that has learnt nothing yet."""
    path = runs / f"{family}-{SCRATCH}-seed{seed}.pt"
    if not path.exists():
        config = make_config("cpo", find_family(family).id(2), seed=seed, **AS_META)
        seed_everything(config)
        policy, spec = build_policy(config)
        counters = {"env_step": 0, "gradient_step": 0, "episode": 0}
        save_checkpoint(path, policy, config=config, spec=spec, counters=counters)
    return path


def _adapt_run(job: tuple[str, str, dict[str, Any], str, Path]) -> Path:
    family, run, settings, command, file = job
    common = {name: settings[name] for name in ("episodes", "step_per_collect", "checkpoint", "kl_bound")}
    common["cost_limit"] = make_config("meta_cpo", family).cost_limit
    suite = evaluate_suite(run, "outside", adapt_steps=settings["steps"], family=family, **common)
    curves = []
    for number, task in enumerate(held_out_suite(family, "outside")[: settings["curve_tasks"]]):
        points = adapt(run, task, steps=settings["curve_steps"], seed=number, **common).points
        curves.append(
            {
                "task": task.as_dict(),
                "tested": [x.tested.summary() for x in points if x.tested is not None],
                "collected": [None if x.collected is None else x.collected.summary() for x in points],
            }
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    data = {"command": command, "run": Path(run).name, "suite": suite_report(suite), "curves": curves}
    write_json(file, data, indent=1)
    return file


def _adapted(options: argparse.Namespace) -> Found:
    """The adaptation files of a family by learner, with those of fresh networks."""
    found = _read(options, _stem("", options.checkpoint))
    found |= {k: v for k, v in _read(options, _stem(SCRATCH, options.checkpoint)).items() if k == SCRATCH}
    if not found:
        sys.exit(f"no results in {RESULTS / options.family}: run 'adapt' first")
    return found


_POINTS = ("before", "during", "after")
_SHARES = ("tasks_above_limit", "share_above_limit")


def _table(options: argparse.Namespace, rest: list[str]) -> int:
    found = _adapted(options)
    parts = {
        (policy, point): [x["suite"][point] for x in files]
        for policy, files in found.items()
        for point in _POINTS
    }
    # Without a step, and after steps so short that no episode ends, there is nothing during the adaptation.
    parts = {key: of_seeds for key, of_seeds in parts.items() if None not in of_seeds}
    if options.csv is not None:
        _write_csv(options.csv, found)
    if options.markdown:
        print("\n".join(_markdown(found, parts)))
        return 0
    rows = [
        [
            *key,
            str(len(of_seeds)),
            *_return_and_cost(of_seeds),
            *(_share([x[k] for x in of_seeds]) for k in _SHARES),
        ]
        for key, of_seeds in parts.items()
    ]
    print(text_table(["policy", "", "seeds", "return", "cost", "tasks above", "episodes above"], rows))
    steps = ", ".join(sorted({str(x["suite"]["adapt_steps"]) for files in found.values() for x in files}))
    print(
        f"20 tasks outside of the training range, before, during and after {steps} steps;\n"
        "deterministic episodes before and after, during those that the steps learn from (sampled actions);\n"
        "means over seeds, which are independent [95% Student t interval, cut at 0 for costs and\n"
        "shares and at 100% for shares]; tasks above: whose mean cost exceeds the limit"
        + caution((len(files) for files in found.values()), "seeds")
    )
    return 0


def _markdown(found: Found, parts: dict[tuple[str, str], list[dict[str, Any]]]) -> list[str]:
    """A row for each learner: return, cost and share of the episodes above the limit at each point."""
    lines = ["| | seeds | " + " | ".join(f"{point}: return, cost, above" for point in _POINTS) + " |"]
    lines.append("|---|---|" + "---|" * len(_POINTS))
    for policy, files in found.items():
        cells = [f"{policy} | {len(files)}"]
        for point in _POINTS:
            of_seeds = parts.get((policy, point))
            if of_seeds is None:
                cells.append("")
                continue
            above = f"{float(np.mean([x['share_above_limit'] for x in of_seeds])):.0%}"
            cells.append(", ".join([*_return_and_cost(of_seeds), above]))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _return_and_cost(of_seeds: list[dict[str, Any]]) -> tuple[str, str]:
    """Means over seeds with their intervals; of several costs the highest one."""
    returns = [float(x["return_mean"]) for x in of_seeds]
    costs = [float(np.max(x["cost_mean"])) for x in of_seeds]
    return (
        mean_text(float(np.mean(returns)), mean_interval(returns)),
        mean_text(float(np.mean(costs)), cost_interval(costs)),
    )


def _plot(options: argparse.Namespace, rest: list[str]) -> int:
    found = _adapted(options)
    if not all(file["curves"] for files in found.values() for file in files):
        sys.exit("not every run has curves: adapt it with --curve-tasks of at least 1")
    plot_adaptation(options.out, found, options.family)
    print(options.out)
    return 0


def _share(values: list[float]) -> str:
    """The mean of shares over seeds; a seed's tasks and episodes depend on each other through its policy."""
    return share_text(float(np.mean(values)), mean_interval(values, lowest=0.0, highest=1.0))


def _training(options: argparse.Namespace, rest: list[str]) -> int:
    folder = RESULTS / options.family
    found = _read(options, "seed")
    if not found:
        sys.exit(f"no results in {folder}: run 'run' first")
    rows = []
    for learner, files in found.items():
        for file in files:
            cosine = np.array(file["curve"].get("cosine", []))
            quarters = (
                [f"{np.nanmean(part):.2f}" for part in np.array_split(cosine, 4)] if len(cosine) else []
            )
            rows.append([learner, str(file["config"]["seed"]), *(quarters or ["-"] * 4)])
    header = ["policy", "seed", *(f"{name} quarter" for name in ("1st", "2nd", "3rd", "4th"))]
    print(text_table(header, rows))
    print("cosine between first-order and exact meta-gradient, mean over meta-iterations")
    plot_training(options.out, found, options.family)
    print(options.out)
    return 0


def _write_csv(path: Path, found: Found) -> None:
    with path.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        header = ["policy", "run", "task_seed", "steps", "test_return", "test_cost"]
        table.writerow([*header, "data_return", "data_cost", "data_above"])
        for policy, files in found.items():
            for file in files:
                for curve in file["curves"]:
                    for k, (test, data) in enumerate(zip(curve["tested"], curve["collected"], strict=True)):
                        row = [policy, file["run"], curve["task"]["task_seed"], k, *_numbers(test)]
                        share = "" if data is None else f"{data['share_above_limit']:.4g}"
                        table.writerow([*row, *_numbers(data), share])


def _numbers(summary: dict[str, Any] | None) -> list[str]:
    if summary is None:
        return ["", ""]
    return [f"{summary['return_mean']:.5g}", f"{np.max(summary['cost_mean']):.5g}"]


if __name__ == "__main__":
    sys.exit(main())
