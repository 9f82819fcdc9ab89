"""Measures the speed of environments against the stock safety-gymnasium package and against raw physics.

    python benchmarks/environments.py                              # the tasks with a bar
    python benchmarks/environments.py --velocity                   # of these, the velocity tasks
    python benchmarks/environments.py SafetyPointGoal0-v0 --episodes 5
    python benchmarks/environments.py --all                        # every task: hours, stock is slow
    python benchmarks/environments.py --ids    # Gymnasium's checker on every id of both suites

The script plays whole episodes with the same seeds and actions, one on the stock environment and one on ours
in turn, each of them first in every other pair, so that other work of the machine slows both down. The stock
environment of a task with `Fixed` in its name is `make(id, fast=False)`. The script counts the processor time
of `reset` and `step`, and does not count the first three episodes of each, in which our model is compiled.
The ratio is the median over the pairs of episodes; velocity tasks play 20 times as many, because Hopper and
Walker2d fall early. Then it times, in turn again, our steps and raw physics: ten calls of `mj_step` on the
same model with the same actions. Rewards, costs, ends and `info` must be equal, and observations equal as
float32; `environment_equality.py` has the thorough comparison. Results go to
`benchmarks/results/environments.json`, and `docs_results.py` makes the table of `docs/environments.md` from
this file. The exit status is 1 if a bar is missed, a number differs, or an id fails.
"""

import argparse
import pathlib
import subprocess
import sys
import time
from typing import Any

import numpy as np
from environment_equality import all_tasks, difference, our_step, stock_step
from gymnasium.utils.env_checker import check_env
from measured_tables import environments as environments_table

from fsrl_ext.env import list_tasks, make, time_limit
from fsrl_ext.env.safety_gymnasium.importing import import_safety_gymnasium
from fsrl_ext.env.suite_tasks import FIXED_TASKS
from fsrl_ext.report.files import read_json, write_json

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "environments.json"

# Bars are steps per second of whole episodes, as multiples of the stock package's.
BARS = {
    "SafetyPointCircle1-v0": 18.0,
    "SafetyCarCircle1-v0": 9.0,
    "SafetyPointGoal1-v0": 6.0,
    "SafetyPointGoal2-v0": 6.0,
    "SafetyPointPush1-v0": 5.0,
    "SafetyPointButton1-v0": 5.0,
    "SafetyPointButton2-v0": 5.0,
    **dict.fromkeys(FIXED_TASKS, 5.0),
    "SafetyAntVelocity-v1": 0.97,
    "SafetyHalfCheetahVelocity-v1": 0.97,
    "SafetyHopperVelocity-v1": 0.97,
    "SafetyHumanoidVelocity-v1": 0.97,
    "SafetySwimmerVelocity-v1": 0.97,
    "SafetyWalker2dVelocity-v1": 0.97,
}
VELOCITY = [task for task in BARS if "Velocity" in task]
MEMORY_BAR = 40.0  # MB per environment
_WARM_UP = 3  # episodes
_VELOCITY_FACTOR = 20  # velocity episodes for each counted episode of another task
_ENVIRONMENTS = 4  # whose memory is averaged


def episode(env: Any, step: Any, actions: np.ndarray, seed: int | None) -> tuple[float, float, list[Any]]:
    """Plays one episode; returns the seconds of `reset`, the seconds of the steps, and the steps.

    :param actions: ``[T, A]`` with T the largest number of steps of an episode.
    """
    start = time.process_time()
    observation, _ = env.reset(seed=seed)
    ready = time.process_time()
    raw = []
    for action in actions:
        raw.append(env.step(action))
        if raw[-1][-3] or raw[-1][-2]:
            break
    end = time.process_time()
    replay = iter(raw)
    recorded = _Recorded(replay)
    seen = [(np.array(observation), 0.0, 0.0, False, False, {})]
    return ready - start, end - ready, seen + [step(recorded, None) for _ in raw]


class _Recorded:
    """Returns steps that were taken before, so that their conversion is not timed."""

    def __init__(self, steps: Any) -> None:
        self._steps = steps

    def step(self, action: Any) -> Any:
        return next(self._steps)


def physics_share(env: Any, steps: int = 600, rounds: int = 5) -> tuple[float, float]:
    """Returns medians of steps/s of ten raw `mj_step`, and of the share of it that `env.step` reaches."""
    import mujoco

    task = env.simulator.task if hasattr(env.simulator, "task") else env.simulator.unwrapped
    model, data = task.model, task.data
    count = task.sim_conf.frameskip_binom_n if hasattr(task, "sim_conf") else task.frame_skip
    rng = np.random.default_rng(0)
    actions = rng.uniform(env.action_space.low, env.action_space.high, (steps, *env.action_space.shape))
    raw, ours = [], []
    for _ in range(rounds):
        env.reset()
        model, data = task.model, task.data
        start = time.perf_counter()
        for action in actions:
            data.ctrl[:] = action
            mujoco.mj_step(model, data, count)
        raw.append(steps / (time.perf_counter() - start))
        env.reset()
        start, taken = time.perf_counter(), 0
        for action in actions:
            taken += 1
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                break
        ours.append(taken / (time.perf_counter() - start))
    return float(np.median(raw)), float(np.median(np.array(ours) / np.array(raw)))


def _resident() -> float:
    """Returns the resident memory of this process [MB]."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def print_memory(task: str) -> None:
    """Prints the memory [MB] that one more environment takes, after some resets and steps."""
    kept, before = [], 0.0
    for number in range(_ENVIRONMENTS + 1):
        env = make(task)
        for _ in range(3):
            env.reset()
            for _ in range(20):
                _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                if terminated or truncated:
                    break
        kept.append(env)
        if number == 0:  # the first loads the libraries
            before = _resident()
    print((_resident() - before) / _ENVIRONMENTS)


def memory(task: str) -> float:
    """Returns what `print_memory` prints in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", task]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(task: str, episodes: int) -> dict[str, Any]:
    """Measures one task; returns its row of the result."""
    fixed = task in FIXED_TASKS  # tasks of this package, which the stock package's code runs
    stock: Any = make(task, fast=False) if fixed else import_safety_gymnasium().make(task)
    step_stock, ours = our_step if fixed else stock_step, make(task)
    rng = np.random.default_rng(0)
    resets, steps_s = np.zeros(2), np.zeros(2)
    steps, different = 0, None
    pairs: list[float] = []
    if task in VELOCITY:
        episodes *= _VELOCITY_FACTOR
    horizon = time_limit(ours) or 1000
    for number in range(_WARM_UP + episodes):
        shape = (horizon if number >= _WARM_UP else 20, *ours.action_space.shape)
        actions = rng.uniform(ours.action_space.low, ours.action_space.high, shape)
        # The stock package equals itself only from its first seeded reset on.
        seed = 0 if number == 0 else None
        # Who comes first finds the code of random numbers in the cache, which a reset uses, too.
        if number % 2:
            *stock_seconds, theirs = episode(stock, step_stock, actions, seed)
            *our_seconds, mine = episode(ours, our_step, actions, seed)
        else:
            *our_seconds, mine = episode(ours, our_step, actions, seed)
            *stock_seconds, theirs = episode(stock, step_stock, actions, seed)
        different = different or difference(theirs, mine)
        if number >= _WARM_UP:
            resets += stock_seconds[0], our_seconds[0]
            steps_s += stock_seconds[1], our_seconds[1]
            pairs.append(sum(stock_seconds) / sum(our_seconds))
            steps += len(mine) - 1
    stock_rate, our_rate = steps / (resets + steps_s)
    stock_resets, our_resets = episodes / resets
    raw, share = physics_share(ours)
    return {
        "task": task,
        "episodes": episodes,
        "stock_steps_per_second": stock_rate,
        "steps_per_second": our_rate,
        "ratio": float(np.median(pairs)),
        "bar": BARS.get(task),
        "stock_resets_per_second": stock_resets,
        "resets_per_second": our_resets,
        "raw_steps_per_second": raw,
        "share_of_raw": share,
        "memory_mb": memory(task),
        "difference": different,
    }


def passed(row: dict[str, Any]) -> bool:
    enough = row["bar"] is None or row["ratio"] >= row["bar"]
    return enough and row["difference"] is None and row["memory_mb"] < MEMORY_BAR


def save(rows: list[dict[str, Any]]) -> None:
    """Merges rows into the result file."""
    known = read_json(RESULTS) if RESULTS.exists() else []
    merged = {r["task"]: r for r in [*known, *rows]}
    order = [*BARS, *(task for task in merged if task not in BARS)]
    ordered = [merged[task] for task in order if task in merged]
    RESULTS.parent.mkdir(exist_ok=True)
    write_json(RESULTS, ordered, indent=1)


def build_all() -> bool:
    """Builds every task of both suites, runs Gymnasium's checker on it, and prints what fails."""
    failed = 0
    tasks = [task for task in list_tasks() if task.installed and task.num_agents == 1]
    start = time.perf_counter()
    for task in tasks:
        try:
            env = make(task.id)
            if "Debug" in task.id:  # these are steered by a keyboard
                env.reset(seed=0)
            else:
                check_env(env, skip_render_check=True)
            env.close()
        except Exception as error:
            failed += 1
            print(f"{task.id}: {error!r}", flush=True)
    seconds = time.perf_counter() - start
    print(f"{len(tasks) - failed} of {len(tasks)} ids pass in {seconds:.0f} s")
    return failed == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", help="task ids (default: those with a bar)")
    parser.add_argument("--all", action="store_true", help="every navigation and velocity task")
    parser.add_argument("--velocity", action="store_true", help="the velocity tasks of version v1")
    parser.add_argument("--ids", action="store_true", help="build and check every id instead")
    parser.add_argument("--episodes", type=int, default=3, help="counted episodes of each environment")
    parser.add_argument("--memory-of", metavar="TASK", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print_memory(options.memory_of)
        return 0
    if options.ids:
        return 0 if build_all() else 1
    rows = []
    chosen = VELOCITY if options.velocity else options.tasks or BARS
    for task in all_tasks() if options.all else chosen:
        rows.append(measure(task, options.episodes))
        save(rows)
        print(environments_table(rows[-1:])[-1], flush=True)
    missed = [row["task"] for row in rows if not passed(row)]
    print(f"MISSED: {', '.join(missed)}" if missed else "all bars passed, all numbers equal")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
