"""Check the products and gradients of small networks against autograd's, and that views follow parameters."""

import copy
import pickle

import pytest
import torch
from torch import nn

from fsrl_ext.net import EnsembleCritic, GaussianActor, mlp

OBS, A, B, N = 5, 3, 7, 4


def plain(layers, inputs):
    """Return outputs ``[E, B, K]`` of the networks, as autograd records them."""
    weights = [x.weight if x.weight.dim() == 3 else x.weight.t().unsqueeze(0) for x in layers]
    biases = [x.bias if x.bias.dim() == 3 else x.bias.view(1, 1, -1) for x in layers]
    hidden = inputs.expand(len(weights[0]), -1, -1)
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = torch.baddbmm(bias, hidden.relu() if i else hidden, weight)
    return hidden


def gradients(outputs, wrt):
    scale = torch.linspace(-1.0, 2.0, outputs.numel()).view_as(outputs)
    return torch.autograd.grad((outputs * scale).square().sum(), wrt)


def critic_layers(**settings):
    return EnsembleCritic(OBS, A, **settings).layers


def actor_layers():
    return nn.ModuleList([nn.Linear(OBS + A, 16), nn.Linear(16, 8), nn.Linear(8, 2 * A)])


@pytest.mark.parametrize("least_work", [0, 10**9], ids=["oneDNN", "MKL"])
@pytest.mark.parametrize(
    "layers",
    [
        critic_layers(hidden_sizes=(16, 8)),
        critic_layers(hidden_sizes=(16,), shared_body=True),
        actor_layers(),
        nn.ModuleList([nn.Linear(OBS + A, 2)]),
    ],
    ids=["stacked", "one hidden layer", "linear layers", "no hidden layer"],
)
def test_outputs_and_gradients_equal_those_of_autograd(layers, least_work, monkeypatch):
    monkeypatch.setattr(mlp, "_ONEDNN_FROM", least_work)
    inputs = torch.randn(B, OBS + A, requires_grad=True)
    wrt = [inputs, *layers.parameters()]
    networks = mlp.Networks(layers)
    assert networks.supports(inputs)
    outputs, wanted = networks.run(inputs), plain(layers, inputs)
    torch.testing.assert_close(outputs, wanted)
    with torch.no_grad():
        assert torch.equal(networks.run(inputs), outputs)
    for gradient, exact in zip(gradients(outputs, wrt), gradients(wanted, wrt), strict=True):
        torch.testing.assert_close(gradient, exact)


def test_gradients_flow_to_inputs_alone_through_frozen_networks():
    layers = critic_layers(hidden_sizes=(16, 8)).requires_grad_(False)
    inputs = torch.randn(B, OBS + A, requires_grad=True)
    exact = gradients(plain(layers, inputs), [inputs])
    torch.testing.assert_close(gradients(mlp.Networks(layers).run(inputs), [inputs]), exact)


def test_a_gradient_of_a_gradient_is_refused():
    layers = actor_layers()
    out = mlp.Networks(layers).run(torch.randn(B, OBS + A))
    (gradient,) = torch.autograd.grad(out.square().sum(), [layers[0].weight], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_views_follow_parameters_that_move():
    critic = EnsembleCritic(OBS, A, hidden_sizes=(16, 8))
    obs, act = torch.randn(B, OBS), torch.randn(B, A)
    before = critic(obs, act).reward
    other = {name: 2.0 * x for name, x in critic.state_dict().items()}
    for change in (
        lambda: critic.load_state_dict(other, assign=True),
        lambda: setattr(critic.layers[1], "weight", nn.Parameter(critic.layers[1].weight + 1.0)),
        lambda: critic.double().float(),
    ):
        change()
        inputs = torch.cat([obs, act], 1)
        torch.testing.assert_close(critic(obs, act).reward, plain(critic.layers, inputs)[:2, :, 0])
    assert not torch.equal(critic(obs, act).reward, before)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_has_views_of_its_own_parameters(duplicate):
    actor = GaussianActor(OBS, A, hidden_sizes=(16,))
    obs = torch.randn(B, OBS)
    (before, _), _ = actor(obs)
    twin = duplicate(actor)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(actor(obs)[0][0], before)
    assert not torch.equal(twin(obs)[0][0], before)


def test_many_actions_have_gradients():
    critic = EnsembleCritic(OBS, A, hidden_sizes=(16, 8))
    obs, act = torch.randn(B, OBS), torch.randn(B, N, A, requires_grad=True)
    q = critic(obs, act)
    with torch.no_grad():
        torch.testing.assert_close(q.cost, critic(obs, act).cost)
    q.cost.sum().backward()
    assert act.grad.abs().sum() > 0
    assert critic.layers[0].weight.grad[2:].any()


def test_other_number_types_are_computed_plainly():
    actor, single = (GaussianActor(OBS, A, hidden_sizes=(16,)) for _ in range(2))
    actor.double().load_state_dict(single.state_dict())
    obs = torch.randn(B, OBS)
    torch.testing.assert_close(actor(obs)[0][0].float(), single(obs)[0][0])
