"""``H^-1`` by conjugate gradient, with a record of how well it went.

Source: Schulman et al., "Trust Region Policy Optimization", ICML 2015 (arXiv 1502.05477), appendix C.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from torch import Tensor

from fsrl_ext.functional.trust_region import conjugate_gradient


class InverseMetric:
    """``z [P] -> H^-1 z [P]``, for the constrained step and its derivative.

    Stopped early, conjugate gradient is neither linear nor symmetric, and a derivative that uses it is as
    exact as its residual is small. It keeps ``matvec`` alive, and with a ``FisherVectorProduct`` its graph.

    :param matvec: ``z -> H z``, symmetric positive definite and fixed.
    :param max_iterations: products with H per call at most.
    :param tolerance: on ``|H x - z| / |z|``.
    :ivar worst_residual: largest one of all calls so far.
    :ivar statuses: how the calls ended (see ``CGResult``), counted.
    """

    def __init__(
        self, matvec: Callable[[Tensor], Tensor], *, max_iterations: int = 15, tolerance: float = 1e-8
    ) -> None:
        self.matvec, self.max_iterations, self.tolerance = matvec, max_iterations, tolerance
        self.worst_residual = 0.0
        self.statuses: Counter[str] = Counter()

    def __call__(self, z: Tensor) -> Tensor:
        found = conjugate_gradient(
            self.matvec, z, max_iterations=self.max_iterations, tolerance=self.tolerance
        )
        self.worst_residual = max(self.worst_residual, found.residual)
        self.statuses[found.status] += 1
        return found.solution
