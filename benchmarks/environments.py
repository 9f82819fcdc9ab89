"""Speed and identity of environments against the stock safety-gymnasium package.

    python benchmarks/environments.py            # the bar: SafetyPointCircle1-v0, 10 times as fast
    python benchmarks/environments.py --all      # and four more tasks
    python benchmarks/environments.py --ids      # build, reset and step every id of both suites

Whole episodes are run with the same seeds and actions, one on the stock environment and one on
ours in turn, so that whatever else the machine does meets both. The time is that of `reset` and
`step`; a first episode of each is not counted. Rewards, costs and ends must be equal, observations
equal after the cast to float32. The exit status is 1 if the bar is missed, a number differs, or an
id cannot be built.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fsrl_ext.env import list_tasks, make, time_limit
from fsrl_ext.env.safety_import import import_safety_gymnasium

BAR_TASK, BAR = "SafetyPointCircle1-v0", 10.0
MORE_TASKS = (
    "SafetyCarCircle1-v0",
    "SafetyPointGoal1-v0",
    "SafetyPointButton1-v0",
    "SafetyPointPush1-v0",
)

# One step: observation [D], and reward, cost, terminated, truncated.
Step = tuple[np.ndarray, tuple[float, float, bool, bool]]


def stock_step(env: Any, action: np.ndarray) -> tuple[Any, float, float, bool, bool]:
    observation, reward, cost, terminated, truncated, _ = env.step(action)
    return observation, reward, cost, terminated, truncated


def our_step(env: Any, action: np.ndarray) -> tuple[Any, float, float, bool, bool]:
    observation, reward, terminated, truncated, info = env.step(action)
    return observation, reward, info["cost"], terminated, truncated


def episode(
    env: Any, step: Callable[..., Any], actions: np.ndarray, seed: int | None
) -> tuple[float, list[Step]]:
    """Run one episode.

    :param actions: ``[T, A]``, as many as the episode can have steps.
    :param seed: None goes on with the environment's random stream.
    :return: the seconds of reset and steps, and the steps.
    """
    start = time.perf_counter()
    observation, _ = env.reset(seed=seed)
    seen: list[Any] = [(observation, 0.0, 0.0, False, False)]
    for action in actions:
        seen.append(step(env, action))
        if seen[-1][3] or seen[-1][4]:
            break
    seconds = time.perf_counter() - start
    return seconds, [(np.asarray(obs, dtype=np.float32), tuple(rest)) for obs, *rest in seen]


def identical(a: list[Step], b: list[Step]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x[0], y[0]) and x[1] == y[1] for x, y in zip(a, b, strict=True)
    )


def compare(task: str, episodes: int) -> tuple[float, bool]:
    """Print one row; return the ratio of speeds and whether all numbers agree."""
    stock, ours = import_safety_gymnasium().make(task), make(task)
    rng = np.random.default_rng(0)
    seconds, steps, same = np.zeros(2), 0, True
    for number in range(episodes + 1):
        shape = (time_limit(ours), *ours.action_space.shape)
        actions = rng.uniform(ours.action_space.low, ours.action_space.high, shape)
        # The stock package agrees with itself only from its first seeded reset on.
        seed = 0 if number == 0 else None
        stock_seconds, theirs = episode(stock, stock_step, actions, seed)
        our_seconds, mine = episode(ours, our_step, actions, seed)
        same = same and identical(theirs, mine)
        if number > 0:
            seconds += stock_seconds, our_seconds
            steps += len(mine) - 1
    stock_rate, our_rate = steps / seconds
    ratio = our_rate / stock_rate
    verdict = "identical" if same else "DIFFERENT"
    row = f"{task:24s} {episodes:8d} {stock_rate:12.0f} {our_rate:12.0f} {ratio:7.1f}"
    print(f"{row}  {verdict}", flush=True)
    return ratio, same


def build_all() -> bool:
    """Build, reset and step every task of both suites; print what fails."""
    failed = 0
    tasks = [task for task in list_tasks() if task.installed]
    start = time.perf_counter()
    for task in tasks:
        try:
            env = make(task.id)
            env.reset(seed=0)
            if "Debug" not in task.id:  # these are steered by a keyboard
                env.step(env.action_space.sample())
            env.close()
        except Exception as error:
            failed += 1
            print(f"{task.id}: {error!r}", flush=True)
    seconds = time.perf_counter() - start
    print(f"{len(tasks) - failed} of {len(tasks)} ids built, reset and stepped in {seconds:.0f} s")
    return failed == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="more tasks than the one with a bar")
    parser.add_argument("--ids", action="store_true", help="build every id instead")
    parser.add_argument("--episodes", type=int, default=5, help="counted episodes of each")
    options = parser.parse_args()
    if options.ids:
        return 0 if build_all() else 1
    print(f"{'task':24s} {'episodes':>8s} {'stock step/s':>12s} {'ours step/s':>12s} {'ratio':>7s}")
    ratio, same = compare(BAR_TASK, options.episodes)
    passed = same and ratio >= BAR
    if options.all:
        for task in MORE_TASKS:
            passed = compare(task, options.episodes)[1] and passed
    print(f"{'passed' if passed else 'MISSED'}: {BAR_TASK} {ratio:.1f}x, bar {BAR:.0f}x, identical")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
