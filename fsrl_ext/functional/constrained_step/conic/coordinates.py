"""The constrained step's problem in unit coordinates, as a differentiable function of a few numbers.

Letters: ``P`` parameters, ``m`` constraints, ``n = m + 1`` gradients and coordinates.

With ``Z = [a_1 .. a_m, g]`` and the Cholesky factor ``L L^T = Z H^-1 Z^T`` every step that can be optimal is
``x = H^-1 Z^T c`` with ``L^T c = sqrt(2 delta) z`` and z in the unit ball; ``Z x`` is ``sqrt(2 delta) L z``.
No product with H is needed, and no matrix of P rows and columns. The problem and the weights c depend on the
gradients only through the Gram matrix ``Z H^-1 Z^T``, so autograd sees ``n x n`` numbers, and
:mod:`~fsrl_ext.functional.constrained_step.conic.step` does the rest of the derivative by hand.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fsrl_ext.errors import NonFiniteError

# Squared sine of the angle below which a gradient counts as a combination of those before it: the products
# Z H^-1 Z^T do not resolve less than about 1e-16 in float64.
_PARALLEL = 1e-12
# A constraint that is met by this much (in units of its largest change in the trust region) never binds.
_NEVER = -2.0


class ReducedProblem:
    """A problem in the unit ball: minimise ``objective . z`` where ``rows z + offsets <= 0``.

    Everything is float64. ``rows``, ``offsets``, ``objective`` and :meth:`weights` are on the CPU and carry
    gradient in ``gram`` and ``surplus``; the gradients and their images are on the device of ``g``.

    :ivar gradients: ``[n, P]``: ``a_1 .. a_m, g``, each divided by its largest entry ``unit [n]``.
    :ivar images: ``H^-1`` times the gradients ``[n, P]``.
    :ivar gram: ``[n, n]`` inner products of the gradients with the images.
    :ivar surplus: b ``[m]``.
    :ivar rows: ``[m, n]`` of unit length, or zero for a zero gradient.
    :ivar offsets: ``[m]``, ``b_i / (radius sizes_i)``, at least -2; of a zero gradient 1 if blocked, else -2.
    :ivar objective: ``[n]`` of unit length, or zero.
    :ivar sizes: ``sqrt(a_i . H^-1 a_i)`` ``[m]``, a constant.
    :ivar slope: ``sqrt(g . H^-1 g)``, a constant.
    :ivar radius: ``sqrt(2 delta)``.
    :ivar dependent: ``[n]`` bool: whether a gradient is not zero, is a combination of those before it and
        could be turned out of their span. Such a gradient has no coordinate of its own, so the derivative in
        it would not be complete.
    :raises ValueError: if ``H^-1`` is found not to be positive definite.
    :raises NonFiniteError: if ``inverse_metric`` returns NaN or infinity.
    """

    def __init__(
        self,
        g: Tensor,
        a: Tensor,
        b: Tensor,
        radius: float,
        inverse_metric: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.radius, self._dtype, self._inverse_metric = radius, g.dtype, inverse_metric
        gradients = torch.cat([a, g[None]]).detach().double()
        largest = gradients.abs().amax(dim=1)
        self.unit = torch.where(largest > 0.0, largest, 1.0)
        self.gradients = gradients / self.unit[:, None]
        self.images = torch.stack([self.image(z) for z in self.gradients])
        gram = (self.gradients @ self.images.T).cpu()
        self.gram = (0.5 * (gram + gram.T)).requires_grad_()
        self.surplus = b.detach().double().cpu().clone().requires_grad_()
        square, unit = self.gram.detach().diagonal(), torch.where(largest > 0.0, largest, 0.0).cpu()
        if (square[unit > 0.0] <= 0.0).any():
            raise ValueError(
                f"inverse_metric must be positive definite, got z . H^-1 z = {float(square.min())}"
            )
        with torch.enable_grad():
            self._pose(unit)

    def _pose(self, unit: Tensor) -> None:
        """Set rows, offsets and objective; the coordinate of a dependent gradient has no effect."""
        gram, radius, n = self.gram, self.radius, len(self.gram)
        self._kept = _independent(gram.detach(), max(_PARALLEL, torch.finfo(self._dtype).eps ** (4.0 / 3.0)))
        self._factor = torch.linalg.cholesky(gram[self._kept][:, self._kept])
        values = torch.linalg.solve_triangular(self._factor, gram[self._kept], upper=False).T
        values = gram.new_zeros(n, n).index_copy(1, self._kept, values)
        moves = values.detach().abs().amax(dim=1) > 0.0
        length = torch.where(moves[:, None], values, 1.0).norm(dim=1)
        rows = torch.where(moves[:, None], values / length[:, None], 0.0)
        sizes = torch.where(moves, length * unit, 0.0)
        fixed = sizes.detach()
        on = moves[:-1] & torch.isfinite(self.surplus)
        still = torch.where(self.surplus > 0.0, 1.0, _NEVER).to(gram)
        offsets = torch.where(on, self.surplus, 0.0) / (radius * torch.where(moves, sizes, 1.0)[:-1])
        self.rows, self.objective = rows[:-1], rows[-1]
        self.offsets = torch.where(on, offsets, still).clamp(min=_NEVER)
        self.sizes, self.slope = fixed[:-1], float(fixed[-1])
        self.dependent = unit > 0.0
        self.dependent[self._kept] = False
        if len(self._kept) == self.gradients.shape[1]:
            self.dependent[:] = False

    def image(self, z: Tensor) -> Tensor:
        """Return ``H^-1 z [P]`` in float64; ``inverse_metric`` gets z in the dtype of ``g``."""
        image = z if self._inverse_metric is None else self._inverse_metric(z.to(self._dtype)).detach()
        if not torch.isfinite(image).all():
            raise NonFiniteError("inverse_metric returned NaN or infinity")
        return image.double()

    def weights(self, z: Tensor) -> Tensor:
        """Return c ``[n]`` of the step ``x = sum_i c_i images_i`` at ``z [n]``, with gradient."""
        right = self.radius * z[self._kept, None]
        weights = torch.linalg.solve_triangular(self._factor.T, right, upper=True).squeeze(1)
        return z.new_zeros(len(z)).index_copy(0, self._kept, weights)


def _independent(gram: Tensor, parallel: float) -> Tensor:
    """Return the indices of the gradients that are no combination of those before them."""
    kept: list[int] = []
    for k in range(len(gram)):
        rest = gram[k, k]
        if kept:
            factor = torch.linalg.cholesky(gram[kept][:, kept])
            along = torch.linalg.solve_triangular(factor, gram[kept, k : k + 1], upper=False)
            rest = rest - (along * along).sum()
        if rest > parallel * gram[k, k]:
            kept.append(k)
    return torch.tensor(kept, dtype=torch.long)
