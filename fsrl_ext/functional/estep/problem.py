"""The E-step's data in units of its own, and one pass over it that gives all moments.

Letters: ``B`` states, ``N`` actions per state, ``C`` costs, ``K = 1 + C`` features (reward first).

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
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]

# A spread of this many roundings of the input's dtype inside every state is noise.
_NOISE_ROUNDINGS = 4.0
# A smaller probability of the prior counts as this one, so that no feature is larger than about 1e4.
LEAST_LOG_PRIOR = math.log(1e-9)
# Below this exponent exp() and its sum over actions are finite without subtracting the maxima.
_SAFE_EXPONENT = 300.0


def check_inputs(
    q_reward: Tensor,
    q_cost: Tensor,
    *,
    kl_bound: float,
    cost_threshold: Tensor,
    log_prior: Tensor | None = None,
) -> None:
    """Check shapes and values; arguments as in :func:`fsrl_ext.functional.estep.solve_dual`.

    :raises ValueError: if the solver cannot work with one of them.
    """
    if q_reward.ndim != 2 or not q_reward.numel() or not q_reward.is_floating_point():
        raise ValueError(
            "q_reward must be a floating-point tensor [B, N] with B, N >= 1, "
            f"got {q_reward.dtype} {list(q_reward.shape)}"
        )
    if q_cost.ndim != 3 or q_cost.shape[1:] != q_reward.shape or not q_cost.is_floating_point():
        raise ValueError(
            f"q_cost must be a floating-point tensor [C, B, N] = [C, {q_reward.shape[0]}, "
            f"{q_reward.shape[1]}] like q_reward, got {q_cost.dtype} {list(q_cost.shape)}"
        )
    if cost_threshold.shape != (len(q_cost),):
        raise ValueError(
            f"cost_threshold must have shape [C] = [{len(q_cost)}] like q_cost, "
            f"got {list(cost_threshold.shape)}"
        )
    thresholds = cost_threshold.tolist()
    if any(math.isnan(d) or d == -math.inf for d in thresholds):
        raise ValueError(f"cost_threshold must be finite or inf (no constraint), got {thresholds}")
    if not 0.0 < kl_bound < math.inf:
        raise ValueError(f"kl_bound must be a finite number > 0, got {kl_bound}")
    if log_prior is None:
        return
    if log_prior.shape != q_reward.shape or not log_prior.is_floating_point():
        raise ValueError(
            f"log_prior must be a floating-point tensor like q_reward {list(q_reward.shape)}, "
            f"got {log_prior.dtype} {list(log_prior.shape)}"
        )
    totals = log_prior.detach().double().logsumexp(-1)
    if not bool((totals.abs() <= 1e-4).all()):
        raise ValueError(f"log_prior must have probabilities that sum to 1, got the sum {totals.exp()[0]:g}")


def to_numpy(tensor: Tensor) -> np.ndarray:
    """Return a view of ``tensor`` (or a copy of it on the CPU); half precision becomes float32."""
    tensor = tensor.detach()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return tensor.cpu().numpy()


@dataclass(frozen=True)
class Scaled:
    """Centred and scaled Q values of the reward and of the costs that the weights can change.

    :ivar features: ``[1 + len(kept), N, B]``, see above.
    :ivar largest: largest absolute value of each feature.
    :ivar levels, unit: constraint levels and std(Q_c) of the features; entry 0 is unused.
    :ivar kept: indices of the costs with a finite threshold that vary inside some state.
    :ivar unmeetable: indices of those that do not vary and lie above their threshold.
    :ivar reward_spread: root-mean-square of Q_r around its state means; 0 if that is rounding.
    :ivar reward_size: the largest mean of Q_r in a state, 1 if that is 0.
    :ivar cost_spread, cost_std, threshold: of the kept costs; std is over all entries.
    :ivar cost_mean: mean of every cost ``[C]``: its expectation under the prior.
    :ivar log_prior: ``[N, B]``; ``None`` for a uniform prior.
    """

    features: Array
    largest: Array
    levels: Array
    unit: Array
    kept: list[int]
    unmeetable: list[int]
    reward_spread: float
    reward_size: float
    cost_spread: Array
    cost_std: Array
    threshold: Array
    cost_mean: Array
    log_prior: Array | None


def scale(
    q_reward: Tensor, q_cost: Tensor, cost_threshold: Tensor, log_prior: Tensor | None = None
) -> Scaled:
    """Centre Q values in each state, divide by the root-mean-square, drop costs that cannot matter.

    Means and root-mean-squares are those under the prior, uniform if there is none.

    :raises ValueError: if a Q value is not finite.
    """
    (num_states, num_actions), num_costs = q_reward.shape, q_cost.shape[0]
    raw = np.empty((1 + num_costs, num_actions, num_states))
    raw[0] = to_numpy(q_reward).T
    if num_costs:
        raw[1:] = to_numpy(q_cost).transpose(0, 2, 1)
    prior: Array | None = None
    if log_prior is None:
        state_mean = np.add.reduce(raw, 1) / num_actions
    else:
        prior = normalised(np.maximum(to_numpy(log_prior).T.astype(np.float64), LEAST_LOG_PRIOR))
        state_mean = np.add.reduce(raw * np.exp(prior), 1)
    if not np.isfinite(state_mean).all():
        raise ValueError(_not_finite(q_reward, q_cost))
    raw -= state_mean[:, None, :]
    high, low = raw.max(1), raw.min(1)
    rounding = _NOISE_ROUNDINGS * torch.finfo(q_reward.dtype).eps
    noise = rounding * (np.abs(state_mean) + np.maximum(high, -low))
    varies = (high - low > noise).any(1)
    largest = np.maximum(high.max(1), -low.min(1))
    weighted = raw if prior is None else raw * np.exp(0.5 * prior)
    flat = weighted.reshape(1 + num_costs, -1)
    count = flat.shape[1] if prior is None else num_states
    spread = np.zeros(1 + num_costs)
    for k in np.flatnonzero(varies):
        mean_square = float(np.dot(flat[k], flat[k])) / count
        if not 1e-200 < mean_square < 1e200:
            mean_square = float(np.sum((flat[k] / largest[k]) ** 2)) / count * largest[k] ** 2
        spread[k] = math.sqrt(mean_square)
    mean = np.add.reduce(state_mean, 1) / num_states
    between = np.add.reduce((state_mean - mean[:, None]) ** 2, 1) / num_states
    std = np.sqrt(spread**2 + between)

    threshold = to_numpy(cost_threshold).astype(np.float64)
    wanted = np.flatnonzero(threshold < math.inf)
    kept = [int(m) for m in wanted if spread[1 + m] > 0.0]
    allowance = rounding * (np.abs(mean) + largest)[1:]
    unmeetable = [
        int(m) for m in wanted if spread[1 + m] == 0.0 and mean[1 + m] > threshold[m] + allowance[m]
    ]
    rows = [0, *(1 + m for m in kept)]
    divisor = np.where(spread > 0.0, spread, 1.0)
    divisor[1:] *= -1.0
    if len(rows) < 1 + num_costs:
        raw = raw[rows]
    raw /= divisor[rows][:, None, None]
    if spread[0] == 0.0:
        raw[0] = 0.0
    cost_spread = spread[rows[1:]]
    levels = (mean[rows[1:]] - threshold[kept]) / cost_spread
    reward_size = float(np.abs(state_mean[0]).max())
    return Scaled(
        features=raw,
        largest=(largest / np.abs(divisor))[rows],
        levels=np.append(0.0, levels),
        unit=np.append(1.0, std[rows[1:]] / cost_spread),
        kept=kept,
        unmeetable=unmeetable,
        reward_spread=float(spread[0]),
        reward_size=reward_size if reward_size > 0.0 else 1.0,
        cost_spread=cost_spread,
        cost_std=std[rows[1:]],
        threshold=threshold[kept],
        cost_mean=mean[1:],
        log_prior=prior,
    )


def normalised(log_prior: Array) -> Array:
    """Return logarithms ``[N, B]`` of probabilities that sum to one in each state."""
    highest = log_prior.max(0)
    return log_prior - highest - np.log(np.exp(log_prior - highest).sum(0))


def _not_finite(q_reward: Tensor, q_cost: Tensor) -> str:
    for name, tensor in (("q_reward", q_reward), ("q_cost", q_cost)):
        bad = tensor[~torch.isfinite(tensor)]
        if len(bad):
            return f"{name} must be finite, got {len(bad)} entries such as {bad[0].item()}"
    return "q_reward and q_cost must be below 1e300 in size, got values that overflow"


@dataclass(frozen=True)
class Moments:
    """The moments of the features under the weights of ``theta``, from one pass over the samples.

    ``grad[k] = mean_i E_w[f_k]`` is the gradient and ``hess[k, l] = mean_i Cov_w(f_k, f_l)`` the
    Hessian of ``log_partition = mean_i log sum_j p_ij exp(theta . f_ij)``; the KL divergence to the
    prior p, uniform if there is none, is ``theta . grad - log_partition`` and its gradient ``hess @ theta``.
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
    ``largest[k]`` bounds ``|features[k]|``; ``log_prior [N, B]`` is ``None`` for a uniform prior.
    """

    def __init__(
        self,
        features: Array,
        levels: Array,
        violation_unit: Array,
        kl_bound: float,
        largest: Array,
        log_prior: Array | None = None,
    ) -> None:
        self.num_features, self.num_actions, self.num_states = features.shape
        self.features = features
        self.flat_features = features.reshape(self.num_features, -1)
        self.levels = levels
        self.violation_unit = violation_unit
        self.kl_bound = kl_bound
        # Beyond this inverse temperature the rest of the KL budget is worth less than 1e-7 of the
        # reward's unit, so a colder softmax gains nothing.
        self.beta_max = 1e7 * max(1.0, kl_bound)
        self.largest = largest
        self.num_steps = 0
        self.log_prior = log_prior
        self._log_n = math.log(self.num_actions) if log_prior is None else 0.0
        self._logits = np.empty((self.num_actions, self.num_states))
        self._weights = np.empty_like(self._logits)
        self._weighted = np.empty_like(self.features)

    def evaluate(self, theta: Array) -> Moments:
        """Return all moments at ``theta`` ``[K]``; the weights stay readable by :meth:`weights`."""
        self.num_steps += 1
        logits, weights, weighted = self._logits, self._weights, self._weighted
        num_states = self.num_states
        np.dot(theta, self.flat_features, out=logits.reshape(-1))
        shift = 0.0
        if self.log_prior is not None:
            highest = (logits + self.log_prior).max(0)
            logits -= highest
            shift = float(highest.sum()) / num_states
        elif float(np.dot(np.abs(theta), self.largest)) > _SAFE_EXPONENT:
            highest = logits.max(0)
            logits -= highest
            shift = float(highest.sum()) / num_states
        np.exp(logits if self.log_prior is None else logits + self.log_prior, out=weights)
        norm = np.add.reduce(weights, 0)
        weights /= norm
        log_norm = float(np.add.reduce(np.log(norm))) / num_states - self._log_n
        np.multiply(self.features, weights, out=weighted)
        state_means = np.add.reduce(weighted, 1)
        grad = np.add.reduce(state_means, 1) / num_states
        hess = np.dot(weighted.reshape(self.num_features, -1), self.flat_features.T)
        hess -= np.dot(state_means, state_means.T)
        hess /= num_states
        # The KL comes from shifted logits: theta . grad - log_partition would cancel at large theta.
        kl = float(np.dot(weights.reshape(-1), logits.reshape(-1))) / num_states - log_norm
        return Moments(theta, log_norm + shift, grad, hess, max(kl, 0.0))

    def weights(self) -> Array:
        """Return the weights ``[N, B]`` of the latest :meth:`evaluate`, a view that the next overwrites."""
        return self._weights

    def moments_at_prior(self) -> Array:
        """Return ``hess`` ``[K, K]`` at theta = 0, where the weights are the prior."""
        f = self.flat_features
        if self.log_prior is not None:
            return np.dot(f * np.exp(self.log_prior).reshape(-1), f.T) / self.num_states
        return np.dot(f, f.T) / (self.num_states * self.num_actions)
