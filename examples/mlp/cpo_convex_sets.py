"""One step of CPO with a convex set of your own beside the cost limits.

The first cost is above its limit. The second one has no limit, but no step may change it by more than a tenth
of what the trust region allows, and no direction may use more than half of the region's radius.

python examples/mlp/cpo_convex_sets.py
"""

import cvxpy
import torch

from fsrl_ext.functional.constrained_step import StepExpressions, constrained_step


def gentle(step: StepExpressions) -> list[cvxpy.Constraint]:
    """The set: convex constraints on expressions without units (docs/convex_sets.md)."""
    return [cvxpy.abs(step.cost_changes[1]) <= 0.1, cvxpy.norm_inf(step.coordinates) <= 0.5]


def main() -> None:
    # Gradients of the negative reward surrogate and of two cost surrogates in 1,000 parameters, and the
    # inverse of the metric. In a policy's update they come from a rollout and from its Fisher matrix.
    torch.manual_seed(0)
    a = torch.randn(2, 1000)
    g = torch.randn(1000) - a.sum(0)
    variances = torch.rand(1000) + 0.5
    kl_bound = 0.01
    reach = (2 * kl_bound * (a.square() @ variances)).sqrt()  # the most that a step can change each cost
    b = torch.tensor([0.2 * float(reach[0]), -torch.inf])  # the first is exceeded, the second has no limit

    problem = {"kl_bound": kl_bound, "inverse_metric": lambda z: variances * z}
    plain = constrained_step(g, a, b, **problem)
    held = constrained_step(g, a, b, backend="cvxpylayers", extra_constraints=gentle, **problem)
    for name, answer in (("cost limits alone", plain), ("with the set", held)):
        changes = (a @ answer.step / reach).tolist()
        print(
            f"{name}: case {answer.case}, expected improvement {-answer.predicted_objective:.2f}, "
            f"costs change by {changes[0]:+.0%} and {changes[1]:+.0%} of their reach, "
            f"KL {answer.predicted_kl:.4f} of {kl_bound:g}"
        )


if __name__ == "__main__":
    main()
