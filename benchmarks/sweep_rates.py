"""Prints the table RATES of fsrl_ext/experiment/sweeps/estimate.py from the committed results.

    python benchmarks/sweep_rates.py

A rate is the median over runs of environment steps per second of wall time, with selections and final
evaluation, to two significant digits. Most runs had two cores, and some ran side by side.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path

from fsrl_ext.experiment.defaults import suite_of
from fsrl_ext.experiment.registry import algorithm
from fsrl_ext.experiment.sweeps.estimate import RATES

RESULTS = Path(__file__).parent / "results"


def measured_rates() -> dict[str, dict[str, float]]:
    """Steps per second by policy and suite."""
    rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(RESULTS.rglob("seed*.json")):
        run = json.loads(path.read_text())
        policy = run["config"].get("policy")
        if policy is not None:  # results of other packages have none
            task = algorithm(policy).training.judged_task(run["config"]["task"])
            rates[policy][suite_of(task)].append(run["env_step"] / run["seconds"])
    for path in sorted((RESULTS / "known_optimum").glob("*.json")):
        run = json.loads(path.read_text())
        rates[run["policy"]][suite_of(run["task"])].append(run["steps"] / run["seconds"])
    return {
        policy: {suite: float(f"{statistics.median(x):.2g}") for suite, x in sorted(suites.items())}
        for policy, suites in sorted(rates.items())
    }


if __name__ == "__main__":
    for policy, suites in measured_rates().items():
        print(f'    "{policy}": {json.dumps(suites)},')
    print("as in the package" if measured_rates() == RATES else "not as in the package")
