"""Actors of several agents: each acts on its own observations, and sharing one actor pads and numbers."""

import copy

import pytest
import torch

from fsrl_ext.net import AgentActors, DeterministicActor, GaussianActor, OnpolicyActor

OBS_DIMS, ACT_DIMS = (2, 4, 3), (1, 2, 2)
KINDS = {
    "deterministic": DeterministicActor,
    "onpolicy": OnpolicyActor,
    "gaussian": GaussianActor,
    "full": lambda o, a: GaussianActor(o, a, covariance="full"),
}


def parts(answer):
    return [answer] if isinstance(answer, torch.Tensor) else list(answer)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_sees_its_own_observations_alone(kind, shared):
    torch.manual_seed(0)
    actor = AgentActors(OBS_DIMS, ACT_DIMS, KINDS[kind], shared=shared)
    # Three numbers follow the observations: whether each agent is in the episode.
    obs = torch.randn(5, 12, requires_grad=True)
    (answer, state) = actor(obs, state="kept")
    assert state == "kept"
    outputs = parts(answer)
    assert [list(x.shape) for x in outputs] == [[5, 5], [5, 5, 5] if kind == "full" else [5, 5]][
        : len(outputs)
    ]
    owner_of_number = [0] * 2 + [1] * 4 + [2] * 3 + [None] * 3
    for action, owner in enumerate([0, 1, 1, 2, 2]):
        (gradient,) = torch.autograd.grad(outputs[0][:, action].sum(), obs, retain_graph=True)
        seen = [number for number, x in enumerate(gradient.abs().sum(0)) if x > 0]
        assert seen == [number for number, of in enumerate(owner_of_number) if of == owner]
    if kind == "full":
        agent = torch.tensor([0, 1, 1, 2, 2])
        assert (outputs[1][:, agent[:, None] != agent] == 0).all()
        assert (torch.linalg.diagonal(outputs[1]) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_actor_gets_padded_observations_and_the_agent_s_number(kind):
    torch.manual_seed(0)
    actor = AgentActors(OBS_DIMS, ACT_DIMS, KINDS[kind], shared=True)
    obs = torch.randn(1, 12)
    padded = torch.stack(
        [
            torch.cat([obs[0, :2], torch.zeros(2), torch.tensor([1.0, 0, 0])]),
            torch.cat([obs[0, 2:6], torch.tensor([0, 1.0, 0])]),
            torch.cat([obs[0, 6:9], torch.zeros(1), torch.tensor([0, 0, 1.0])]),
        ]
    )
    own = parts(actor.actors[0](padded)[0])
    joint = parts(actor(obs)[0])
    expected = torch.cat([own[0][0, :1], own[0][1], own[0][2]])
    torch.testing.assert_close(joint[0][0], expected)
    if kind == "full":
        expected = torch.block_diag(own[1][0, :1, :1], own[1][1], own[1][2])
        torch.testing.assert_close(joint[1][0], expected)


def test_independent_actors_are_one_for_each_agent():
    torch.manual_seed(0)
    actor = AgentActors(OBS_DIMS, ACT_DIMS, DeterministicActor, shared=False)
    obs = torch.randn(3, 12)
    expected = torch.cat(
        [one(x)[0] for one, x in zip(actor.actors, obs[:, :9].split(OBS_DIMS, dim=1), strict=True)], 1
    )
    torch.testing.assert_close(actor(obs.numpy())[0], expected)
    assert len(list(actor.parameters())) == 3 * len(list(DeterministicActor(2, 1).parameters()))


@pytest.mark.parametrize("shared", [True, False])
def test_copies_and_saved_parameters_act_alike(shared):
    actor = AgentActors(OBS_DIMS, ACT_DIMS, GaussianActor, shared=shared)
    other = AgentActors(OBS_DIMS, ACT_DIMS, GaussianActor, shared=shared)
    other.load_state_dict(actor.state_dict())
    obs = torch.randn(4, 12)
    for x in (other, copy.deepcopy(actor)):
        torch.testing.assert_close(x(obs)[0], actor(obs)[0])
    # The tables of places are made from the sizes, and no file holds them.
    assert all("actors." in name for name in actor.state_dict())


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"one entry for each agent, got \(1, 2\) and \(1,\)"):
        AgentActors((1, 2), (1,), DeterministicActor, shared=True)
    with pytest.raises(ValueError, match=r"one entry for each agent, got \(\) and \(\)"):
        AgentActors((), (), DeterministicActor, shared=True)
    with pytest.raises(ValueError, match=r"act_dims must be .*>= 1"):
        AgentActors((1, 2), (1, 0), DeterministicActor, shared=True)
