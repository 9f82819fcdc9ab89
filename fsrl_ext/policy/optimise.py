"""How networks are fitted: clipped gradients, one step of an optimiser, one fit by L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fsrl_ext.errors import check_finite
from fsrl_ext.policy.base import clear_gradients


@torch.no_grad()
def clip_gradients(parameters: Sequence[Tensor], max_norm: float) -> None:
    """Scales all gradients so that their joint norm is at most ``max_norm``; the host does not wait."""
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
    """One step of an optimiser down a loss, with the gradients' joint norm clipped.

    :raises NonFiniteError: if the loss is not finite, before anything moves.
    """
    check_finite(loss, name)
    clear_gradients(parameters)
    loss.backward()
    if max_norm < math.inf:
        clip_gradients(parameters, max_norm)
    optim.step()


def fit_with_lbfgs(
    optim: torch.optim.LBFGS, loss: Callable[[], Tensor], parameters: Sequence[Tensor], name: str
) -> None:
    """One call of L-BFGS, of up to ``max_iter`` iterations, on a loss that it has not seen before.

    Its curvature belongs to the data and is forgotten: no other call starts from it, no checkpoint holds it.

    :raises NonFiniteError: if the loss is not finite at the start or became so; the parameters are then
        those from before.
    """
    before = [x.detach().clone() for x in parameters]
    optim.state.clear()

    def closure() -> Tensor:
        clear_gradients(parameters)
        value = loss()
        value.backward()
        return value

    optim.step(closure)
    optim.state.clear()
    with torch.no_grad():
        value = loss()
        if not torch.isfinite(value):
            torch._foreach_copy_(list(parameters), before)
    check_finite(value, name)


def to_host(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors on the CPU, in one copy; they share dtype and device."""
    if tensors[0].device.type == "cpu":
        return tensors
    flat = torch.cat([x.reshape(-1) for x in tensors]).cpu()
    parts = flat.split([x.numel() for x in tensors])
    return tuple(part.view(x.shape) for part, x in zip(parts, tensors, strict=True))
