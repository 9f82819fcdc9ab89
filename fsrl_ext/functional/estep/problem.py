"""The E-step's data in units of its own: centred, scaled, and one pass that gives all moments.

Letters: ``B`` states, ``N`` actions per state, ``K = 1 + C`` features (reward first, then costs).

A candidate is ``theta = (beta, nu_1 .. nu_C) >= 0`` with ``beta = 1/temperature`` and
``nu = multiplier/temperature``. Its weights are ``w_ij ~ exp(theta . f_ij)`` with the features
``f = (Q_r, -Q_c^1, ..)``, centred in each state and divided by their root-mean-square. In these
coordinates a problem without a feasible point is the ordinary finite point ``beta = 0``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# exp() of anything below this is finite and its sum over actions too: no need to subtract maxima.
_SAFE_EXPONENT = 300.0


@dataclass(frozen=True)
class Moments:
    """What one pass over the samples tells about ``theta``.

    ``grad[k] = mean_i E_w[f_k]`` is the gradient and ``hess[k, l] = mean_i Cov_w(f_k, f_l)`` the
    Hessian of ``log_partition = mean_i log mean_j exp(theta . f_ij)``; the KL divergence to the
    uniform distribution is ``theta . grad - log_partition`` and its gradient ``hess @ theta``.
    """

    theta: Array
    log_partition: float
    grad: Array
    hess: Array
    kl: float


class Problem:
    """Scaled features ``[K, N, B]``, constraint levels and buffers of one E-step.

    ``levels[m]`` is the constraint ``grad[m] >= levels[m]`` (entry 0, the reward's, is unused);
    ``violation_unit[m]`` is std(Q_c^m) over all B x N entries, in units of the scaled feature;
    ``largest[k]`` bounds ``|features[k]|``.
    """

    def __init__(
        self, features: Array, levels: Array, violation_unit: Array, kl_bound: float, largest: Array
    ) -> None:
        self.num_features, self.num_actions, self.num_states = features.shape
        self.features = features
        self.flat_features = features.reshape(self.num_features, -1)
        self.levels = levels
        self.violation_unit = violation_unit
        self.kl_bound = kl_bound
        # Beyond this inverse temperature the KL budget that is left is worth less than 1e-7 of
        # the reward's unit, so nothing can be gained from a colder softmax.
        self.beta_max = 1e7 * max(1.0, kl_bound)
        self.largest = largest
        self.num_steps = 0
        self._log_n = math.log(self.num_actions)
        self._logits = np.empty((self.num_actions, self.num_states))
        self._weights = np.empty_like(self._logits)
        self._weighted = np.empty_like(self.features)

    def evaluate(self, theta: Array) -> Moments:
        """All moments at ``theta`` ``[K]``; leaves the weights for :meth:`weights`."""
        self.num_steps += 1
        logits, weights, weighted = self._logits, self._weights, self._weighted
        num_states = self.num_states
        np.dot(theta, self.flat_features, out=logits.reshape(-1))
        shift = 0.0
        if float(np.dot(np.abs(theta), self.largest)) > _SAFE_EXPONENT:
            highest = logits.max(0)
            logits -= highest
            shift = float(highest.sum()) / num_states
        np.exp(logits, out=weights)
        norm = np.add.reduce(weights, 0)
        weights /= norm
        log_norm = float(np.add.reduce(np.log(norm))) / num_states - self._log_n
        np.multiply(self.features, weights, out=weighted)
        state_means = np.add.reduce(weighted, 1)
        grad = np.add.reduce(state_means, 1) / num_states
        hess = np.dot(weighted.reshape(self.num_features, -1), self.flat_features.T)
        hess -= np.dot(state_means, state_means.T)
        hess /= num_states
        # From shifted logits, not theta . grad - log_partition: that cancels at large theta.
        kl = float(np.dot(weights.reshape(-1), logits.reshape(-1))) / num_states - log_norm
        return Moments(theta, log_norm + shift, grad, hess, max(kl, 0.0))

    def weights(self) -> Array:
        """Weights ``[N, B]`` of the latest :meth:`evaluate`, a view that the next overwrites."""
        return self._weights

    def moments_at_uniform(self) -> Array:
        """``hess`` ``[K, K]`` at theta = 0, where every weight is 1/N."""
        f = self.flat_features
        return np.dot(f, f.T) / (self.num_states * self.num_actions)


def solve_on_ray(problem: Problem, direction: Array, start: float, limit: float) -> tuple[Moments, bool]:
    """Scale ``s <= limit`` with ``KL(s direction) = kl_bound``; ``(moments, limit reached)``.

    KL grows with ``s``, so Newton in (log s, log KL), where a Gaussian is a straight line, with a
    bracket around the root always ends.
    """
    low, high = 0.0, math.inf
    scale = min(start, limit)
    bound = problem.kl_bound
    moments = problem.evaluate(scale * direction)
    for _ in range(100):
        kl = moments.kl
        if abs(kl - bound) <= 1e-10 * bound:
            return moments, False
        if kl < bound:
            if scale >= limit:
                return moments, True
            low = scale
        else:
            high = scale
        slope = float(direction @ moments.hess @ direction) * scale * scale
        proposal = math.inf
        if kl > 0.0 and slope > 1e-12 * kl:
            exponent = math.log(bound / kl) * kl / slope
            proposal = scale * math.exp(min(max(exponent, -5.0), 5.0))
        if not low < proposal < high:
            if math.isinf(high):
                proposal = 10.0 * scale
            elif low == 0.0:
                proposal = 0.1 * scale
            else:
                proposal = math.sqrt(low * high)
        if not low < proposal < high:  # the bracket is down to neighbouring floats
            break
        scale = min(proposal, limit)
        moments = problem.evaluate(scale * direction)
    if moments.kl > bound * (1 + 1e-9):
        moments = problem.evaluate(low * direction)
    return moments, False
