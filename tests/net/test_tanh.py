"""Tanh networks on a processor compute what autograd computes, in blocks of rows or at once."""

from itertools import pairwise

import pytest
import torch

from fsrl_ext.net import ValueCritic, mlp, tanh


def network(*sizes):
    torch.manual_seed(0)
    shapes = [shape for i, o in pairwise(sizes) for shape in ((i, o), (1, o))]
    return [torch.randn(shape) / shape[0] ** 0.5 for shape in shapes]


def by_autograd(parameters, inputs, targets):
    """Return outputs, squared error and its gradients."""
    parameters = [x.clone().requires_grad_() for x in parameters]
    hidden = inputs
    for i in range(0, len(parameters), 2):
        hidden = (torch.tanh(hidden) if i else hidden) @ parameters[i] + parameters[i + 1]
    loss = (hidden - targets).square().mean(0).sum()
    return hidden.detach(), loss.detach(), torch.autograd.grad(loss, parameters)


@pytest.mark.parametrize(
    ("sizes", "rows", "block"),
    [
        ((3, 8, 5, 2), 20, 96_000),  # small products
        ((3, 8, 5, 2), 20, 24),  # blocks of 3 rows, and a last one of 2
        ((28, 128, 128, 1), 1500, 96_000),  # large products in blocks of 750 rows
        ((28, 1), 50, 96_000),  # no hidden layer
    ],
)
def test_values_and_gradients_are_those_of_autograd(sizes, rows, block, monkeypatch):
    monkeypatch.setattr(tanh, "_BLOCK", block)
    parameters = network(*sizes)
    inputs, targets = torch.randn(rows, sizes[0]), torch.randn(rows, sizes[-1])
    before = [x.clone() for x in (*parameters, inputs, targets)]
    outputs, loss, gradients = by_autograd(parameters, inputs, targets)
    torch.testing.assert_close(tanh.outputs(parameters, inputs), outputs, rtol=1e-4, atol=1e-5)
    fused_loss, fused = tanh.loss_and_gradients(parameters, inputs, targets)
    torch.testing.assert_close(fused_loss, loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fused, list(gradients), rtol=1e-4, atol=1e-5)
    # Nothing that was given has changed.
    assert all(torch.equal(x, y) for x, y in zip(before, (*parameters, inputs, targets), strict=True))


def test_without_onednn_the_numbers_are_the_same_but_for_rounding(monkeypatch):
    parameters = network(28, 128, 128, 1)
    inputs, targets = torch.randn(800, 28), torch.randn(800, 1)
    expected = tanh.loss_and_gradients(parameters, inputs, targets)
    monkeypatch.setattr(mlp, "ONEDNN", None)
    torch.testing.assert_close(
        tanh.loss_and_gradients(parameters, inputs, targets), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("shared_body", [True, False])
def test_a_value_critic_has_the_same_values_with_a_graph_and_without(shared_body):
    torch.manual_seed(0)
    critic = ValueCritic(28, num_costs=2, hidden_sizes=(128, 128), shared_body=shared_body)
    obs = torch.randn(900, 28)
    with torch.no_grad():
        values = critic(obs)
    assert values.shape == (900, 3)
    torch.testing.assert_close(values, critic(obs).detach(), rtol=1e-4, atol=1e-5)
    critic.double()
    with torch.no_grad():
        torch.testing.assert_close(critic(obs.double()).float(), values, rtol=1e-4, atol=1e-5)
