"""Trains CPO on SafetyBallCircle-v0 with a convex set of your own beside the cost limit.

No update may raise the predicted cost by more than a tenth of what the trust region allows, even where the
cost is far below its limit.

python examples/mlp/cpo_convex_sets.py --steps 300000
"""

import argparse
import dataclasses
from typing import Any

import cvxpy

from fsrl_ext.experiment import make_config, register_algorithm, run
from fsrl_ext.experiment.registry import algorithm
from fsrl_ext.functional.constrained_step import StepExpressions
from fsrl_ext.report import result_table


def gentle(step: StepExpressions) -> list[cvxpy.Constraint]:
    """The set: convex constraints on expressions without units (docs/convex_sets.md)."""
    return [step.cost_changes[0] <= 0.1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    # A row of your own: CPO, whose policy also gets the set.
    cpo = algorithm("cpo")

    def networks(*shapes: Any, **where: Any) -> dict[str, Any]:
        return {**cpo.networks(*shapes, **where), "extra_constraints": gentle}

    settings = {**cpo.defaults, "step_backend": "cvxpylayers"}
    register_algorithm("gentle_cpo", dataclasses.replace(cpo, networks=networks, defaults=settings))

    config = make_config("gentle_cpo", "SafetyBallCircle-v0", cost_limit=10, steps=args.steps, seed=args.seed)
    done = run(config, out=args.out)
    print(result_table(done.result))
    print(f"curves: {done.folder / 'curves.png'}")


if __name__ == "__main__":
    main()
