"""Check actors and critics: shapes, equality with plain networks, gradients that stay apart."""

import pytest
import torch
from torch import nn

from fsrl_ext.net import DeterministicActor, EnsembleCritic, GaussianActor, reduce_cost, reduce_reward
from fsrl_ext.net.actor import squash

OBS, A, B, N, C = 5, 3, 4, 6, 2


def critic(**kwargs):
    settings = {"num_costs": C, "hidden_sizes": (16, 8), "reward_ensemble": 2, "cost_ensemble": 3}
    return EnsembleCritic(OBS, A, **(settings | kwargs))


def as_sequential(module, net):
    """Return network number `net` of the critic as plain linear layers."""
    layers = []
    for stacked in module.layers:
        weight, bias = stacked.members()[net]
        layer = nn.Linear(*weight.shape)
        layer.weight.data, layer.bias.data = weight.T.detach(), bias.detach()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_critics_equal_plain_networks():
    module = critic()
    obs, act = torch.randn(B, OBS), torch.randn(B, A)
    q = module(obs, act)
    assert q.reward.shape == (2, B)
    assert q.cost.shape == (C, 3, B)
    plain = [as_sequential(module, i)(torch.cat([obs, act], 1))[:, 0] for i in range(2 + C * 3)]
    torch.testing.assert_close(q.reward, torch.stack(plain[:2]))
    torch.testing.assert_close(q.cost.flatten(0, 1), torch.stack(plain[2:]))


def test_shared_body_has_one_head_per_signal():
    module = critic(shared_body=True, cost_ensemble=2)
    obs, act = torch.randn(B, OBS), torch.randn(B, A)
    q = module(obs, act)
    for member in range(2):
        heads = as_sequential(module, member)(torch.cat([obs, act], 1))
        torch.testing.assert_close(q.reward[member], heads[:, 0])
        torch.testing.assert_close(q.cost[:, member], heads[:, 1:].T)


@pytest.mark.parametrize("shared", [False, True])
def test_many_actions_at_once_equal_one_at_a_time(shared):
    module = critic(shared_body=shared, cost_ensemble=2)
    obs, act = torch.randn(B, OBS), torch.randn(B, N, A)
    together = module(obs, act)
    assert together.reward.shape == (2, B, N)
    assert together.cost.shape == (C, 2, B, N)
    for n in range(N):
        alone = module(obs, act[:, n])
        torch.testing.assert_close(together.reward[..., n], alone.reward)
        torch.testing.assert_close(together.cost[..., n], alone.cost)


@torch.no_grad()
def test_low_precision_is_near_and_only_between_hidden_layers():
    module = critic(hidden_sizes=(64, 64))
    obs, act = torch.randn(B, OBS), torch.randn(B, N, A)
    exact, low = module(obs, act), module(obs, act, hidden_dtype=torch.bfloat16)
    assert low.reward.dtype == torch.float32
    assert not torch.equal(low.reward, exact.reward)
    torch.testing.assert_close(low.reward, exact.reward, atol=0.01, rtol=0.0)
    one_hidden = critic(hidden_sizes=(64,))
    assert torch.equal(one_hidden(obs, act).cost, one_hidden(obs, act, hidden_dtype=torch.bfloat16).cost)


def test_separate_critics_do_not_feel_each_others_losses():
    module = critic(reward_ensemble=1, cost_ensemble=1, num_costs=1)
    module(torch.randn(B, OBS), torch.randn(B, A)).cost.sum().backward()
    for parameter in module.parameters():
        assert not parameter.grad[0].any()
        assert parameter.grad[1].any()


def test_ensemble_members_start_apart():
    module = critic()
    q = module(torch.randn(B, OBS), torch.randn(B, A)).reward
    assert (q[0] - q[1]).abs().min() > 0


def test_reductions():
    q = torch.tensor([[1.0, 4.0], [3.0, 2.0]])
    torch.testing.assert_close(reduce_reward(q), torch.tensor([1.0, 2.0]))
    cost = q[None]
    torch.testing.assert_close(reduce_cost(cost, "mean"), torch.tensor([[2.0, 3.0]]))
    torch.testing.assert_close(reduce_cost(cost, "max"), torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(reduce_cost(cost, "ucb", 2.0), torch.tensor([[4.0, 5.0]]))
    with pytest.raises(ValueError, match=r"cost_reduction must be one of .*'min'"):
        reduce_cost(cost, "min")


def test_bad_critics_are_named():
    with pytest.raises(ValueError, match="reward_ensemble must be a whole number >= 1, got 0"):
        critic(reward_ensemble=0)
    with pytest.raises(ValueError, match="equal ensembles"):
        critic(shared_body=True)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_actor_is_a_gaussian_inside_its_bounds(covariance):
    actor = GaussianActor(OBS, A, covariance=covariance, initial_std=0.5)
    (mean, scale), state = actor(torch.randn(B, OBS) * 100, state="kept")
    assert state == "kept"
    assert mean.abs().max() <= 1
    std = scale if covariance == "diagonal" else scale.diagonal(dim1=1, dim2=2)
    assert std.min() >= 1e-3
    assert std.max() <= 2.0
    if covariance == "full":
        assert scale.shape == (B, A, A)
        assert torch.equal(scale.triu(1), torch.zeros_like(scale))


def test_untrained_actor_has_the_initial_deviation_about_the_middle():
    actor = GaussianActor(OBS, A, initial_std=0.5)
    (mean, std), _ = actor(torch.randn(1000, OBS))
    assert float(std.detach().mean()) == pytest.approx(0.5, abs=0.02)
    assert mean.abs().max() < 0.2


def test_full_covariance_learns_correlation():
    actor = GaussianActor(OBS, A, covariance="full")
    scale = actor(torch.randn(B, OBS))[0][1]
    scale.tril(-1).sum().backward()
    assert actor.head.weight.grad[2 * A :].abs().sum() > 0


def test_bad_actors_are_named():
    with pytest.raises(ValueError, match="covariance must be one of"):
        GaussianActor(OBS, A, covariance="banded")
    with pytest.raises(ValueError, match="std_range must enclose"):
        GaussianActor(OBS, A, initial_std=3.0)


def test_squash_is_tanh_with_a_way_back_from_the_edge():
    x = torch.tensor([-9.0, -0.7, 0.0, 0.7, 9.0, 9.0], requires_grad=True)
    out = squash(x)
    torch.testing.assert_close(out, x.tanh())
    (gradient,) = torch.autograd.grad(out, x, torch.tensor([-2.0, 3.0, 3.0, 3.0, -2.0, 2.0]))
    slope = 1 - x.detach().tanh() ** 2
    # Inwards from both edges at least a tenth; outwards and in the middle as tanh.
    torch.testing.assert_close(
        gradient, torch.tensor([-0.2, 3 * slope[1], 3.0, 3 * slope[3], -2 * slope[4], 0.2])
    )


def test_a_deterministic_actor_comes_back_from_the_edge():
    torch.manual_seed(0)
    actor = DeterministicActor(2, 1, hidden_sizes=(16,))
    with torch.no_grad():
        actor.head.bias.fill_(12.0)  # where the slope of tanh is zero in float32
    optim = torch.optim.Adam(actor.parameters(), 1e-2)
    obs = torch.eye(2)
    for _ in range(400):
        optim.zero_grad()
        (actor(obs)[0] + 0.4).square().mean().backward()
        optim.step()
    torch.testing.assert_close(actor(obs)[0], torch.full((2, 1), -0.4), atol=0.02, rtol=0)


@torch.no_grad()
def test_a_mean_may_lie_beyond_the_box_up_to_its_range():
    torch.manual_seed(0)
    within, beyond = (GaussianActor(3, 2, mean_range=r) for r in (1.0, 2.0))
    beyond.load_state_dict(within.state_dict())
    obs = torch.randn(50, 3)
    (near, _), _ = within(obs)
    (far, _), _ = beyond(obs)
    torch.testing.assert_close(far, near, rtol=0.01, atol=0)  # small numbers stay what they are
    for actor in (within, beyond):
        actor.head.weight.data.mul_(1e6)
    (near, _), _ = within(obs)
    (far, _), _ = beyond(obs)
    assert near.abs().max() == pytest.approx(1.0)
    torch.testing.assert_close(far, 2 * near)
    with pytest.raises(ValueError, match="mean_range must be"):
        GaussianActor(3, 2, mean_range=0.0)
