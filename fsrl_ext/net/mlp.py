"""Run small ReLU networks on a processor: fast products, and a gradient without a graph of single operations.

At the sizes of these networks, recording and walking autograd's graph takes as long as the products. The
functions here compute outputs and gradients of one or several networks in few operations
(``benchmarks/gradient_step.py``).

Dimension letters: ``B`` rows, ``I`` inputs of a layer, ``J`` outputs of a layer, ``K`` outputs of a network,
``E`` networks. A layer's parameters are those of ``torch.nn.Linear``, weight ``[J, I]`` and bias ``[J]``, or
those of E networks stacked, weight ``[E, I, J]`` and bias ``[E, 1, J]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Below this number of multiplications oneDNN's overhead is larger than what its products save.
_ONEDNN_FROM = 1_000_000


def _find_onednn() -> Any:
    """Return oneDNN's product with bias and activation, or ``None`` if this PyTorch lacks it.

    PyTorch takes its products from MKL, which uses AVX-512 on Intel's processors alone; oneDNN is up to twice
    as fast on others.
    """
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        return torch.ops.mkldnn._linear_pointwise.default
    except AttributeError:
        return None


ONEDNN = _find_onednn()
"""oneDNN's product with bias and activation, or ``None``; :func:`is_large` says where it is used."""


def is_large(inputs: Tensor, weight: Tensor) -> bool:
    """Say whether oneDNN computes the product of float32 inputs ``[B, I]`` and a layer's weight fastest."""
    return ONEDNN is not None and inputs.shape[0] * weight.numel() >= _ONEDNN_FROM


class Layer(NamedTuple):
    """One layer of one network, as views of its parameters without a graph."""

    weight: Tensor
    """``[I, J]``"""
    transposed: Tensor
    """``[J, I]``"""
    bias: Tensor
    """``[J]``"""


def product(inputs: Tensor, layer: Layer, *, relu: bool = False) -> Tensor:
    """Return a layer's outputs ``[B, J]`` for inputs ``[B, I]``, rectified if ``relu`` is true.

    The outputs have no graph.
    """
    if is_large(inputs, layer.weight) and inputs.dtype == torch.float32 and inputs.device.type == "cpu":
        return ONEDNN(inputs, layer.transposed, layer.bias, "relu" if relu else "none", [], "")
    out = torch.addmm(layer.bias, inputs, layer.weight)
    return out.relu_() if relu else out


def _backward_product(gradient: Tensor, layer: Layer) -> Tensor:
    """Return the gradient ``[B, I]`` at a layer's inputs from that at its outputs, float32 on a processor."""
    if is_large(gradient, layer.weight):
        return ONEDNN(gradient, layer.weight, None, "none", [], "")
    return torch.mm(gradient, layer.transposed)


class Networks:
    """Runs networks of equal shape, with a ReLU after every layer but the last one, on the same inputs.

    The object keeps views of the parameters, which take as long to make as a small product. It makes them
    anew when a parameter has moved in memory, and copies and saved files do not contain them.

    :param layers: modules with the parameters ``weight`` and ``bias``, from the first layer to the last one.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self._modules = list(layers)
        self._places: list[int] = []
        self._views: list[list[Layer]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"_modules": self._modules, "_places": [], "_views": []}

    def supports(self, inputs: Tensor) -> bool:
        """Say whether :meth:`run` computes these inputs: float32 on a processor.

        An accelerator is better served by one batched product for all networks.
        """
        weight = self._modules[0]._parameters["weight"]
        assert weight is not None
        return inputs.device.type == "cpu" and inputs.dtype == weight.dtype == torch.float32

    def run(self, inputs: Tensor) -> Tensor:
        """Return the outputs ``[E, B, K]`` for inputs ``[B, I]``.

        Gradients flow to inputs and parameters, once: autograd refuses a gradient of a gradient.
        """
        parameters, networks = self.views()
        if torch.is_grad_enabled():
            return _Run.apply(networks, inputs, *parameters)
        return _forward(networks, inputs)[0]

    def views(self) -> tuple[list[Tensor], list[list[Layer]]]:
        """Return the parameters, weight and bias of each layer in turn, and the layers of each network."""
        # Attribute access through torch.nn.Module takes longer than all the rest here.
        parameters: Any = [x for module in self._modules for x in module._parameters.values()]
        places = [x.data_ptr() for x in parameters]
        if places != self._places:
            with torch.no_grad():
                self._views = [list(x) for x in zip(*_layers(parameters), strict=True)]
            self._places = places
        return parameters, self._views


def _layers(parameters: Sequence[Tensor]) -> Iterator[list[Layer]]:
    """Yield the views of one layer after the other, of all networks."""
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        if weight.dim() == 3:
            stacked = zip(weight.unbind(), bias.squeeze(1).unbind(), strict=True)
            yield [Layer(w, w.t(), b) for w, b in stacked]
        else:
            yield [Layer(weight.t(), weight.detach(), bias.detach())]


def _forward(networks: list[list[Layer]], inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return outputs ``[E, B, K]``, and the hidden activations of one network after the other."""
    outputs, activations = [], []
    for *hidden_layers, last in networks:
        hidden = inputs
        for layer in hidden_layers:
            hidden = product(hidden, layer, relu=True)
            activations.append(hidden)
        outputs.append(torch.addmm(last.bias, hidden, last.weight))
    return outputs[0].unsqueeze(0) if len(outputs) == 1 else torch.stack(outputs), activations


class _Run(torch.autograd.Function):
    """The function of :meth:`Networks.run` and its gradient."""

    @staticmethod
    def forward(ctx: Any, networks: list[list[Layer]], inputs: Tensor, *parameters: Tensor) -> Tensor:
        outputs, activations = _forward(networks, inputs)
        ctx.networks = networks
        ctx.num_parameters = len(parameters)
        ctx.save_for_backward(inputs, *parameters, *activations)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, *saved = ctx.saved_tensors
        parameters, activations = saved[: ctx.num_parameters], saved[ctx.num_parameters :]
        _, of_inputs, *of_parameters = ctx.needs_input_grad
        results = [torch.empty_like(x) for x in parameters] if any(of_parameters) else []
        slots = [list(x) for x in zip(*_slots(results), strict=True)]
        to_inputs: Tensor | None = None
        depth = len(parameters) // 2
        for i, layers in enumerate(ctx.networks):
            gradient = gradients[0][i]
            hidden = [inputs, *activations[i * (depth - 1) : (i + 1) * (depth - 1)]]
            for place in range(depth - 1, -1, -1):
                if results:
                    weight, bias = slots[i][place]
                    torch.mm(hidden[place].t(), gradient, out=weight)
                    torch.sum(gradient, 0, keepdim=bias.dim() == 2, out=bias)
                if place or of_inputs:
                    gradient = _backward_product(gradient, layers[place])
                if place:
                    # the slope of a ReLU, by its output
                    torch.ops.aten.threshold_backward.grad_input(
                        gradient, hidden[place], 0.0, grad_input=gradient
                    )
            if of_inputs:
                to_inputs = gradient if to_inputs is None else to_inputs.add_(gradient)
        no_results: list[Tensor | None] = [None] * ctx.num_parameters
        return None, to_inputs, *(results or no_results)


def _slots(results: Sequence[Tensor]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Yield, for one layer after the other, where its gradients go: ``[I, J]`` and ``[J]`` or ``[1, J]``."""
    for weight, bias in zip(results[::2], results[1::2], strict=True):
        stacked = weight.dim() == 3
        yield list(zip(weight.unbind(), bias.unbind(), strict=True)) if stacked else [(weight.t(), bias)]
