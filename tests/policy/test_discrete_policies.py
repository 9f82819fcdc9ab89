"""Policies with discrete actions: who takes them, what is stored, exact expectations, learning, saving."""

from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.data import Batch
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import Actor
from toys.envs import DiscreteEnv
from toys.every import EVERY, make, rebuild
from toys.policies import ONPOLICY, POLICIES, T, assert_same_state
from toys.training import collect, collected, collector_for, update

from fsrl_ext.env.discrete_optimum import DiscreteOptimumEnv
from fsrl_ext.net import CategoricalActor, DiscreteCritic, ValueCritic
from fsrl_ext.policy.onpolicy.trust_region import inverse_fisher, policy_at

DISCRETE = ("cvpo", *ONPOLICY)
every = pytest.mark.parametrize("name", DISCRETE)


def build(name, *, space=None, obs_dim=2, num_costs=1, lr=3e-3, actor=None, **settings):
    """Return a fresh policy for a discrete space, of two actions by default, always with the same weights."""
    torch.manual_seed(0)
    space = gym.spaces.Discrete(2) if space is None else space
    activation = "relu" if name == "cvpo" else "tanh"
    actor = actor or CategoricalActor(obs_dim, int(space.n), hidden_sizes=(16,), activation=activation)
    if name == "cvpo":
        critic = DiscreteCritic(obs_dim, int(space.n), num_costs=num_costs, hidden_sizes=(16,))
    else:
        critic = ValueCritic(obs_dim, num_costs=num_costs, hidden_sizes=(16,))
        settings = {"obs_dim": obs_dim, **settings}
    if name not in ("cpo", "trpo"):
        settings["actor_optim"] = torch.optim.Adam(actor.parameters(), lr=lr)
    return POLICIES[name](
        actor=actor,
        critic=critic,
        critic_optim=torch.optim.Adam(critic.parameters(), lr=lr),
        action_space=space,
        **{"cost_limit": 5.0, "gamma": 0.9, "max_episode_steps": T, **settings},
    )


SPACES = {
    "Discrete": gym.spaces.Discrete(3),
    "MultiDiscrete": gym.spaces.MultiDiscrete([2, 3]),
    "MultiBinary": gym.spaces.MultiBinary(3),
    "Text": gym.spaces.Text(3),
    "Dict": gym.spaces.Dict({"a": gym.spaces.Discrete(2)}),
    "Tuple": gym.spaces.Tuple([gym.spaces.Discrete(2)]),
}


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", EVERY)
def test_every_pair_of_a_policy_and_a_space_is_taken_or_refused_in_one_line(name, kind):
    policy = make(name)
    if name in DISCRETE and kind == "Discrete":
        assert rebuild(policy, action_space=SPACES[kind]).is_discrete
        return
    message = rf"action_space must be .* for {type(policy).__name__}, got {kind}\("
    with pytest.raises(ValueError, match=message) as error:
        rebuild(policy, action_space=SPACES[kind])
    assert len(str(error.value).splitlines()) == 1
    assert ("Discrete for" in str(error.value)) == (name in DISCRETE)


@every
@pytest.mark.parametrize("start", [0, 5, -1])
def test_actions_are_counted_from_the_start_of_the_space(name, start):
    space = gym.spaces.Discrete(2, start=start)
    policy = build(name, space=space)
    stored = np.array([0, 1, 1])
    mapped = policy.map_action(torch.from_numpy(stored))
    assert (mapped.dtype, mapped.tolist()) == (np.int64, [start, start + 1, start + 1])
    assert policy.map_action_inverse(mapped).tolist() == [0, 1, 1]
    action = policy.eval().compute_action(np.zeros(2, np.float32))
    assert isinstance(action, int)
    assert action in space
    collector = collected(policy, env=DiscreteEnv, first=start)
    buffer = collector.buffer
    act = buffer.act[buffer.sample_indices(0)]
    assert (act.dtype, act.shape, set(act.tolist())) == (np.int64, (200,), {0, 1})


@every
def test_an_actor_of_continuous_actions_is_named(name):
    actor = make(name).actor
    policy = build(name, actor=actor)
    collector = collector_for(policy, env=DiscreteEnv)
    with pytest.raises(ValueError, match=r"actions must be whole numbers for Discrete\(2\), got float32"):
        collect(policy, collector)


@every
@pytest.mark.parametrize("chosen", [None, False, True])
def test_evaluations_sample_unless_the_most_probable_action_is_asked_for(name, chosen):
    policy = build(name, space=gym.spaces.Discrete(3), deterministic_eval=chosen).eval()
    with torch.no_grad():
        policy.actor.head.bias.copy_(torch.tensor([0.0, 1.0, 0.5]))
    obs = np.zeros((2000, 2), np.float32)
    wanted = torch.tensor([0.0, 1.0, 0.5]).softmax(0)
    torch.testing.assert_close(policy.acting_distribution(obs)[0].probs[7], wanted, atol=1e-2, rtol=0)
    assert policy.samples_in_evaluations == (chosen is not True)
    for training in (False, True):
        policy.is_within_training_step = training
        shares = torch.bincount(policy(Batch(obs=obs, info={})).act, minlength=3) / 2000
        if chosen and not training:
            assert shares.tolist() == [0.0, 1.0, 0.0]
        else:
            torch.testing.assert_close(shares, wanted, atol=0.05, rtol=0)


def test_random_actions_are_stored_as_the_policy_counts_them():
    policy = build("cvpo", space=gym.spaces.Discrete(2, start=7))
    collector = collector_for(policy, env=DiscreteEnv, first=7)
    collector.collect(n_step=80, random=True)
    assert set(collector.buffer.act[collector.buffer.sample_indices(0)].tolist()) == {0, 1}


def test_the_targets_of_cvpo_are_exact_expectations_over_the_old_policy():
    settings = {"estimation_step": 1, "normalise_signals": False, "bound_targets": False}
    policy = build("cvpo", space=gym.spaces.Discrete(3), obs_dim=8, **settings)
    collector = collected(policy, env=DiscreteOptimumEnv, limit=40)
    buffer = collector.buffer
    indices = np.arange(20)
    batch = policy.process_fn(buffer[indices], buffer, indices)
    with torch.no_grad():
        after = torch.as_tensor(buffer.obs_next[indices])
        probs = policy.old_actor(after)[0].softmax(-1)
        q = policy.target_critic(after)
        value = (probs * q.reward.amin(0)).sum(-1)
        cost = (probs * q.cost.mean(1)[0]).sum(-1)
        log_probs = policy.old_actor(torch.as_tensor(buffer.obs[indices]))[0].log_softmax(-1)
    rew, paid = (torch.as_tensor(x[indices]).float() for x in (buffer.rew, buffer.cost[:, 0]))
    torch.testing.assert_close(batch.returns[:, 0], rew + 0.9 * value)
    torch.testing.assert_close(batch.returns[:, 1], paid + 0.9 * cost)
    torch.testing.assert_close(batch.old_log_probs, log_probs)


def test_the_trust_region_s_matrix_is_the_fisher_matrix_of_the_probabilities():
    policy = build("cpo", space=gym.spaces.Discrete(3))
    obs = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    actor = policy.actor.double()
    phi = torch.nn.utils.parameters_to_vector(actor.parameters()).detach()
    inverse = inverse_fisher(actor, [obs[:3].double(), obs[3:].double()], phi, policy.config)

    def root(at):
        return policy_at(actor, [obs.double()], at).probs.sqrt().flatten()

    # The Fisher matrix is four times the Gram matrix of the derivatives of the probabilities' roots.
    jacobian = torch.autograd.functional.jacobian(root, phi)
    fisher = 4 * jacobian.T @ jacobian / 7 + policy.config.cg_damping * torch.eye(len(phi)).double()
    vector = torch.randn(len(phi), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(inverse(vector), torch.linalg.solve(fisher, vector), rtol=1e-3, atol=1e-5)


@every
@pytest.mark.parametrize("num_costs", [1, 2])
def test_a_state_is_saved_and_goes_on_bit_for_bit(name, num_costs):
    limits = [5.0] * num_costs

    def fresh():
        return build(name, space=gym.spaces.Discrete(2, start=1), num_costs=num_costs, cost_limit=limits)

    policy, metrics = fresh(), {}
    collector = collected(policy, env=DiscreteEnv, first=1, num_costs=num_costs)
    metrics = update(policy, collector, 3).metrics
    assert 0 < metrics["policy/entropy"] <= np.log(2) + 1e-6
    assert "policy/std" not in metrics
    other = fresh()
    other.load_state_dict(deepcopy(policy.state_dict()))
    for key in ("actor_optim", "critic_optim"):
        if hasattr(policy, key):
            getattr(other, key).load_state_dict(deepcopy(getattr(policy, key).state_dict()))
    for one in (policy, other):
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002
        collector.buffer._random_state = np.random.RandomState(7)
        update(one, collector, 3)
    assert_same_state(policy.state_dict(), other.state_dict())


def test_the_old_solver_and_several_iterations_work_with_discrete_actions():
    policy = build("cvpo", solver="slsqp", mstep_iterations=3, recovery_share=0.5, cost_limit=1.0)
    collector = collected(policy, env=DiscreteEnv)
    metrics = update(policy, collector, 5).metrics
    assert metrics["mstep/kl_relative"] >= 0
    assert np.isfinite(list(metrics.values())).all()


@pytest.mark.parametrize("name", ["cvpo", "cpo"])
def test_a_bandit_with_two_actions_is_learnt_within_its_limit(name):
    """One action pays 1 and costs 1, the other pays -1; within a cost of 5, 5 of 20 steps take the first."""
    settings = {"kl_bound": 0.1, "kl_bound_mean": 0.05} if name == "cvpo" else {"kl_bound": 0.05}
    policy = build(name, lr=1e-2, **settings)
    collector = collector_for(policy, env=DiscreteEnv)
    for _ in range(15):
        collect(policy, collector, 400)
        update(policy, collector, 20 if name == "cvpo" else 4)
    obs = 2 * torch.rand(1000, 2) - 1
    with torch.no_grad():
        probs = policy.actor(obs if name == "cvpo" else policy.normaliser(obs))[0].softmax(-1)
    assert float(probs[:, 1].mean()) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("name", ["cvpo", "cpo", "ppo"])
def test_an_actor_of_tianshou_learns(name):
    torch.manual_seed(0)
    actor = Actor(Net(state_shape=2, hidden_sizes=[8]), 2, softmax_output=False)
    policy = build(name, actor=actor)
    before = [x.detach().clone() for x in actor.parameters()]
    update(policy, collected(policy, env=DiscreteEnv), 3)
    assert any(not torch.equal(one, x) for one, x in zip(before, actor.parameters(), strict=True))
