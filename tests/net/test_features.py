"""Actors and critics on the features of a network of the user's."""

import numpy as np
import pytest
import torch
from toys import networks

from fsrl_ext.net import (
    DeterministicActor,
    FeatureActor,
    FeatureCritic,
    Features,
    FeatureValueCritic,
    GaussianActor,
    OnpolicyActor,
)

MAKERS = (networks.make_features, networks.make_net, networks.Residual)


@pytest.mark.parametrize("make", MAKERS, ids=lambda x: x.__name__)
def test_features_are_those_of_the_network(make):
    network = make(3)
    features = Features(network, 3)
    inputs = torch.randn(5, 3)
    wanted = network(inputs)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    assert features.width == wanted.shape[1]
    assert torch.equal(features(inputs), wanted)


def test_trying_a_network_changes_neither_it_nor_random_numbers():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = torch.get_rng_state()
    Features(network, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (3, r"actor must be a torch\.nn\.Module, got 3"),
        (networks.make_narrow(3), r"actor must take float32 inputs \[2, 3\], got RuntimeError"),
        (networks.make_flat(3), r"actor must return features \[2, F\] for 2 rows of inputs, got"),
    ],
)
def test_what_computes_no_features_is_refused(network, words):
    with pytest.raises(ValueError, match=words):
        Features(network, 3, name="actor")


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("make", MAKERS, ids=lambda x: x.__name__)
def test_a_gaussian_on_features_has_the_gaussian_s_shapes_and_gradients(make, covariance):
    features = Features(make(3), 3)
    actor = FeatureActor(features, GaussianActor(features.width, 2, hidden_sizes=(), covariance=covariance))
    obs = np.random.default_rng(0).normal(size=(5, 3))
    (mean, scale), state = actor(obs)
    assert state is None
    assert mean.shape == (5, 2)
    assert scale.shape == ((5, 2) if covariance == "diagonal" else (5, 2, 2))
    (mean.sum() + scale.sum()).backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in features.parameters())


def test_gradients_through_the_head_are_those_of_autograd():
    """The head computes its gradient by itself; in float64 autograd computes all of it."""
    features = Features(networks.make_features(3), 3)
    actor = FeatureActor(features, DeterministicActor(features.width, 2, hidden_sizes=()))
    obs = torch.randn(6, 3)
    gradients = []
    for one in (actor, actor.double()):
        one.zero_grad()
        one(obs)[0].square().sum().backward()
        gradients.append([x.grad.double().clone() for x in one.parameters()])
    for mine, exact in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, exact, rtol=1e-4, atol=1e-6)


def test_an_onpolicy_actor_on_features_can_be_differentiated_twice():
    features = Features(networks.make_features(3), 3)
    actor = FeatureActor(features, OnpolicyActor(features.width, 2, hidden_sizes=()))
    (mean, _), _ = actor(torch.randn(4, 3))
    (first,) = torch.autograd.grad(mean.square().sum(), features.network[0].weight, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), features.network[0].weight)
    assert second.abs().sum() > 0


@pytest.mark.parametrize("make", MAKERS, ids=lambda x: x.__name__)
def test_q_values_of_several_actions_are_those_of_each_action(make):
    critic = FeatureCritic(3, 2, make, num_costs=2, reward_ensemble=3, cost_ensemble=2)
    obs, act = torch.randn(4, 3), torch.rand(4, 5, 2)
    q = critic(obs, act)
    assert q.reward.shape == (3, 4, 5)
    assert q.cost.shape == (2, 2, 4, 5)
    for i in range(5):
        one = critic(obs, act[:, i])
        torch.testing.assert_close(q.reward[..., i], one.reward)
        torch.testing.assert_close(q.cost[..., i], one.cost)
    assert len(set(q.cost[:, :, 0, 0].flatten().tolist())) == 4


def test_state_values_have_a_column_for_each_signal():
    critic = FeatureValueCritic(3, networks.make_net, num_costs=2)
    values = critic(torch.randn(4, 3))
    assert values.shape == (4, 3)
    values[:, 1].sum().backward()
    moved = [x.grad is not None and x.grad.abs().sum() > 0 for x in critic.networks[1].parameters()]
    assert all(moved)
    assert all(x.grad is None or x.grad.abs().sum() == 0 for x in critic.networks[0].parameters())


def test_critics_do_not_share_a_network():
    with pytest.raises(ValueError, match="critic must be a fresh network at every call"):
        FeatureValueCritic(3, networks.make_same)
