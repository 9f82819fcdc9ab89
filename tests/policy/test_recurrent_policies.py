"""Recurrent policies learn from the hidden states that they acted with, whatever the data look like."""

from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.env import DummyVectorEnv
from tianshou.policy.base import policy_within_training_step
from toys.envs import EarlyEndEnv, LineEnv
from toys.policies import GAMMA, ONPOLICY, T

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.net import (
    CategoricalActor,
    GRUFeatures,
    OnpolicyActor,
    RecurrentActor,
    RecurrentValueCritic,
    ValueCritic,
)
from fsrl_ext.policy import EpisodeActor
from fsrl_ext.policy.onpolicy import focops, lagrangian, ppo_lag

N, H = 4, 8
every = pytest.mark.parametrize("name", list(ONPOLICY))


def recurrent(name="ppo", *, bptt_steps=5, discrete=False, **settings):
    torch.manual_seed(0)
    head = CategoricalActor(2 + H, 3, hidden_sizes=(8,)) if discrete else OnpolicyActor(2 + H, 1)
    actor = RecurrentActor(GRUFeatures(2, H), head, bptt_steps=bptt_steps)
    with torch.no_grad():  # so that actions depend on the hidden state from the start
        head.head.weight.mul_(100.0)
    critic = RecurrentValueCritic(GRUFeatures(2, H), ValueCritic(2 + H, hidden_sizes=(8,)))
    if name not in ("cpo", "trpo"):
        settings["actor_optim"] = torch.optim.Adam(actor.parameters(), lr=1e-2)
    return ONPOLICY[name](
        actor=actor,
        critic=critic,
        critic_optim=torch.optim.Adam(critic.parameters(), lr=1e-2),
        action_space=gym.spaces.Discrete(3) if discrete else gym.spaces.Box(-1, 1, (1,)),
        cost_limit=5.0,
        max_episode_steps=T,
        obs_dim=2,
        **{"gamma": GAMMA, **settings},
    )


class Three(gym.ActionWrapper):
    """Chooses one of three actions."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = gym.spaces.Discrete(3)

    def action(self, action):
        return np.array([action - 1.0], np.float32)


def env(i, discrete):
    """Environments whose episodes end at different times, some of them in terminal states."""
    made = EarlyEndEnv() if i == 1 else gym.wrappers.TimeLimit(LineEnv(), 7 + 3 * i)
    return Three(made) if discrete else made


def collector(policy, *, fast=True, discrete=False):
    envs = DummyVectorEnv([lambda i=i: env(i, discrete) for i in range(N)])
    made = CostCollector(policy, envs, CostVectorReplayBuffer(1000, N), fast=fast)
    made.reset(gym_reset_kwargs={"seed": list(range(N))})
    return made


def record_densities(policy):
    """Let a policy note the log densities of the actions that it draws, [N] a step."""
    noted = []

    def act(obs, state, *, explore):
        dist, state = policy.acting_distribution(obs, state)
        drawn = dist.sample()
        noted.append(dist.log_density(drawn))
        return drawn, state

    policy._act = act
    return noted


def collect(made, steps):
    made.reset_buffer(keep_statistics=True)
    with policy_within_training_step(made.policy):
        made.collect(n_step=steps)


def update(made, **kwargs):
    with policy_within_training_step(made.policy):
        return made.policy.update(0, made.buffer, **{"batch_size": 16, "repeat": 3, **kwargs})


def rollout(made):
    """The rollout of what was collected, by a copy of the policy: an update is to follow."""
    policy = deepcopy(made.policy)
    batch, indices = made.buffer.sample(0)
    return policy._rollout(policy.process_fn(batch, made.buffer, indices))


@every
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("bptt_steps", [1, 5, 100])
def test_an_update_begins_with_the_probabilities_of_the_actions_as_they_were_drawn(name, fast, bptt_steps):
    made = collector(recurrent(name, bptt_steps=bptt_steps), fast=fast)
    noted = record_densities(made.policy)
    # Collects of few steps end in the middle of episodes; the policy changes between them.
    for steps in (4 * 3, 4 * 25, 4 * 1, 4 * 6):
        noted.clear()
        collect(made, steps)
        acted = torch.stack(noted).T.flatten()
        learnt = rollout(made).log_density
        torch.testing.assert_close((learnt - acted).exp(), torch.ones(steps), atol=1e-5, rtol=0)
        before = deepcopy(made.policy.actor.state_dict())
        update(made)
        moved = [not torch.equal(x, made.policy.actor.state_dict()[k]) for k, x in before.items()]
        assert any(moved)


def test_discrete_actions_have_the_probabilities_that_they_were_drawn_with():
    made = collector(recurrent("ppo", discrete=True), discrete=True)
    noted = record_densities(made.policy)
    for _ in range(3):
        noted.clear()
        collect(made, 4 * 10)
        acted = torch.stack(noted).T.flatten()
        torch.testing.assert_close(rollout(made).log_density, acted, atol=1e-5, rtol=0)
        update(made)


@pytest.mark.parametrize("name", ["ppo", "focops"])
def test_ratios_are_one_in_every_minibatch_of_an_actor_that_stays(name, monkeypatch):
    made = collector(recurrent(name))
    made.policy.actor_optim = torch.optim.SGD(made.policy.actor.parameters(), lr=0.0)
    ratios = []
    passes = lagrangian.descend_in_passes

    def spied(policy, optim, data, loss, **kwargs):
        def noted(part, ratio, dist):
            ratios.append(ratio.detach())
            return loss(part, ratio, dist)

        return passes(policy, optim, data, noted, **kwargs)

    module = {"ppo": ppo_lag, "focops": focops}[name]
    monkeypatch.setattr(module, "descend_in_passes", spied)
    for steps in (20, 3):
        ratios.clear()
        collect(made, 4 * steps)
        update(made, batch_size=10)
        assert len(ratios) > 3
        of_passes = torch.cat(ratios)
        assert len(of_passes) == 3 * 4 * steps
        torch.testing.assert_close(of_passes, torch.ones_like(of_passes), atol=1e-5, rtol=0)


def test_values_are_those_of_the_episodes_from_their_beginning_on():
    made = collector(recurrent("ppo", bptt_steps=3))
    critic = made.policy.critic
    state = torch.zeros(N, H)
    data = {}
    made.policy._prepare_critic = lambda trajectories: data.update(x=trajectories)
    for steps in (7, 12):
        collect(made, N * steps)
        batch, indices = made.buffer.sample(0)
        made.policy.process_fn(batch, made.buffer, indices)
        values, ahead = (critic(x).view(N, steps, 2) for x in (data["x"].obs, data["x"].next_obs))
        obs = made.policy._normalised(made.buffer.obs[indices]).view(N, steps, 2)
        after = made.policy._normalised(made.buffer.obs_next[indices]).view(N, steps, 2)
        done = torch.as_tensor(made.buffer.done[indices]).view(N, steps)
        for t in range(steps):
            features, state = critic.features.step(obs[:, t], state)
            torch.testing.assert_close(values[:, t], critic.critic(features), atol=1e-6, rtol=1e-5)
            following = critic.features.step(after[:, t], state)[0]
            torch.testing.assert_close(ahead[:, t], critic.critic(following), atol=1e-6, rtol=1e-5)
            state = state.masked_fill(done[:, t, None], 0.0)


def test_a_reset_of_the_environments_begins_without_memory():
    made = collector(recurrent())
    collect(made, 4 * 3)
    update(made)
    assert made._pre_collect_hidden_state_RH.abs().sum() > 0
    made.reset_env(gym_reset_kwargs={"seed": [9] * N})
    noted = record_densities(made.policy)
    collect(made, 4 * 5)
    torch.testing.assert_close(rollout(made).log_density, torch.stack(noted).T.flatten(), atol=1e-5, rtol=0)


def test_the_hidden_states_of_open_episodes_are_saved_with_the_policy():
    made = collector(recurrent())
    collect(made, 4 * 3)
    update(made)
    noted = record_densities(made.policy)
    collect(made, 4 * 5)
    other = recurrent()
    other.load_state_dict(made.policy.state_dict())
    batch, indices = made.buffer.sample(0)
    learnt = other._rollout(other.process_fn(batch, made.buffer, indices)).log_density
    torch.testing.assert_close(learnt, torch.stack(noted).T.flatten(), atol=1e-5, rtol=0)
    fresh = recurrent()
    fresh.load_state_dict({**made.policy.state_dict(), "_extra_state": {}})
    batch, _ = made.buffer.sample(0)
    forgot = fresh._rollout(fresh.process_fn(batch, made.buffer, indices)).log_density
    assert (forgot - learnt).abs().max() > 1e-4


def test_critic_and_actor_are_fitted_through_time():
    made = collector(recurrent("ppo"))
    before = deepcopy(made.policy.state_dict())
    collect(made, 4 * 30)
    stats = update(made)
    for part in ("actor", "critic"):
        name = f"{part}.features.gru.weight_hh_l0"
        assert not torch.equal(before[name], made.policy.state_dict()[name])
    assert stats.metrics["critic/unexplained_reward"] > 0.0


@pytest.mark.parametrize("name", ["ppo", "cpo"])
def test_lbfgs_fits_a_recurrent_critic(name):
    policy = recurrent(name)
    policy.critic_optim = torch.optim.LBFGS(policy.critic.parameters(), max_iter=10)
    made = collector(policy)
    collect(made, 4 * 30)
    first = update(made).metrics["loss/critic_reward"]
    made.policy.critic_optim = torch.optim.SGD(made.policy.critic.parameters(), lr=0.0)
    assert first < update(made).metrics["loss/critic_reward"] + 1.0


def test_actor_and_critic_are_both_recurrent_or_neither():
    policy = recurrent()
    with pytest.raises(ValueError, match=r"both be recurrent or neither, got RecurrentActor and ValueCritic"):
        type(policy)(
            actor=policy.actor,
            actor_optim=policy.actor_optim,
            critic=ValueCritic(2),
            critic_optim=policy.critic_optim,
            action_space=policy.action_space,
            cost_limit=1.0,
            max_episode_steps=T,
            obs_dim=2,
        )


def test_acting_on_single_observations_remembers_the_episode():
    policy = recurrent().eval()
    with pytest.raises(ValueError, match=r"compute_action has no place for the hidden state"):
        policy.compute_action(np.zeros(2, np.float32))
    act, episodes = EpisodeActor(policy), []
    obs = np.random.default_rng(0).normal(size=(2, 5, 2)).astype(np.float32)
    state = None
    for episode in obs:
        act.reset()
        episodes.append(np.array([act(x) for x in episode]))
    for t in range(5):
        dist, state = policy.acting_distribution(obs[:, t], state)
        wanted = policy.map_action(dist.mode())
        np.testing.assert_allclose(np.stack(episodes)[:, t], wanted, atol=1e-6)
    act.reset()
    assert not np.allclose(act(obs[0, 4]), episodes[0][4])


def test_acting_on_single_observations_is_compute_action_without_memory():
    policy = ONPOLICY["cpo"](
        actor=OnpolicyActor(2, 1),
        critic=(critic := ValueCritic(2)),
        critic_optim=torch.optim.Adam(critic.parameters()),
        action_space=gym.spaces.Box(-1, 1, (1,)),
        cost_limit=1.0,
        max_episode_steps=T,
        obs_dim=2,
    ).eval()
    obs = np.ones(2, np.float32)
    assert EpisodeActor(policy)(obs) == policy.compute_action(obs)
