"""Check the networks of discrete actions: shapes, the value of one action among all, and gradients."""

import numpy as np
import pytest
import torch

from fsrl_ext.net import CategoricalActor, DiscreteCritic


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_an_untrained_actor_takes_all_actions_alike(activation):
    torch.manual_seed(0)
    actor = CategoricalActor(3, 5, hidden_sizes=(8, 8), activation=activation)
    logits, state = actor(np.random.default_rng(0).normal(size=(6, 3)), state="kept")
    assert (logits.shape, logits.dtype, state) == ((6, 5), torch.float32, "kept")
    assert (logits.softmax(-1) - 0.2).abs().max() < 0.05
    assert logits.std(0).min() > 0


def test_unknown_activations_are_named():
    with pytest.raises(ValueError, match=r"activation must be one of \('tanh', 'relu'\), got 'gelu'"):
        CategoricalActor(3, 5, activation="gelu")


@pytest.mark.parametrize("shared_body", [False, True])
def test_the_value_of_an_action_is_one_of_all_values(shared_body):
    torch.manual_seed(0)
    critic = DiscreteCritic(3, 4, num_costs=2, hidden_sizes=(8,), shared_body=shared_body)
    obs, act = torch.randn(6, 3), torch.arange(6) % 4
    every, one = critic(obs), critic(obs, act)
    assert (every.reward.shape, every.cost.shape) == ((2, 6, 4), (2, 2, 6, 4))
    assert (one.reward.shape, one.cost.shape) == ((2, 6), (2, 2, 6))
    rows = torch.arange(6)
    assert torch.equal(one.reward, every.reward[:, rows, act])
    assert torch.equal(one.cost, every.cost[:, :, rows, act])
    # No two members, signals or actions share an output.
    flat = torch.cat([every.reward.flatten(0, 0), every.cost.flatten(0, 1)]).movedim(1, -1).flatten(0, 1)
    assert len({tuple(x.tolist()) for x in flat}) == len(flat) == 6 * 4


@pytest.mark.parametrize("shared_body", [False, True])
def test_gradients_reach_the_taken_action_alone(shared_body):
    torch.manual_seed(0)
    critic = DiscreteCritic(3, 4, hidden_sizes=(8,), shared_body=shared_body)
    obs, act = torch.randn(5, 3), torch.full((5,), 2)
    critic(obs, act).reward.sum().backward()
    touched = critic.layers[-1].bias.grad.abs().sum((0, 1)).reshape(critic.num_heads, 4)
    assert (touched[0] > 0).tolist() == [False, False, True, False]
    # The quick product on a processor and plain layers give the same gradients.
    quick = [x.grad.clone() for x in critic.parameters()]
    double = DiscreteCritic(3, 4, hidden_sizes=(8,), shared_body=shared_body).double()
    double.load_state_dict(critic.state_dict())
    double(obs.double(), act).reward.sum().backward()
    for one, other in zip(quick, double.parameters(), strict=True):
        torch.testing.assert_close(one.double(), other.grad, rtol=1e-5, atol=1e-6)


def test_layouts_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="shared_body needs equal ensembles"):
        DiscreteCritic(3, 4, reward_ensemble=2, cost_ensemble=1, shared_body=True)
    with pytest.raises(ValueError, match=r"len\(hidden_sizes\) must be >= 1"):
        DiscreteCritic(3, 4, hidden_sizes=())
