"""Measures the speed of the families' tasks against safety-gymnasium's own code for the same tasks.

    python benchmarks/meta_tasks.py                     # Point, level 1: a minute
    python benchmarks/meta_tasks.py --agents Point Car --levels 0 1 2 --episodes 10

The script plays whole episodes of the same tasks, seeds and random actions, one of `make(id, fast=False)` and
one of `make(id)` in turn, so that other work of the machine slows both down. It counts the time of resets and
steps, and does not count the first three episodes of each. Everything that both return must be equal, bit for
bit, before the cast to float32; the exit status is 1 if something differs. Results go to
`benchmarks/results/meta_tasks.json`, and `docs_results.py` makes the table of `docs/meta_tasks.md` from it.
"""

import argparse
import pathlib
import sys
import time
from typing import Any

import numpy as np
from measured_tables import meta_tasks as meta_tasks_table

from fsrl_ext.env import make
from fsrl_ext.env.meta.safety_families import AGENTS, KINDS
from fsrl_ext.report.files import read_json, write_json

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "meta_tasks.json"
_WARM_UP = 3  # episodes


def episode(env: Any, actions: np.ndarray, seed: int | None) -> tuple[float, float, list[Any]]:
    """Plays one episode; returns the seconds of reset and steps, and what they returned."""
    start = time.perf_counter()
    observation, _ = env.reset(seed=seed)
    ready = time.perf_counter()
    seen = [(observation,)]
    for action in actions:
        seen.append(env.step(action))
        if seen[-1][2]:
            break
    return ready - start, time.perf_counter() - ready, seen


def equal(stock: list[Any], fast: list[Any]) -> bool:
    """Returns whether two episodes are the same, bit for bit."""
    return len(stock) == len(fast) and all(
        a[0].tobytes() == b[0].tobytes() and a[1:] == b[1:] for a, b in zip(stock, fast, strict=True)
    )


def measure(id: str, episodes: int) -> dict[str, Any]:
    """Measures one task; returns its row of the result."""
    envs = [make(id, fast=False), make(id)]
    for env in envs:
        env._cast = np.array  # all 64 bits
    rng = np.random.default_rng(0)
    seconds, steps, same = np.zeros((2, 2)), 0, True  # [stock or fast, resets or steps]
    for number in range(_WARM_UP + episodes):
        actions = rng.uniform(-1, 1, (500 if number >= _WARM_UP else 20, *envs[0].action_space.shape))
        runs = [episode(env, actions, 0 if number == 0 else None) for env in envs]
        same = same and equal(runs[0][2], runs[1][2])
        if number >= _WARM_UP:
            seconds += [run[:2] for run in runs]
            steps += len(runs[1][2]) - 1
    stock, fast = steps / seconds.sum(1)
    return {
        "task": id,
        "episodes": episodes,
        "stock_steps_per_second": stock,
        "steps_per_second": fast,
        "stock_steps_per_second_without_resets": steps / seconds[0, 1],
        "steps_per_second_without_resets": steps / seconds[1, 1],
        "resets_per_second": episodes / seconds[1, 0],
        "equal": same,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", nargs="*", default=["Point"], choices=AGENTS)
    parser.add_argument("--levels", nargs="*", type=int, default=[1], choices=(0, 1, 2))
    parser.add_argument("--episodes", type=int, default=5)
    options = parser.parse_args()
    ids = [f"Safety{a}{kind}{n}-v0" for a in options.agents for kind in KINDS for n in options.levels]
    known = read_json(RESULTS) if RESULTS.exists() else []
    rows = {row["task"]: row for row in known}
    for id in ids:
        rows[id] = measure(id, options.episodes)
        print(meta_tasks_table([rows[id]])[-1], flush=True)
    ordered = list(rows.values())
    write_json(RESULTS, ordered, indent=1)
    return 0 if all(rows[id]["equal"] for id in ids) else 1


if __name__ == "__main__":
    sys.exit(main())
