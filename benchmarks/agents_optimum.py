"""Trains a team of two agents whose best policy within a cost limit is known, and says who comes close.

    python benchmarks/agents_optimum.py [--policies cvpo,ppo_lag] [--steps 24000] [--set kl_bound=0.05]

Each policy trains with shared and with independent actors, with a limit for the team and with one for each
agent: four runs. The last policy's deterministic episodes are judged. A run passes if return and costs are
within 5% of the optimum's, or the costs are lower. ``seconds`` are processor seconds, because they do not
depend on what else the machine does. The task is ``ThrottlesEnv`` of ``tests/toys/teams.py``. The command
exits with 0 if all runs pass.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from toys.teams import team_optimum, team_return

from fsrl_ext.experiment import make_config, run
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.report import text_table

TASK = "toys.teams:make_throttles"
TEAM_LIMIT = 11.0
AGENT_LIMITS = (5.0, 6.0)
"""Limits of "slow" and "fast", whose best throttles are a tenth of them."""
NEAR = 0.05
"""How far from the optimum a run may be, as a share of the optimum."""
POLICIES = "cvpo,sac_lag,ppo_lag,cpo"
_SETTINGS: dict[str, Any] = {
    **{"num_envs": 4, "hidden_sizes": (32, 32), "threads": 1, "step_per_collect": 400},
    **{"selections": 1, "selection_episodes": 10, "final_episodes": 10, "normalise_steps": 4_000},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--policies", default=POLICIES, help=f"separated by commas (default: {POLICIES})")
    parser.add_argument("--agents", default="shared,independent")
    parser.add_argument("--cost-units", default="team,agent")
    parser.add_argument("--steps", type=int, default=24_000, help="environment steps of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of all runs")
    options = parser.parse_args()
    runs = itertools.product(
        options.policies.split(","), options.agents.split(","), options.cost_units.split(",")
    )
    rows = []
    for policy, agents, cost_unit in runs:
        rows.append([policy, agents, cost_unit, *judge(policy, agents, cost_unit, options)])
        print(*rows[-1], flush=True)
    head = ["policy", "actors", "limit of", "return / optimum", "cost / limit", "seconds", "passes"]
    print(text_table(head, rows, left=(0, 1, 2)))
    return 0 if all(row[-1] == "yes" for row in rows) else 1


def judge(policy: str, agents: str, cost_unit: str, options: argparse.Namespace) -> list[str]:
    """Trains one team; returns the last columns of its row."""
    known = list_settings(policy)
    values = {name: value for name, value in _SETTINGS.items() if name in known}
    for setting in options.set:
        name, _, text = setting.partition("=")
        values[name] = known[name].parse(text)
    limits = (TEAM_LIMIT,) if cost_unit == "team" else AGENT_LIMITS
    best = team_optimum(TEAM_LIMIT)[2] if cost_unit == "team" else team_return(*(x / 10 for x in limits))
    config = make_config(
        policy,
        TASK,
        **values,
        agents=agents,
        cost_unit=cost_unit,
        cost_limit=limits,
        steps=options.steps,
        seed=options.seed,
    )
    before = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        judged = run(config, out=folder, show_progress=False, cores=1).result["last"]
    seconds = time.process_time() - before
    earned = judged["return_mean"] / best
    costs = [cost / limit for cost, limit in zip(judged["cost_mean"], limits, strict=True)]
    passes = abs(earned - 1) <= NEAR and max(costs) <= 1 + NEAR
    shares = ", ".join(f"{x:.3f}" for x in costs)
    return [f"{earned:.3f}", shares, f"{seconds:.0f}", "yes" if passes else "no"]


if __name__ == "__main__":
    sys.exit(main())
