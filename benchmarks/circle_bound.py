"""Computes the highest return that any policy can have on safety-gymnasium's Circle tasks, whatever it costs.

    python benchmarks/circle_bound.py

The reward is a tenth of the tangential speed over ``1 + |distance from the circle|``, so the return of an
episode is at most a tenth of the sum of its speeds. Point is never faster than when it drives straight on
from rest with full throttle and without turning; the script drives so with several throttles.
"""

from __future__ import annotations

import argparse

import numpy as np

import fsrl_ext.env
from fsrl_ext.report import text_table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", nargs="+", default=["SafetyPointCircle0-v0", "SafetyPointCircle1-v0"])
    parser.add_argument("--throttles", type=float, nargs="+", default=[0.01, 0.03, 0.05, 0.1, 0.5, 1.0])
    options = parser.parse_args()
    rows = []
    for task in options.tasks:
        for throttle in options.throttles:
            speeds = _speeds(task, throttle)
            rows.append([task, f"{throttle:g}", f"{speeds[-1]:.3f}", f"{0.1 * speeds.sum():.1f}"])
    print(text_table(["task", "throttle", "final speed", "return at most"], rows))
    return 0


def _speeds(task: str, throttle: float) -> np.ndarray:
    """Returns the speed after every step of an episode at constant throttle, in m/s."""
    env = fsrl_ext.env.make(task)
    env.reset(seed=0)
    agent = env.unwrapped.simulator.unwrapped.task.agent  # type: ignore[attr-defined]
    speeds, over = [], False
    while not over:
        *_, terminated, truncated, _ = env.step(np.array([throttle, 0.0], np.float32))
        speeds.append(float(np.linalg.norm(agent.vel[:2])))
        over = terminated or truncated
    env.close()
    return np.array(speeds)


if __name__ == "__main__":
    raise SystemExit(main())
