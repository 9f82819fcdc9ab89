"""Run small tanh networks on a processor: values, and gradients without a graph of single operations.

Where PyTorch has oneDNN, a product and its tanh are one call of it. ``benchmarks/value_fit.py`` compares the
fits of value networks that use these functions with fits that use autograd.

Dimension letters: ``B`` rows, ``I`` inputs of a layer, ``J`` outputs of a layer, ``K`` outputs of a network.
The parameters of a network are a weight ``[I, J]`` and a bias ``[1, J]`` for each layer in turn; a tanh
follows every layer but the last one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fsrl_ext.net.mlp import ONEDNN, is_large

# Numbers of one layer's activations in a block of rows, at most. All activations of such a block stay in a
# core's cache, and the allocator of C keeps memory of that size instead of returning it to the system.
_BLOCK = 96_000


def runs(parameters: Sequence[Tensor], inputs: Tensor) -> bool:
    """Say whether the functions here compute these inputs: float32 on a processor."""
    return inputs.device.type == "cpu" and inputs.dtype == parameters[0].dtype == torch.float32


def outputs(parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """Return a network's outputs ``[B, K]`` for inputs ``[B, I]``, without a graph."""
    return torch.cat([_forward(parameters, rows)[-1] for rows in inputs.split(_rows(parameters))])


def loss_and_gradients(
    parameters: Sequence[Tensor], inputs: Tensor, targets: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Return the squared error of a network's outputs, and its gradients in the parameters.

    :param inputs: ``[B, I]``.
    :param targets: ``[B, K]``.
    :return: the sum over outputs of the mean over rows, 0-dim, and gradients of the parameters' shapes.
    """
    loss, gradients = inputs.new_zeros(()), [torch.zeros_like(x) for x in parameters]
    size = _rows(parameters)
    for rows, wanted in zip(inputs.split(size), targets.split(size), strict=True):
        *hidden, values = _forward(parameters, rows)
        error = values.sub_(wanted)
        loss += error.square().sum()
        _add_gradients(parameters, hidden, error, gradients)
    torch._foreach_mul_(gradients, 2.0 / len(inputs))
    return loss / len(inputs), gradients


def _rows(parameters: Sequence[Tensor]) -> int:
    """Return the number of rows of a block."""
    return max(_BLOCK // max(x.shape[1] for x in parameters), 1)


def _forward(parameters: Sequence[Tensor], inputs: Tensor) -> list[Tensor]:
    """Return the inputs, the activations of the hidden layers, and the outputs, ``[B, J]`` each."""
    layers = [inputs]
    last = len(parameters) // 2 - 1
    for i, (weight, bias) in enumerate(zip(parameters[::2], parameters[1::2], strict=True)):
        if is_large(inputs, weight):
            activation = "none" if i == last else "tanh"
            layers.append(ONEDNN(layers[-1], weight.t(), bias[0], activation, [], ""))
        else:
            values = torch.addmm(bias, layers[-1], weight)
            layers.append(values if i == last else values.tanh_())
    return layers


def _add_gradients(
    parameters: Sequence[Tensor], layers: Sequence[Tensor], gradient: Tensor, sums: Sequence[Tensor]
) -> None:
    """Add a block's gradients to those of the blocks before.

    :param layers: the inputs ``[B, I]`` of each layer.
    :param gradient: ``[B, K]`` at the outputs.
    :param sums: gradients of the parameters' shapes, changed in place.
    """
    for i in range(len(layers) - 1, -1, -1):
        weight, inputs = parameters[2 * i], layers[i]
        large = is_large(inputs, weight)
        if large:
            sums[2 * i].add_(ONEDNN(inputs.t(), gradient.t(), None, "none", [], ""))
        else:
            sums[2 * i].addmm_(inputs.t(), gradient)
        sums[2 * i + 1].add_(gradient.sum(0, keepdim=True))
        if i:
            gradient = (
                ONEDNN(gradient, weight, None, "none", [], "") if large else torch.mm(gradient, weight.t())
            )
            # the slope of tanh, by its output
            torch.ops.aten.tanh_backward.grad_input(gradient, inputs, grad_input=gradient)
