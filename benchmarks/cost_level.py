"""Shows which episode cost the level of discounted cost critics stands for, and how CVPO's estimate follows.

    python benchmarks/cost_level.py exact
    python benchmarks/cost_level.py train cvpo first_six [--set time_limits=end] [--rows 10]

Both use the tasks with a known optimum (``docs/known_optimum.md``) at their default limit. ``exact`` solves
for the values that n-step targets of the best policy have as their fixed point, one value for each
observation, and converts their mean to the episode cost that it stands for. Where the last observation of an
episode is seen at no other time, no target teaches its value; the table has two guesses. ``train`` trains
with the settings of ``benchmarks/known_optimum.py`` and prints the columns of its log that compare the level
of the critics with measured costs. ``docs/cost_level.md`` explains both.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile

import gymnasium as gym
import numpy as np
from known_optimum import CASES, config_for, constrained_policies

from fsrl_ext.env import make
from fsrl_ext.experiment import run as run_experiment
from fsrl_ext.functional.returns import cost_threshold
from fsrl_ext.report import read_progress, text_table

WINDOWS = {"all steps": None, "first six": (0, 6), "last six": (34, 40)}
LIMIT = 3.0
COLUMNS = ("measured_cost", "critic_level", "episode_cost")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    exact = commands.add_parser("exact", help="levels of exact critics")
    exact.set_defaults(command=_exact)
    exact.add_argument("--gamma", type=float, default=0.97)
    exact.add_argument("--estimation-step", type=int, default=2)
    train = commands.add_parser("train", help="levels of the critics of a training run")
    train.set_defaults(command=_train)
    train.add_argument("policy", choices=constrained_policies())
    train.add_argument("case", choices=CASES)
    train.add_argument("--steps", type=int, default=60_000)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--rows", type=int, default=10, help="rows of the table, each a mean over its steps")
    train.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting")
    options = parser.parse_args()
    try:
        options.command(options)
    except ValueError as error:
        parser.error(str(error))


def _exact(options: argparse.Namespace) -> None:
    rows = []
    for place, window in WINDOWS.items():
        for clock in (False, True):
            env = make("KnownOptimum-v0", window=window, clock=clock)
            seen, costs = best_episode(env, LIMIT)
            # The value in every step if the cost is spread evenly and goes on for ever
            even = cost_threshold(LIMIT, max_episode_steps=len(costs), gamma=options.gamma, unit="stationary")
            levels = [
                fixed_point(seen, costs, options.gamma, options.estimation_step, guess).mean()
                for guess in (0.0, even)
            ]
            row = [place, "yes" if clock else "no", f"{costs.sum():.2f}", f"{even:.2f}"]
            rows.append([*row, *(f"{x:.2f} ({LIMIT * x / even:.2f})" for x in levels)])
    heads = ["cost in", "time observed", "episode cost", "threshold"]
    print(text_table([*heads, "mean Q_c (stands for)", "with the other guess"], rows))
    print("The value of a last observation that is seen at no other time is 0, or in the last column")
    print("the threshold.")


def best_episode(env: gym.Env, limit: float) -> tuple[list[bytes], np.ndarray]:
    """Plays the best policy; returns the observations ``[T + 1]`` as keys, and the costs ``[T]``."""
    throttle, _ = env.unwrapped.optimum(limit)
    obs, _ = env.reset(seed=0)
    seen, costs, ended = [obs.tobytes()], [], False
    while not ended:
        # The third entry tells whether the step is inside of the window that costs.
        x = throttle if obs[2] > 0 else 1.0
        obs, _, terminated, ended, info = env.step(np.array([2 * x - 1], np.float32))
        assert not terminated
        seen.append(obs.tobytes())
        costs.append(info["cost"])
    return seen, np.array(costs)


def fixed_point(
    seen: list[bytes], costs: np.ndarray, gamma: float, num_steps: int, guess: float
) -> np.ndarray:
    """Returns the value ``[T]`` at each step that equals the mean of its n-step targets.

    :param seen: ``[T + 1]`` observations; steps with the same one share a value.
    :param costs: ``[T]``.
    :param guess: value of the last observation, if no step begins with it.
    """
    horizon = len(costs)
    keys = {key: i for i, key in enumerate(dict.fromkeys(seen[:-1]))}
    matrix, targets = np.eye(len(keys)), np.zeros(len(keys))
    share = 1.0 / np.array([seen[:-1].count(key) for key in keys])
    for t, key in enumerate(seen[:-1]):
        i, end = keys[key], min(t + num_steps, horizon)
        targets[i] += share[i] * (gamma ** np.arange(end - t) @ costs[t:end])
        weight = share[i] * gamma ** (end - t)
        if seen[end] in keys:
            matrix[i, keys[seen[end]]] -= weight
        else:
            targets[i] += weight * guess
    values = np.linalg.solve(matrix, targets)
    return values[[keys[key] for key in seen[:-1]]]


def _train(options: argparse.Namespace) -> None:
    config = config_for(
        options.policy, options.case, steps=options.steps, seed=options.seed, settings=options.set
    )
    with tempfile.TemporaryDirectory() as folder:
        done = run_experiment(config, out=folder, run_name="run", show_progress=False)
        log = read_progress(done.folder)
    known = [name for name in COLUMNS if f"update/constraint/{name}" in log]
    ends = np.linspace(0, options.steps, options.rows + 1)
    rows = []
    for begin, end in itertools.pairwise(ends):
        inside = (log["env_step"] > begin) & (log["env_step"] <= end)
        means = [np.nanmean(log[f"update/constraint/{name}"][inside]) for name in known]
        rows.append([f"{end:,.0f}", *(f"{x:.2f}" for x in means)])
    print(f"{options.policy}, {options.case}, limit {config.cost_limit[0]:g}, seed {options.seed}")
    print(text_table(["until step", *known], rows))


if __name__ == "__main__":
    main()
