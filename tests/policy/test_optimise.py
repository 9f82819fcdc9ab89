"""Check the optimiser against PyTorch's, and that a frozen network gets no gradients."""

import copy

import pytest
import torch
from torch import nn

from fsrl_ext.policy.base import frozen
from fsrl_ext.policy.optimise import Adam


def two_optimisers():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    return (ours, Adam(ours.parameters(), lr=0.1)), (
        theirs,
        torch.optim.Adam(theirs.parameters(), 0.1, fused=True),
    )


def take_steps(pairs, count, *, only_weight=False):
    """Give both networks the same gradients, and compare their parameters after every step."""
    for _ in range(count):
        gradients = [torch.randn(2, 3), torch.randn(2)]
        for network, optim in pairs:
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.grad = gradient.clone()
            if only_weight:
                network.bias.grad = None
            optim.step()
        for mine, other in zip(*(network.parameters() for network, _ in pairs), strict=True):
            assert torch.equal(mine, other)


def test_steps_equal_those_of_pytorch():
    pairs = two_optimisers()
    take_steps(pairs, 2, only_weight=True)
    take_steps(pairs, 3)
    for _, optim in pairs:
        optim.param_groups[0]["lr"] = 0.01
    take_steps(pairs, 2)


@pytest.mark.parametrize("saved_by", [0, 1], ids=["ours", "PyTorch's"])
def test_state_moves_between_both(saved_by):
    pairs = two_optimisers()
    take_steps(pairs, 2)
    state = pairs[saved_by][1].state_dict()
    for network, optim in pairs:
        optim.load_state_dict(copy.deepcopy(state))
        network.load_state_dict(pairs[0][0].state_dict())
    take_steps(pairs, 2)


def test_a_closure_is_called_with_gradients_enabled():
    (network, optim), _ = two_optimisers()

    def closure():
        optim.zero_grad()
        loss = (network(torch.ones(1, 3)) - 100.0).square().sum()
        loss.backward()
        return loss

    losses = [float(optim.step(closure)) for _ in range(3)]
    assert losses[-1] < losses[0]


def test_frozen_parameters_get_no_gradients_and_move_again_afterwards():
    network = nn.Linear(3, 2)
    network.bias.requires_grad_(False)
    inputs = torch.randn(4, 3, requires_grad=True)
    with frozen(list(network.parameters())):
        loss = network(inputs).sum()
    loss.backward()
    assert inputs.grad.any()
    assert network.weight.grad is None
    assert (network.weight.requires_grad, network.bias.requires_grad) == (True, False)
