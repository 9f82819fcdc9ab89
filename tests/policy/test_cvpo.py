"""What is CVPO's own: the old policy, the threshold of its E-step, its trust regions, and its optima."""

import math
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.data import Batch
from tianshou.policy.base import policy_within_training_step
from tianshou.trainer import OffpolicyTrainer
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ActorProb
from torch import nn
from toys.envs import EarlyEndEnv, LineEnv
from toys.policies import GAMMA, T, build, build_cvpo, learner
from toys.training import collect, collected, collector_for, deterministic, train, update

from fsrl_ext.data.nstep import NStepWindow
from fsrl_ext.functional.estep import largest_reduction
from fsrl_ext.functional.gaussian import sample_actions
from fsrl_ext.functional.returns import cost_threshold
from fsrl_ext.net import GaussianActor
from fsrl_ext.net.values import QValues
from fsrl_ext.policy import CVPOPolicy
from fsrl_ext.policy.offpolicy.cost_level import CostLevel
from fsrl_ext.policy.offpolicy.critics import OffpolicyConfig, nstep_returns, nstep_windows

# Settings with which CVPO learns LineEnv; with the limit L the best mean action is 2 L / T - 1.
LINE = {"initial_std": 0.6, "kl_bound_scale": 0.005}


def executed_action(policy, samples=20_000):
    """Return the mean action that the sampling policy executes, over states."""
    obs = np.random.default_rng(0).uniform(-1, 1, (samples, 2)).astype(np.float32)
    with torch.no_grad(), policy_within_training_step(policy):
        return float(policy(Batch(obs=obs, info={})).act.clamp(-1, 1).mean())


def copies(module):
    return [p.detach().clone() for p in module.parameters()]


def assert_equal_parameters(expected, module):
    for one, other in zip(expected, module.parameters(), strict=True):
        assert torch.equal(one, other)


def test_mean_action_meets_the_limit_and_weights_their_bound():
    policy = learner("cvpo", cost_limit=5.0, **LINE)
    stats = train(policy, collected(policy), cycles=30, updates=50)
    assert executed_action(policy) == pytest.approx(-0.5, abs=0.06)
    assert stats.metrics["estep/kl_relative"] <= 1 + 1e-6


def test_the_tightest_of_two_costs_binds():
    """The second cost is half the first, so limits (20, 2.5) ask for the same action as (5, 20)."""
    policy = learner("cvpo", cost_limit=(20.0, 2.5), num_costs=2, **LINE)
    train(policy, collected(policy, num_costs=2), updates=50)
    assert executed_action(policy) == pytest.approx(-0.5, abs=0.06)


def test_a_slack_limit_is_hardly_felt():
    def run(cost_limit):
        policy = build("cvpo", cost_limit=cost_limit)
        train(policy, collector_for(policy), cycles=3, updates=4)
        return deterministic(policy)

    np.testing.assert_allclose(run(math.inf), run(1e9), atol=1e-5)


def test_works_in_tianshous_own_trainer_with_tianshous_actor():
    net = Net(state_shape=2, hidden_sizes=[32, 32])
    actor = ActorProb(net, 1, conditioned_sigma=True, preprocess_net_output_dim=32)
    policy = learner("cvpo", cost_limit=5.0, actor=actor, **LINE)
    result = OffpolicyTrainer(
        policy=policy,
        train_collector=collector_for(policy, env=LineEnv),
        test_collector=collector_for(policy, env=LineEnv, num_envs=2),
        max_epoch=3,
        step_per_epoch=2000,
        step_per_collect=200,
        episode_per_test=4,
        update_per_step=0.2,
        batch_size=128,
        verbose=False,
        show_progress=False,
    ).run()
    assert result.gradient_step == 1200
    assert executed_action(policy) == pytest.approx(-0.5, abs=0.1)


def test_critics_see_the_action_as_executed_and_likelihoods_the_raw_one():
    """With samples beyond the box, every action that reaches a critic lies inside; the buffer's do not."""
    policy = build_cvpo(actor=GaussianActor(2, 1, initial_std=1.9))
    collector = collected(policy)
    assert np.abs(collector.buffer.act[: len(collector.buffer)]).max() > 1
    seen = []
    for module in (policy.critic, policy.target_critic):
        module.register_forward_pre_hook(lambda _, args: seen.append(args[1].abs().max().item()))
    update(policy, collector)
    assert len(seen) == 5  # level of old and new policy, targets, critic update, E-step
    assert max(seen) == 1.0  # clipped, not squashed


@pytest.mark.parametrize("env", [LineEnv, EarlyEndEnv])
@pytest.mark.parametrize("time_limits", ["bootstrap", "end"])
def test_nstep_targets_stop_at_the_ends_of_episodes(env, time_limits):
    """Targets for every stored transition against a loop over the episodes, for reward and cost alike."""
    gamma, steps = 0.9, 3
    buffer = collected(build_cvpo(), steps=4 * 50, env=env).buffer
    assert buffer.truncated.any() == (env is LineEnv)
    assert buffer.terminated.any() == (env is EarlyEndEnv)
    indices = buffer.sample_indices(0)
    window = buffer.nstep_window(indices, steps)
    next_obs = torch.as_tensor(window.obs_next)
    values = torch.stack([next_obs[:, 0] + 2, next_obs[:, 1] - 3], 1)
    config = OffpolicyConfig(gamma=gamma, time_limits=time_limits)
    targets = nstep_returns((window,), values, config=config, data=config.statistics(1))
    newest = set(buffer.last_index.tolist())
    for index, row in zip(indices, targets.double().numpy(), strict=True):
        expected, i = np.zeros(2), int(index)
        for k in range(steps):
            expected += gamma**k * np.array([buffer.rew[i], buffer.cost[i, 0]])
            if buffer.done[i] or i in newest or k == steps - 1:
                break
            i += 1
        bootstrap = np.array([buffer.obs_next[i, 0] + 2, buffer.obs_next[i, 1] - 3])
        if buffer.terminated[i] or (time_limits == "end" and buffer.truncated[i]):
            bootstrap[:] = 0.0
        np.testing.assert_allclose(row, expected + gamma ** (k + 1) * bootstrap, rtol=1e-4)


def test_costs_have_a_window_and_a_discount_of_their_own():
    """Targets for every stored transition against a loop, with 4 steps for costs and 2 for the reward."""
    buffer = collected(build_cvpo(), steps=4 * 50, env=EarlyEndEnv).buffer
    indices = buffer.sample_indices(0)
    config = OffpolicyConfig(gamma=0.9, estimation_step=2, cost_gamma=0.8, cost_estimation_step=4)
    windows = nstep_windows(buffer, indices, config)
    obs = [torch.as_tensor(x.obs_next) for x in windows]
    values = torch.stack([obs[0][:, 0] + 2, obs[1][:, 1] - 3], 1)
    targets = nstep_returns(windows, values, config=config, data=config.statistics(1))
    newest = set(buffer.last_index.tolist())
    for index, row in zip(indices, targets.double().numpy(), strict=True):
        for signal, (gamma, steps) in enumerate(((0.9, 2), (0.8, 4))):
            expected, i = 0.0, int(index)
            for k in range(steps):
                expected += gamma**k * float(buffer.cost[i, 0] if signal else buffer.rew[i])
                if buffer.done[i] or i in newest or k == steps - 1:
                    break
                i += 1
            value = buffer.obs_next[i, 1] - 3 if signal else buffer.obs_next[i, 0] + 2
            expected += gamma ** (k + 1) * value * (not buffer.terminated[i])
            assert row[signal] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_goal_ends_the_return_of_the_reward_and_not_that_of_the_cost():
    """By hand: a window of three steps, whose goal is its second step, its last one, or none."""
    rewards = np.array([[0.1, 1.2, 0.3], [0.1, 0.2, 0.5], [0.1, 0.2, 0.3]]).T
    window = NStepWindow(
        signals=np.stack([rewards, np.ones_like(rewards)], -1).astype(np.float32),
        alive=np.ones((3, 3), dtype=bool),
        terminated=np.zeros(3, dtype=bool),
        ended=np.zeros(3, dtype=bool),
        obs_next=np.zeros((3, 1)),
        places=np.zeros((3, 3), dtype=np.int64),
    )
    config = OffpolicyConfig(gamma=0.5, goal_reward=0.5, bound_targets=False)
    data, values = config.statistics(1), torch.full((3, 2), 8.0)
    bonus = torch.tensor([[4.0] * 3, [2.0] * 3, [1.0] * 3])
    targets = nstep_returns((window,), values, config=config, data=data)
    assert targets[:, 0].tolist() == pytest.approx([0.7, 0.325, 0.275 + 1.0])
    assert targets[:, 1].tolist() == [2.75] * 3
    with_bonus = nstep_returns((window,), values, config=config, data=data, bonus=bonus)
    expected = [0.7 + 2.0, 0.325 + 2.5, 1.275 + 2.5 + 0.125]
    assert with_bonus[:, 0].tolist() == pytest.approx(expected)
    assert with_bonus[:, 1].tolist() == [2.75] * 3
    with pytest.raises(ValueError, match="goal_reward must be a finite number, got inf"):
        OffpolicyConfig(goal_reward=np.inf)


def test_frozen_old_policy_follows_once_per_collect_cycle():
    policy = build_cvpo(old_policy="frozen")
    collector = collected(policy)
    collected_with = copies(policy.actor)
    update(policy, collector, 3)
    assert_equal_parameters(collected_with, policy.old_actor)
    assert not torch.equal(collected_with[0], next(policy.actor.parameters()))
    collect(policy, collector, 4)
    collected_with = copies(policy.actor)
    update(policy, collector)
    assert_equal_parameters(collected_with, policy.old_actor)


def test_frozen_old_policy_follows_data_that_were_collected_elsewhere():
    policy = build_cvpo(old_policy="frozen")
    collector = collected(policy)
    update(policy, collector)
    collector.policy = deepcopy(policy)
    collect(collector.policy, collector, 4)
    collected_with = copies(policy.actor)
    update(policy, collector)
    assert_equal_parameters(collected_with, policy.old_actor)


def test_testing_between_updates_does_not_move_the_frozen_policy():
    policy = build_cvpo(old_policy="frozen")
    collector = collected(policy)
    update(policy, collector)
    before = copies(policy.old_actor)
    policy(Batch(obs=np.zeros((1, 2), np.float32), info={}))
    update(policy, collector)
    assert_equal_parameters(before, policy.old_actor)


def test_polyak_old_policy_moves_by_its_rate():
    policy = build_cvpo(old_policy="polyak", old_policy_tau=0.25)
    collector = collected(policy)
    before = copies(policy.old_actor)
    update(policy, collector)
    for old, new, actor in zip(before, policy.old_actor.parameters(), policy.actor.parameters(), strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * actor)


def test_an_averaged_actor_acts_outside_training_and_leaves_training_as_it_was():
    plain, averaged = (build_cvpo(average_tau=tau) for tau in (None, 0.25))
    batch = Batch(obs=np.ones((1, 2), np.float32), info={})
    first = copies(averaged.average_actor)
    for policy in (plain, averaged):
        collector = collected(policy)
        torch.manual_seed(0)
        update(policy, collector)
    for old, new, actor in zip(
        first, averaged.average_actor.parameters(), averaged.actor.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * actor)
    assert_equal_parameters(copies(plain.actor), averaged.actor)
    torch.testing.assert_close(averaged(batch).act, averaged.average_actor(batch.obs)[0][0])
    with policy_within_training_step(averaged):
        torch.manual_seed(1)
        sampled = averaged(batch).act
        torch.manual_seed(1)
        torch.testing.assert_close(sampled, sample_actions(*averaged.actor(batch.obs)[0], 1).squeeze(1))
    restored = build_cvpo(average_tau=0.25)
    restored.load_state_dict(averaged.state_dict())
    torch.testing.assert_close(restored(batch).act, averaged(batch).act)


def test_mstep_stays_near_its_trust_region():
    """After many steps on one frozen old policy, both KLs have settled near their bounds."""
    settings = {"kl_multiplier_lr": 0.1, "kl_multiplier_max": 1000.0, "mstep_iterations": 20}
    policy = build_cvpo(cost_limit=math.inf, kl_bound=1.0, kl_bound_mean=0.01, **settings)
    collector = collected(policy)
    metrics = [update(policy, collector, batch_size=128).metrics for _ in range(60)]
    for part in ("mean", "scale"):
        assert np.mean([x[f"mstep/kl_{part}_relative"] for x in metrics[-20:]]) < 2.0


def test_kl_multipliers_of_mean_and_covariance_have_their_own_rates_and_caps():
    policy = build_cvpo(kl_multiplier_lr=(1.0, 50.0), kl_multiplier_max=(1e-3, 2.0), kl_bound_mean=1e-6)
    policy.kl_multipliers = torch.tensor([0.0, 1000.0])
    update(policy, collected(policy), 1)
    assert policy.kl_multipliers.tolist() == [0.0, 2.0]  # the first KL is 0, and the second one is capped
    update(policy, collected(policy), 5)
    assert policy.kl_multipliers[0].item() == pytest.approx(1e-3)
    assert build_cvpo(kl_multiplier_max=3).config.kl_multiplier_max == (3, 3)
    assert build_cvpo(kl_multiplier_lr=[0.1, 0.2]).config.kl_multiplier_lr == (0.1, 0.2)
    for bad in (-1.0, (0.1, -0.1), (), (1.0, 2.0, 3.0), math.nan):
        with pytest.raises(
            ValueError, match=r"kl_multiplier_lr must be (one number >= 0 or two|>= 0 each|several numbers)"
        ):
            build_cvpo(kl_multiplier_lr=bad)


@pytest.mark.parametrize(("time_limits", "unit"), [("bootstrap", "stationary"), ("end", "finite")])
def test_the_thresholds_unit_follows_how_the_critics_learn(time_limits, unit):
    policy = build_cvpo(cost_limit=5.0, time_limits=time_limits)
    expected = cost_threshold(5.0, max_episode_steps=T, gamma=policy.config.gamma, unit=unit)
    assert policy.cost_threshold.item() == expected
    named = build_cvpo(cost_limit=5.0, time_limits=time_limits, threshold="paper")
    paper = cost_threshold(5.0, max_episode_steps=T, gamma=policy.config.gamma, unit="paper")
    assert named.cost_threshold.item() == paper


def test_cost_margin_tightens_the_threshold():
    policy = build_cvpo(cost_limit=5.0)
    with_margin = build_cvpo(cost_limit=5.0, cost_margin=0.25)
    torch.testing.assert_close(with_margin.cost_threshold, 0.75 * policy.cost_threshold)
    torch.testing.assert_close(with_margin.cost_bound, 0.75 * policy.cost_bound)
    assert with_margin.cost_limit == policy.cost_limit


class KnownCosts(nn.Module):
    """Values reward as the action ``a``, and cost as ``o_0 + (1 + a) / 2``, whatever it is taught."""

    num_costs = 1

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, obs, act):
        state = obs[:, 0] if act.dim() == 2 else obs[:, :1]
        reward, nothing = act[..., 0], 0.0 * self.unused
        return QValues((reward + nothing)[None], (state + (1 + reward) / 2 + nothing)[None, None])


def with_known_costs(**settings):
    """A policy with fixed critics, whose networks stay as they are."""
    actor, critic = GaussianActor(2, 1), KnownCosts()
    return CVPOPolicy(
        actor=actor,
        actor_optim=torch.optim.SGD(actor.parameters(), lr=0.0),
        critic=critic,
        critic_optim=torch.optim.SGD(critic.parameters(), lr=0.0),
        action_space=gym.spaces.Box(-1, 1, (1,)),
        max_episode_steps=T,
        gamma=GAMMA,
        kl_bound=0.1,
        **settings,
    )


def standard_batch(obs):
    """A batch whose old policy is a Gaussian around zero."""
    mean, std = torch.zeros(len(obs), 1), torch.full((len(obs), 1), 0.6)
    return Batch(obs=obs, act=mean, returns=torch.zeros(len(obs), 2), old_mean=mean, old_scale=std)


@pytest.mark.parametrize(("share", "status"), [(1.0, "infeasible"), (0.6, "active"), (0.2, "active")])
def test_far_above_the_limit_an_update_is_asked_for_a_share_of_what_it_can_do(share, status):
    """Episodes cost 1,000 at a limit of 10, which no update can take off; reward and cost go together."""
    policy = with_known_costs(cost_limit=10.0, recovery_share=share)
    policy.measured_cost.measure(
        np.full((4, 1), 1000.0),
        np.full(4, T),
        bound=torch.tensor([10.0], dtype=torch.float64),
        num_envs=4,
        otherwise=np.zeros(1),
    )
    torch.manual_seed(0)
    metrics = policy.learn(standard_batch(torch.rand(64, 2))).metrics
    assert metrics[f"estep/{status}"] == 1.0
    assert metrics["estep/kl_relative"] == pytest.approx(1.0, rel=1e-3)
    torch.manual_seed(0)
    cost = policy.target_critic(
        torch.rand(64, 2), policy._sample(torch.zeros(64, 1), torch.full((64, 1), 0.6)).clip(-1, 1)
    ).cost
    reach = float(largest_reduction(cost[:, 0], 0.1)[0])
    reduction = (1000.0 - metrics["constraint/expected_cost"]) / T
    assert reduction == pytest.approx(share * reach, rel=0.15 if status == "infeasible" else 1e-3)


def test_the_extra_share_is_asked_for_at_the_limit_too():
    """Episodes cost just the limit, so the extra share alone asks for a reduction."""
    policy = with_known_costs(cost_limit=10.0, recovery_share=0.6)
    policy.measured_cost.measure(
        np.full((4, 1), 10.0),
        np.full(4, T),
        bound=torch.tensor([10.0], dtype=torch.float64),
        num_envs=4,
        otherwise=np.zeros(1),
    )
    q_cost = torch.rand(1, 64, 16)
    old_cost = q_cost.mean((1, 2), dtype=torch.float64)
    reach = largest_reduction(q_cost, 0.1)
    for share, asked in [(0.0, 0.0), (0.4, 0.4), (0.6, 0.6)]:
        policy.measured_cost.extra_share.fill_(share)
        reduction = old_cost - policy._estep.threshold(
            q_cost,
            old_cost,
            scale=policy._cost_scale,
            bound=policy.cost_bound.double(),
            discounted_bound=policy.cost_threshold,
            steps=policy._counted_steps,
        )
        torch.testing.assert_close(reduction, asked * reach)


@pytest.mark.parametrize(
    ("rate", "statuses"), [(1.0, {"slack", "infeasible"}), (0.01, {"active"})], ids=["batch", "mean"]
)
def test_the_constraint_is_about_the_mean_over_all_states(rate, statuses):
    """Batches of dear and of cheap states come in turn.

    Alone such batches are infeasible or slack. Their mean cost, 2.5, is a little above the threshold.
    """
    policy = with_known_costs(
        cost_limit=2.45 * T * (1 - GAMMA), threshold="stationary", cost_level="critic", cost_level_rate=rate
    )
    assert policy.cost_threshold.item() == pytest.approx(2.45)
    torch.manual_seed(0)
    metrics = []
    for i in range(200):
        obs = torch.rand(64, 2)
        obs[:, 0] = 4.0 * (i % 2)
        metrics.append(policy.learn(standard_batch(obs)).metrics)
    names = ("slack", "active", "infeasible", "flat", "saturated")
    assert {x for x in names for row in metrics[100:] if row[f"estep/{x}"]} == statuses
    if rate < 1.0:
        expected = np.mean([x["constraint/expected_cost"] for x in metrics[100:]])
        assert expected == pytest.approx(policy.cost_limit[0], rel=0.005)


def test_cost_levels_are_means():
    level = CostLevel(rate=0.1)
    assert level.restart() is None
    values = torch.rand(50, 2, dtype=torch.float64)
    for i, value in enumerate(values):
        level.add(value)
        if i < 10:  # the first batches count alike
            torch.testing.assert_close(level.running, values[: i + 1].mean(0))
    torch.testing.assert_close(level.restart(), values.mean(0))
    assert level.restart() is None


@pytest.mark.parametrize("level", ["measured", "critic"])
def test_a_constant_bias_of_the_cost_critic_has_no_effect_on_a_measured_level(level):
    """Two E-steps whose critics differ by a constant agree if, and only if, the level is measured."""
    solutions = []
    for bias in (0.0, 50.0):
        # Without a learning rate the critics stay as they are.
        policy = build_cvpo(cost_level=level, cost_limit=10.0, lr=0.0)
        with torch.no_grad():
            for critic in (policy.critic, policy.target_critic):
                critic.layers[-1].bias[1] += bias
        metrics = update(policy, collected(policy)).metrics
        solutions.append(
            [metrics[x] for x in ("constraint/multiplier", "constraint/surplus", "estep/temperature")]
        )
    equal = solutions[0] == pytest.approx(solutions[1], abs=1e-4)
    assert equal == (level == "measured")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kl_bound": -0.1}, "kl_bound must be > 0, got -0.1"),
        ({"kl_bound": math.nan}, "kl_bound must be a number, got nan"),
        ({"num_samples": 0}, "num_samples must be a whole number >= 1, got 0"),
        ({"threshold": "papers"}, "threshold must be one of .* got 'papers'"),
        ({"average_tau": 0.0}, r"average_tau must be in \(0, 1\], got 0.0"),
        ({"cost_margin": 1.0}, r"cost_margin must be in \[0, 1\), got 1.0"),
        ({"cost_level": "both"}, "cost_level must be one of .* got 'both'"),
        ({"cost_level_episodes": -1.0}, "cost_level_episodes must be >= 0, got -1.0"),
        ({"limit_approach": 1.5}, r"limit_approach must be in \(0, 1\], got 1.5"),
        ({"recovery_share": 0.0}, r"recovery_share must be in \(0, 1\], got 0.0"),
        ({"time_limits": "ends"}, "time_limits must be one of .* got 'ends'"),
        ({"tau": 0.0}, r"tau must be in \(0, 1\], got 0.0"),
        ({"multiplier_max": -1.0}, "multiplier_max must be > 0, got -1.0"),
        ({"multiplier_max": 1.0, "solver": "slsqp"}, "multiplier_max must be None with .* got 1.0"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        build_cvpo(**settings)
