"""Optimisation of networks: clipping of gradients, one step of an optimiser, one fit by L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from fsrl_ext.errors import check_finite
from fsrl_ext.policy.base import clear_gradients


class Adam(torch.optim.Adam):
    """``torch.optim.Adam(..., fused=True)`` with less work around its kernel, for small networks.

    Numbers and state are the same, bit for bit. Hooks and the profiler do not see a step. All parameters are
    on one device and have one dtype.

    :param parameters: what the optimiser moves.
    :param lr: learning rate, which the parameter groups hold as for every optimiser.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Moves every parameter that has a gradient; a closure is called first, as in other optimisers."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            moving = [x for x in group["params"] if x.grad is not None]
            states = [self.state[x] for x in moving]
            if not all(states):
                # The first step builds the state.
                super().step()
                return value
            if not moving:
                continue
            counts = [x["step"] for x in states]
            beta1, beta2 = group["betas"]
            torch._foreach_add_(counts, 1)
            torch._fused_adam_(
                moving,
                [x.grad for x in moving],
                [x["exp_avg"] for x in states],
                [x["exp_avg_sq"] for x in states],
                [],
                counts,
                amsgrad=False,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
                grad_scale=None,
                found_inf=None,
            )
        return value

    # PyTorch wraps the method of every optimiser in hooks, unless it says that it has them already.
    step.hooked = True  # type: ignore[attr-defined]


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
