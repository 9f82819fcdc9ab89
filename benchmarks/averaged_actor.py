"""Trains CVPO once, and judges its newest actor and moving averages of its actors along the way.

    python benchmarks/averaged_actor.py run SafetyPointCircle1-v0 --steps 1000000 --rates 0.05 0.01 --out runs
    python benchmarks/averaged_actor.py table runs/NAME

An average takes in the newest actor after each collect, with the given weight, so that a weight of 0.01 is
an average over about 100 collects. Training is that of ``fsrl-ext train`` number for number, because the
averages only watch. From half of the run on, after each selection, all of them play the same episodes with
deterministic actions. The episodes are written to ``averages.jsonl`` in the run folder.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsrl_ext.env import env_fn
from fsrl_ext.experiment import RunCallback, make_config, run
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.training.build import check_task, test_collector
from fsrl_ext.experiment.training.callbacks import RunView
from fsrl_ext.report import text_table
from fsrl_ext.trainer.evaluation import evaluate_policy
from fsrl_ext.trainer.seeds import seed_range

FILE = "averages.jsonl"


class Averages(RunCallback):
    """Keeps moving averages of the actor of a run, and plays episodes with them.

    :param rates: weight of the newest actor in each average, per collect.
    :param episodes: episodes of each actor after a selection.
    """

    def __init__(self, rates: list[float], episodes: int) -> None:
        self.actors: dict[float, torch.nn.Module] = {}
        self.rates = rates
        self.episodes = episodes

    def on_collect_end(self, run: RunView) -> None:
        actor = run.policy.actor
        for rate in self.rates:
            if rate not in self.actors:
                self.actors[rate] = copy.deepcopy(actor)
            with torch.no_grad():
                for mean, newest in zip(self.actors[rate].parameters(), actor.parameters(), strict=True):
                    mean.lerp_(newest, rate)

    def on_selection(self, run: RunView) -> None:
        if run.env_step < run.config.steps / 2:
            return
        policy = copy.deepcopy(run.policy)
        collector = test_collector(
            policy,
            run.config,
            check_task(run.config),
            episodes=self.episodes,
            make_env=env_fn(run.config.env_id, **run.config.env_arguments),
        )
        for rate, actor in {1.0: run.policy.actor, **self.actors}.items():
            policy.actor.load_state_dict(actor.state_dict())
            judged = evaluate_policy(
                collector,
                seed_range("selection", self.episodes),
                cost_limit=run.config.cost_limit,
                env_step=run.env_step,
            )
            row = {"env_step": run.env_step, "rate": rate, "returns": judged.returns.tolist()}
            with (run.folder.path / FILE).open("a") as file:
                file.write(json.dumps(row | {"costs": judged.costs.tolist()}) + "\n")
        collector.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("run")
    train.add_argument("task")
    train.add_argument("--steps", type=int, default=1_000_000)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.01])
    train.add_argument("--episodes", type=int, default=20)
    train.add_argument("--out", default="runs")
    train.add_argument("--run-name")
    train.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting")
    table = commands.add_parser("table")
    table.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.command == "table":
        print_table(options.folder)
        return 0
    known = list_settings("cvpo")
    pairs = [x.partition("=") for x in options.set]
    settings: dict[str, Any] = {name: known[name].parse(value) for name, _, value in pairs}
    config = make_config("cvpo", options.task, steps=options.steps, seed=options.seed, **settings)
    watch = Averages(options.rates, options.episodes)
    run(config, out=options.out, run_name=options.run_name, show_progress=False, callbacks=[watch], cores=1)
    return 0


def print_table(folder: Path) -> None:
    """Prints the mean over all selections, and the spread between them, for each average."""
    by_rate: dict[float, list[dict[str, Any]]] = {}
    for line in (folder / FILE).read_text().splitlines():
        row = json.loads(line)
        by_rate.setdefault(row["rate"], []).append(row)
    rows_of_table = []
    for rate, rows in by_rate.items():
        returns = np.array([np.mean(row["returns"]) for row in rows])
        costs = np.array([np.mean(row["costs"]) for row in rows])
        figures = [f"{x:.1f}" for x in (returns.mean(), returns.std(), costs.mean(), costs.std())]
        rows_of_table.append([f"{rate:g}", str(len(rows)), *figures])
    print(text_table(["weight", "selections", "return", "spread", "cost", "spread"], rows_of_table))


if __name__ == "__main__":
    sys.exit(main())
