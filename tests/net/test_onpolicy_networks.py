"""Check the shapes of on-policy networks, and what their outputs and gradients depend on."""

import numpy as np
import pytest
import torch
from torch import nn

from fsrl_ext.net import OnpolicyActor, ValueCritic


def test_the_deviation_is_the_same_in_every_state():
    actor = OnpolicyActor(3, 2, hidden_sizes=(8, 8), initial_std=0.4)
    (mean, std), state = actor(np.random.default_rng(0).normal(size=(5, 3)))
    assert mean.shape == std.shape == (5, 2)
    assert state is None
    torch.testing.assert_close(std, torch.full((5, 2), 0.4))
    assert mean.abs().max() < 0.2
    assert mean.std(0).min() > 0
    with torch.no_grad():
        actor.log_std.fill_(50.0)
        actor.head.bias.fill_(9.0)
    assert actor(np.zeros((1, 3)))[0][1].max() <= 2.0 + 1e-6
    actor.bounded = True
    assert actor(np.zeros((1, 3)))[0][0].max() <= 1.0
    with pytest.raises(ValueError, match="std_range"):
        OnpolicyActor(3, 2, initial_std=5.0)


@pytest.mark.parametrize("shared_body", [False, True])
def test_one_value_for_reward_and_each_cost(shared_body):
    critic = ValueCritic(3, num_costs=2, hidden_sizes=(8, 8), shared_body=shared_body)
    obs = torch.randn(5, 3)
    values = critic(obs)
    assert values.shape == (5, 3)
    torch.testing.assert_close(critic(obs[2:3]), values[2:3])
    # Fitting one signal leaves the others alone, unless they share a body.
    values[:, 1].square().sum().backward()
    last = critic.layers[0].weight.grad
    touched = [bool(x.abs().sum() > 0) for x in last]
    assert touched == ([True] if shared_body else [False, True, False])
    with pytest.raises(ValueError, match="num_costs"):
        ValueCritic(3, num_costs=0)


def test_a_value_network_is_what_torch_would_build():
    torch.manual_seed(0)
    critic = ValueCritic(3, hidden_sizes=(8,))
    plain = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    with torch.no_grad():
        for layer, stacked in zip((plain[0], plain[2]), critic.layers, strict=True):
            weight, bias = stacked.members()[1]
            layer.weight.copy_(weight.T)
            layer.bias.copy_(bias)
    obs = torch.randn(6, 3)
    torch.testing.assert_close(critic(obs)[:, 1], plain(obs)[:, 0])


@pytest.mark.parametrize("shared_body", [True, False])
def test_the_gradients_of_single_networks_are_those_of_the_sum_of_all(shared_body):
    torch.manual_seed(0)
    critic = ValueCritic(3, num_costs=2, hidden_sizes=(8, 5), shared_body=shared_body)
    obs, targets = torch.randn(20, 3), torch.randn(20, 3)
    (critic(obs) - targets).square().mean(0).sum().backward()
    parts = [critic.loss_and_gradients(net, obs, targets) for net in range(critic.num_nets)]
    loss = (critic(obs) - targets).square().mean(0).sum()
    torch.testing.assert_close(torch.stack([x for x, _ in parts]).sum(), loss.detach())
    for i, parameter in enumerate(critic.parameters()):
        torch.testing.assert_close(torch.stack([x[i] for _, x in parts]), parameter.grad)
