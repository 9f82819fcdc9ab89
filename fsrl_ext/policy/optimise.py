"""Optimisation of networks: clipping of gradients, one step of an optimiser, one fit by L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fsrl_ext.errors import check_finite
from fsrl_ext.policy.base import clear_gradients


@torch.no_grad()
def clip_gradients(parameters: Sequence[Tensor], max_norm: float) -> None:
    """Scales the gradients so that their joint 2-norm is at most ``max_norm``.

    The host does not wait for the device, unlike in ``torch.nn.utils.clip_grad_norm_``.
    """
    gradients = [x.grad for x in parameters if x.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))


def descend(
    optim: torch.optim.Optimizer,
    loss: Tensor,
    parameters: Sequence[Tensor],
    name: str,
    max_norm: float = math.inf,
) -> None:
    """Takes one step of an optimiser down a loss, with the gradients' joint norm clipped.

    :param loss: 0-dim, with its graph.
    :param parameters: the parameters that the optimiser moves.
    :param name: what an error calls the loss.
    :param max_norm: largest joint 2-norm of the gradients.
    :raises NonFiniteError: if the loss is not finite; no parameter has changed then.
    """
    check_finite(loss, name)
    clear_gradients(parameters)
    loss.backward()
    if max_norm < math.inf:
        clip_gradients(parameters, max_norm)
    optim.step()


def fit_with_lbfgs(
    optim: torch.optim.LBFGS, backward: Callable[[], Tensor], parameters: Sequence[Tensor], name: str
) -> None:
    """Fits parameters by one call of L-BFGS, of up to the optimiser's ``max_iter`` iterations.

    The optimiser starts and ends without curvature: that of other data would mislead it, and checkpoints need
    not hold it.

    :param backward: computes the loss at the current parameters, returns it, 0-dim, and puts its gradients
        into the parameters' ``grad``.
    :param parameters: the parameters that the optimiser moves.
    :param name: what an error calls the loss.
    :raises NonFiniteError: if the loss is not finite after the fit; the parameters are then those from before
        the call.
    """
    before = [x.detach().clone() for x in parameters]
    optim.state.clear()
    optim.step(backward)
    optim.state.clear()
    value = backward()
    if not torch.isfinite(value):
        with torch.no_grad():
            torch._foreach_copy_(list(parameters), before)
    check_finite(value, name)


def to_host(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Returns tensors of one dtype and device on the CPU, with the same shapes, by a single transfer."""
    if tensors[0].device.type == "cpu":
        return tensors
    flat = torch.cat([x.reshape(-1) for x in tensors]).cpu()
    parts = flat.split([x.numel() for x in tensors])
    return tuple(part.view(x.shape) for part, x in zip(parts, tensors, strict=True))
