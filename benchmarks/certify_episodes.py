"""Simulates how many episodes ``fsrl-ext evaluate RUN --certify 0.95`` needs, by the mean cost of an episode.

    python benchmarks/certify_episodes.py

Costs of episodes are drawn from a gamma distribution of shape 2, cut at the bound. The script prints the
median over the simulations of the first number of episodes that decides, looked for after every ten.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from fsrl_ext.report import text_table
from fsrl_ext.report.betting import log_capital_above, log_capital_below

GROUP, MOST = 10, 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--limit", type=float, default=10.0)
    parser.add_argument("--bound", type=float, default=300.0)
    parser.add_argument("--means", type=float, nargs="+", default=[5.0, 8.0, 13.0])
    parser.add_argument("--simulations", type=int, default=20)
    options = parser.parse_args()
    rng, limit = np.random.default_rng(0), options.limit / options.bound
    rows = []
    for mean in options.means:
        counts = []
        for _ in range(options.simulations):
            costs = np.minimum(rng.gamma(2.0, mean / 2.0, MOST) / options.bound, 1.0)
            counts.append(next((n for n in range(GROUP, MOST + 1, GROUP) if decided(costs[:n], limit)), MOST))
        rows.append([f"{mean:g}", f"{np.median(counts):.0f}"])
    print(text_table(["mean cost", "episodes, median"], rows))


def decided(costs: np.ndarray, limit: float) -> bool:
    """Tells whether costs in units of the bound decide at a confidence of 0.95."""
    return max(log_capital_above(costs, limit), log_capital_below(costs, limit)) >= math.log(20)


if __name__ == "__main__":
    main()
