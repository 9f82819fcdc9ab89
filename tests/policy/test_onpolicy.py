"""What is the on-policy family's own: advantages, episodes, critics, losses and the trust region."""

import itertools
import math
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.data import Batch, ReplayBuffer
from tianshou.trainer import OnpolicyTrainer
from torch import nn
from toys.buffers import add_step
from toys.cmdps import two_state_episode_cost
from toys.policies import GAMMA, ONPOLICY, T, build, tensors
from toys.training import collect, collector_for, update

from fsrl_ext.data import CostVectorReplayBuffer
from fsrl_ext.errors import NonFiniteError
from fsrl_ext.functional.conjugate_gradient import flatten
from fsrl_ext.functional.constrained_step import constrained_step
from fsrl_ext.functional.gaussian import kl_divergence
from fsrl_ext.functional.multiplier import lagrangian_advantage
from fsrl_ext.net import OnpolicyActor, ValueCritic
from fsrl_ext.policy.multipliers import Multipliers
from fsrl_ext.policy.onpolicy.focops import FOCOPSConfig, focops_loss
from fsrl_ext.policy.onpolicy.ppo_lag import PPOLagConfig, clipped_loss
from fsrl_ext.policy.onpolicy.trpo_lag import TRPOLagConfig
from fsrl_ext.policy.onpolicy.trust_region import CostChanges, must_improve

every = pytest.mark.parametrize("name", list(ONPOLICY))


class LinearValues(nn.Module):
    """Values reward as ``10 o_0`` and cost as ``o_0``."""

    num_costs = 1

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([10.0, 1.0]))

    def forward(self, obs):
        return obs[:, :1] * self.weight


def linear_policy(**settings):
    critic = LinearValues()
    return ONPOLICY["trpo"](
        actor=OnpolicyActor(1, 1, hidden_sizes=(4,)),
        critic=critic,
        critic_optim=torch.optim.SGD(critic.parameters(), lr=0.0),
        action_space=gym.spaces.Box(-1, 1, (1,)),
        cost_limit=1.0,
        max_episode_steps=T,
        **{"gamma": 0.9, "normalise_observations": False, "normalise_signals": False, **settings},
    )


@pytest.mark.parametrize("cost_gamma", [None, 0.7, 1.0])
def test_advantages_bootstrap_from_where_the_environment_really_was(cost_gamma):
    """A plain loop agrees, over a time limit, a terminal state and the collect's end, in two environments.

    Undiscounted costs end at the time limit, and bootstrap where the collect cuts an episode.
    """
    buffer = CostVectorReplayBuffer(8, 2)
    # Environment 0: a time limit at 0.3 and the next episode from 0.9 on, cut after its second step.
    for obs, obs_next, truncated in ((0.1, 0.2, 0), (0.2, 0.3, 1), (0.9, 0.8, 0), (0.8, 0.7, 0)):
        add_step(buffer, 0, obs, obs_next, truncated=bool(truncated), rew=obs)
    # Environment 1: terminal after two steps; the observation after the terminal step is never read.
    for obs, obs_next, terminated in ((0.4, 0.5, 0), (0.5, 1e9, 1), (0.6, 0.65, 0)):
        add_step(buffer, 1, obs, obs_next, terminated=bool(terminated), cost=obs)
    policy = linear_policy(gae_lambda=0.8, cost_gae_lambda=0.5, cost_gamma=cost_gamma)
    batch, indices = buffer.sample(0)
    rows = list(zip(batch.obs[:, 0], batch.obs_next[:, 0], batch.rew, batch.cost[:, 0], strict=True))
    processed = policy.process_fn(batch, buffer, indices)
    ends = [False, True, False, True, False, True, True]
    terminal = [False, False, False, False, False, True, False]
    limit = [False, True, False, False, False, False, False]
    for signal, (scale, gamma, decay) in enumerate(((10.0, 0.9, 0.8), (1.0, cost_gamma or 0.9, 0.5))):
        advantage, expected = 0.0, []
        over = [x or (y and gamma == 1.0) for x, y in zip(terminal, limit, strict=True)]
        for (obs, obs_next, *signals), end, last in reversed(list(zip(rows, ends, over, strict=True))):
            ahead = 0.0 if last else gamma * scale * obs_next
            delta = signals[signal] + ahead - scale * obs
            advantage = delta + (0.0 if end else gamma * decay * advantage)
            expected.append(advantage)
        torch.testing.assert_close(
            processed.advantages[:, signal], torch.tensor(expected[::-1], dtype=torch.float32)
        )
    values = torch.tensor([[10.0 * obs, obs] for obs, *_ in rows], dtype=torch.float32)
    torch.testing.assert_close(processed.returns, processed.advantages + values)


def two_episodes(*, rew=0.0, terminated=False):
    """Return a buffer of two episodes that end by the time limit, or by a terminal state.

    :param rew: is added to every reward.
    """
    buffer = CostVectorReplayBuffer(8, 1)
    for t, obs in enumerate((0.1, 0.2, 0.3, 0.9, 0.9, 0.8, 0.7, 0.6)):
        end = t in (3, 7)
        ending = {"terminated": end and terminated, "truncated": end and not terminated}
        add_step(buffer, 0, obs, obs - 0.1, **ending, rew=obs + rew, cost=float(t % 3 == 0))
    return buffer


@pytest.mark.parametrize("terminated", [False, True])
@pytest.mark.parametrize("cost_gamma", [None, 1.0])
def test_the_level_of_the_values_makes_the_td_errors_of_the_data_zero_on_average(terminated, cost_gamma):
    buffer = two_episodes(rew=3.0, terminated=terminated)
    policy = linear_policy(
        normalise_signals=True, gae_lambda=1e-9, cost_gae_lambda=1e-9, cost_gamma=cost_gamma
    )
    for _ in range(2):  # the level follows the critic
        advantages = policy.process_fn(buffer.sample(0)[0], buffer, buffer.sample_indices(0)).advantages
        torch.testing.assert_close(advantages.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
        with torch.no_grad():
            policy.critic.weight.add_(torch.tensor([5.0, 2.0]))
    assert policy.value_level[0] > 3.0


def test_a_constant_in_every_reward_changes_no_advantage_without_terminal_states():
    """An untrained critic does not make the end of an episode look worse than its beginning."""
    advantages = []
    for rew in (0.0, 3.0):
        buffer = two_episodes(rew=rew)
        policy = linear_policy(normalise_signals=True, gae_lambda=0.95)
        advantages.append(policy.process_fn(buffer.sample(0)[0], buffer, buffer.sample_indices(0)).advantages)
    torch.testing.assert_close(*advantages, atol=1e-4, rtol=0)


def test_the_level_of_the_values_is_saved_and_the_critic_learns_the_rest():
    buffer = two_episodes(rew=3.0)
    policy, other, older = (linear_policy(normalise_signals=True) for _ in range(3))
    batch = policy.process_fn(buffer.sample(0)[0], buffer, buffer.sample_indices(0))
    state = policy.state_dict()
    other.load_state_dict(state)
    assert torch.equal(other.value_level, policy.value_level)
    rest = (batch.returns - policy.value_level) / policy.signal_scale
    metrics = policy._fit_critic(batch.obs, batch.returns, None, 1)
    expected = (policy.critic(batch.obs) - rest).square().mean(0).tolist()
    assert [metrics[f"loss/critic_{x}"] for x in ("reward", "cost")] == pytest.approx(expected)
    # A file of earlier versions has no level.
    del state["_extra_state"]["units"]["value_level"]
    older.load_state_dict(state)
    assert older.value_level.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("config", [TRPOLagConfig, PPOLagConfig, FOCOPSConfig])
def test_a_lasting_excess_raises_the_default_multiplier_before_a_policy_has_lost_its_noise(config):
    """Some ten updates can make a policy deterministic above its limit, from where no data lead back."""
    multipliers, limit = Multipliers(1, config()), torch.ones(1)
    for _ in range(50):
        multipliers.update(1.2 * limit, limit, limit)
    assert multipliers.values.item() > 1.0


def test_data_that_are_not_finite_leave_the_level():
    buffer = two_episodes()
    buffer.rew[2] = np.nan
    policy = linear_policy(normalise_signals=True)
    policy.process_fn(buffer.sample(0)[0], buffer, buffer.sample_indices(0))
    assert torch.isfinite(policy.value_level).all()


@pytest.mark.parametrize(
    ("value", "allowed"), [(0.0, r"in \(0, 1\]"), (1.1, r"in \(0, 1\]"), (math.nan, "a number or None")]
)
def test_a_discount_of_costs_outside_its_range_is_refused(value, allowed):
    with pytest.raises(ValueError, match=f"cost_gamma must be {allowed}, got {value}"):
        linear_policy(cost_gamma=value)


def test_a_buffer_without_the_final_observations_is_refused():
    policy = build("cpo")
    buffer = CostVectorReplayBuffer(8, 1, ignore_obs_next=True)
    add_step(buffer, 0, 0.1, 0.2)
    batch, indices = buffer.sample(0)
    with pytest.raises(ValueError, match="obs_next"):
        policy.process_fn(batch, buffer, indices)


def test_episode_costs_are_those_that_the_collector_counted():
    policy = linear_policy()
    buffer = CostVectorReplayBuffer(4, 1)
    for i in range(4):
        add_step(buffer, 0, i, i + 1, cost=float(i))
    buffer.episodes.publish(np.array([[7.0], [4.0]]), np.array([3, 2]))
    batch, indices = buffer.sample(0)
    policy.process_fn(batch, buffer, indices)
    assert policy.episode_cost.tolist() == [5.5]
    assert policy.episode_length == 2.5


def test_without_the_end_of_an_episode_steps_stand_for_it():
    policy = linear_policy()
    buffer = CostVectorReplayBuffer(4, 1)
    for i in range(4):
        add_step(buffer, 0, i, i + 1, cost=float(i))
    batch, indices = buffer.sample(0)
    policy.process_fn(batch, buffer, indices)
    assert policy.episode_cost.tolist() == [1.5 * T]
    assert policy.episode_length == T


def test_observations_are_normalised_by_what_the_collecting_policy_knew():
    policy = build("cpo")
    collector = collector_for(policy)
    collect(policy, collector)
    assert policy.normaliser.count == 0
    seen = torch.from_numpy(collector.buffer.obs[:10])
    assert torch.equal(policy.normaliser(seen), seen)
    update(policy, collector)
    assert policy.normaliser.count == 200
    before = policy.state_dict()["normaliser.mean"].clone()
    policy(Batch(obs=np.full((3, 2), 9.0), info={}))
    assert torch.equal(before, policy.normaliser.mean)


def test_a_policy_moves_by_its_update_alone_once_its_statistics_stand():
    """As long as its statistics move, they carry the policy out of the trust region."""

    def moved(policy, collector):
        collect(policy, collector)
        obs = torch.from_numpy(collector.buffer.obs[collector.buffer.sample_indices(0)])
        (mean, std), _ = policy.actor(policy.normaliser(obs))
        metrics = update(policy, collector).metrics
        (now_mean, now_std), _ = policy.actor(policy.normaliser(obs))
        return float(kl_divergence(mean, std, now_mean, now_std).detach().mean()), metrics

    policy = build("cpo", cost_limit=math.inf, kl_bound=1e-3, normalise_steps=400)
    with torch.no_grad():
        policy.actor.head.weight.mul_(50.0)  # as sensitive to observations as after learning
    collector = collector_for(policy)
    for _ in range(2):
        kl, metrics = moved(policy, collector)
        assert min(kl, metrics["policy/drift"]) > 1e-3 >= metrics["step/kl"]
    assert policy.normaliser.settled
    for _ in range(2):
        kl, metrics = moved(policy, collector)
        assert kl == pytest.approx(metrics["step/kl"], rel=1e-2)
        assert "policy/drift" not in metrics
    assert policy.normaliser.count == 400
    with pytest.raises(ValueError, match=r"normalise_steps must be a whole number >= 1, got 0"):
        build("cpo", normalise_steps=0)


def test_normalising_needs_to_know_the_observations_size():
    with pytest.raises(ValueError, match="obs_dim"):
        linear_policy(normalise_observations=True)


def test_cpo_steps_keep_their_promises():
    """Every update stays inside the trust region, and the expected cost within the limit where it can."""
    policy = build("cpo", cost_limit=4.0, kl_bound=0.02)
    collector, cases = collector_for(policy), set()
    margin = 0.0
    for _ in range(40):
        collect(policy, collector, 400)
        metrics = update(policy, collector, 4).metrics
        assert metrics["step/kl"] <= 0.02
        cases |= {k for k, v in metrics.items() if k.startswith("step/case") and v == 1.0}
        assert sum(v for k, v in metrics.items() if k.startswith("step/case")) == 1.0
        if metrics["step/fraction"] > 0:
            assert metrics["step/cost_change"] <= max(-metrics["constraint/surplus"], 0.0) + 1e-6
            assert metrics["constraint/expected_cost"] <= max(4.0, policy.episode_cost[0]) + 1e-4
        assert metrics["constraint/extra_margin"] == pytest.approx(margin)
        excess = policy.episode_cost[0] - 4.0
        assert metrics["constraint/surplus"] == pytest.approx((excess + margin) / T, abs=1e-6)
        if metrics["step/case_recovery"] == 0.0:
            margin = min(max(margin + 0.1 * min(excess, 2.0), 0.0), 2.0)
        expected = policy.episode_cost[0] + T * metrics["step/cost_change"]
        assert metrics["constraint/expected_cost"] == pytest.approx(expected)
    assert {"step/case_active", "step/case_recovery"} <= cases


def test_played_changes_are_compared_with_what_was_predicted():
    changes = CostChanges()
    assert changes.play(np.array([9.0, 9.0])) == {}
    assert changes.predict(np.array([10.0, 5.0]), np.array([-2.0, 0.0])) == {
        "constraint/predicted_change_0": -2.0,
        "constraint/predicted_change_1": 0.0,
    }
    metrics = changes.play(np.array([9.0, 6.0]))
    assert metrics["constraint/played_change_0"] == -1.0
    assert metrics["constraint/played_per_predicted_0"] == 0.5
    assert "constraint/played_per_predicted_1" not in metrics  # nothing was predicted that it could be
    # A regression slope does not jump where a prediction is near zero.
    changes.predict(np.array([9.0, 6.0]), np.array([1e-3, 1.0]))
    restored = CostChanges()
    restored.load_state_dict(changes.state_dict())
    metrics = restored.play(np.array([10.0, 6.5]))
    assert metrics["constraint/played_per_predicted_0"] == pytest.approx(2.001 / 4.000001)
    assert metrics["constraint/played_per_predicted_1"] == 0.5
    assert metrics["constraint/unpredicted_change_0"] == pytest.approx((1.0 + 0.999) / 2)
    assert metrics["constraint/unpredicted_change_1"] == 0.25
    restored.predict(np.zeros(2), np.ones(2))
    restored.forget_open()
    assert restored.play(np.ones(2)) == {}
    for k in range(CostChanges.window):
        restored.predict(np.array([float(k), 0.0]), np.ones(2))
        metrics = restored.play(np.array([k + 3.0, 0.0]))
    assert metrics["constraint/played_per_predicted_0"] == 3.0  # nothing is left of what came before


@pytest.mark.parametrize(
    ("cost_limit", "settings"),
    [
        (4.0, {}),
        (4.0, {"cost_gamma": 1.0, "cost_gae_lambda": 1.0}),
        (1.5, {"limit_unit": "discounted"}),
    ],
)
def test_cpo_predicts_the_change_of_the_episode_cost(cost_limit, settings):
    """The prediction is within 20% of the exact change, in the unit of the limit."""
    discount = GAMMA if "limit_unit" in settings else 1.0

    def exact_cost():
        (mean, std), _ = policy.actor(policy._normalised(np.eye(2, dtype=np.float32)))
        mean, std = mean.detach().numpy()[:, 0], std.detach().numpy()[:, 0]
        return two_state_episode_cost(mean, std, T, discount)

    policy = build("cpo", cost_limit=cost_limit, normalise_observations=False, **settings)
    collector, changes = collector_for(policy, discount=GAMMA), []
    for _ in range(5):
        collect(policy, collector, 4000)
        before = exact_cost()
        predicted = update(policy, collector, 4, batch_size=200).metrics["constraint/predicted_change"]
        changes.append((predicted, exact_cost() - before))
    x, y = np.array(changes).T
    assert x @ y / (x @ x) == pytest.approx(1.0, abs=0.2)
    assert x.sum() == pytest.approx(y.sum(), rel=0.2)
    assert y.sum() < -1.0


def test_cpo_logs_what_became_of_its_last_update():
    policy = build("cpo", cost_limit=4.0)
    collector, rows = collector_for(policy), []
    for _ in range(3):
        collect(policy, collector, 400)
        rows.append(update(policy, collector, 4).metrics)
        state = policy.state_dict()
        policy._changes = CostChanges()
        policy.load_state_dict(state)
    assert "constraint/played_change" not in rows[0]
    for before, after in itertools.pairwise(rows):
        played = after["constraint/episode_cost"] - before["constraint/episode_cost"]
        assert after["constraint/played_change"] == pytest.approx(played)
        change = before["constraint/expected_cost"] - before["constraint/episode_cost"]
        assert before["constraint/predicted_change"] == pytest.approx(change)
    x = np.array([row["constraint/predicted_change"] for row in rows[:2]])
    y = np.array([row["constraint/played_change"] for row in rows[1:]])
    assert rows[2]["constraint/played_per_predicted"] == pytest.approx(x @ y / (x @ x))


def test_the_margin_grows_while_the_cost_is_above_the_limit_and_shrinks_again_below():
    policy = build("cpo", cost_limit=(10.0, math.inf, 0.0), num_costs=3, margin_rate=0.2, cost_margin=0.2)

    def after(*costs):
        policy.episode_cost = np.array(costs)
        policy.extra_margin = policy._next_margin()
        return policy.extra_margin.tolist()

    assert after(12.0, 99.0, 3.0) == pytest.approx([0.4, 0.0, 0.0])
    assert after(99.0, 99.0, 3.0) == pytest.approx([1.4, 0.0, 0.0])  # counts as an excess of half the limit
    assert after(9.0, 99.0, 0.0) == pytest.approx([1.2, 0.0, 0.0])
    for _ in range(9):
        after(99.0, 99.0, 3.0)
    assert policy.extra_margin.tolist() == pytest.approx([4.0, 0.0, 0.0])  # half of what cost_margin leaves
    restored = build("cpo", cost_limit=(10.0, math.inf, 0.0), num_costs=3)
    restored.load_state_dict(policy.state_dict())
    assert restored.extra_margin.tolist() == policy.extra_margin.tolist()
    for _ in range(5):
        after(0.0, 0.0, 0.0)
    assert policy.extra_margin.tolist() == [0.0, 0.0, 0.0]
    policy = build("cpo", cost_limit=(10.0, math.inf), num_costs=2, margin_rate=0.0)
    assert after(99.0, 99.0) == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"margin_rate must be in \[0, 1\), got 1.0"):
        build("cpo", margin_rate=1.0)


def test_cpo_pays_with_reward_for_the_way_back_within_the_limit():
    """The cost is above the limit by so little that one step leads back; that step lowers the reward."""
    policy = build("cpo", cost_limit=5.5, kl_bound=0.02)
    collector = collector_for(policy)
    collect(policy, collector, 1600)
    metrics = update(policy, collector).metrics
    assert (metrics["step/case_active"], metrics["constraint/surplus"] > 0) == (1.0, True)
    assert metrics["step/fraction"] > 0
    assert metrics["step/improvement"] < 0
    assert metrics["step/cost_change"] < 0


def test_reward_is_asked_for_unless_an_exceeded_limit_bends_the_step():
    def asked(b, a=(1.0, 0.0)):
        surplus = torch.tensor([b])
        step = constrained_step(torch.tensor([-1.0, 0.5]), torch.tensor([a]), surplus, kl_bound=0.5)
        return step.case, must_improve(step, surplus)

    assert asked(-5.0) == ("inactive", True)
    assert asked(0.1, (-1.0, 0.0)) == ("inactive", True)  # the way to more reward leads back, too
    assert asked(-0.2) == ("active", True)
    assert asked(0.2) == ("active", False)
    assert asked(5.0) == ("recovery", False)


def test_cpo_without_a_limit_is_trpo():
    def run(name):
        policy = build(name, cost_limit=math.inf)
        collector = collector_for(policy)
        for _ in range(3):
            collect(policy, collector)
            update(policy, collector, 2)
        return tensors(policy)

    cpo, trpo = run("cpo"), run("trpo")
    for key, value in cpo.items():
        torch.testing.assert_close(value, trpo[key], atol=1e-5, rtol=1e-4)


class JumpyActor(OnpolicyActor):
    """Moves its mean by 100 as soon as its parameters change, although its gradients say nothing of it."""

    def forward(self, obs, state=None, info=None):
        (mean, std), state = super().forward(obs, state)
        start = self.__dict__.setdefault("start", self.head.bias.detach().clone())
        moved = (self.head.bias.detach() != start).any()
        return (mean + 100.0 * moved, std), state


@pytest.mark.parametrize("name", ["cpo", "trpo"])
def test_a_search_that_fails_leaves_the_actor_as_it_was(name):
    policy = build(name)
    actor = JumpyActor(2, 1, hidden_sizes=(8,))
    policy.actor = actor
    collector = collector_for(policy)
    collect(policy, collector)
    before = [x.detach().clone() for x in actor.parameters()]
    metrics = update(policy, collector).metrics
    assert metrics["step/fraction"] == 0.0
    assert metrics["step/backtracks"] == 21
    assert all(torch.equal(x, y) for x, y in zip(before, actor.parameters(), strict=True))


@pytest.mark.parametrize("name", ["cpo", "trpo", "ppo"])
def test_the_entropy_bonus_is_what_an_update_follows_where_it_outweighs_the_rest(name):
    policy = build(name, entropy_weight=1e4, cost_limit=math.inf)
    collector = collector_for(policy)
    collect(policy, collector)
    actor = policy.actor
    before = flatten(actor.parameters()).clone()
    update(policy, collector)
    after = actor.state_dict()["log_std"] - math.log(0.5)
    assert torch.all(after > 0.01)
    # The entropy of a Gaussian depends on its deviation alone.
    rest = (flatten(actor.parameters()) - before).abs().sum() - after.abs().sum()
    assert rest < 0.1 * after.abs().sum() or name == "ppo"  # Adam scales every gradient to the same size
    with pytest.raises(ValueError, match=r"entropy_weight must be >= 0, got -0.1"):
        build(name, entropy_weight=-0.1)


@every
@pytest.mark.parametrize("kind", ["adam", "lbfgs"])
def test_the_critic_learns_returns(name, kind):
    policy = build(name, cost_limit=1e9)
    if kind == "lbfgs":
        policy.critic_optim = torch.optim.LBFGS(
            policy.critic.parameters(), max_iter=25, line_search_fn="strong_wolfe"
        )
    collector = collector_for(policy)
    for _ in range(4):
        collect(policy, collector, 2000)
        metrics = update(policy, collector, 30).metrics
    # The state explains some of the returns, and noise the rest.
    assert metrics["critic/unexplained_reward"] < 0.97
    with torch.no_grad():
        values = policy.critic(policy.normaliser(np.eye(2, dtype=np.float32)))
    assert values[1, 0] > values[0, 0]
    assert kind == "adam" or not policy.critic_optim.state  # no checkpoint holds the curvature of old data


def test_clipped_loss_by_hand():
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.0], requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0])
    loss, share = clipped_loss(ratio, advantage, 0.2)
    assert loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8 + 2.0) / 5)
    assert share == pytest.approx(2 / 5)
    loss.backward()
    torch.testing.assert_close(ratio.grad, -torch.tensor([0.0, -1.0, 1.0, 0.0, 2.0]) / 5)


def test_focops_loss_counts_states_inside_the_bound_alone():
    divergence = torch.tensor([0.01, 0.03], requires_grad=True)
    ratio, advantage = torch.tensor([1.1, 1.2]), torch.tensor([3.0, -4.0])
    loss, share = focops_loss(divergence, ratio, advantage, temperature=1.5, kl_bound=0.02)
    assert loss.item() == pytest.approx((0.01 - 1.1 * 3.0 / 1.5) / 2)
    assert share == 0.5
    loss.backward()
    assert divergence.grad.tolist() == [0.5, 0.0]


def test_focops_steps_end_at_the_optimum_of_one_update():
    """With an infinite bound, the fitted mean is the one where KL and advantage balance."""
    mean = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    act = torch.linspace(-6, 6, 20_001, dtype=torch.float64)
    weight = torch.exp(-0.5 * act**2)
    weight = weight / weight.sum()
    optim = torch.optim.SGD([mean], lr=0.5)
    for _ in range(200):
        # Advantage of the action a is a itself, so the optimal policy is N(1 / temperature, 1).
        ratio = torch.exp(-0.5 * (act - mean) ** 2 + 0.5 * act**2)
        divergence = 0.5 * mean**2
        loss, _ = focops_loss(divergence, (weight * ratio * act).sum()[None], torch.ones(1),
                              temperature=1.5, kl_bound=math.inf)  # fmt: skip
        optim.zero_grad()
        loss.backward()
        optim.step()
    assert mean.item() == pytest.approx(1 / 1.5, rel=1e-5)


def test_lagrangian_advantage_by_hand():
    advantages = torch.tensor([[1.0, 2.0, 3.0], [4.0, -1.0, 0.0]])
    multipliers = torch.tensor([0.5, 1.5])
    plain = lagrangian_advantage(advantages, multipliers, rescale=False)
    assert plain.tolist() == [1.0 - 1.0 - 4.5, 4.0 + 0.5]
    assert torch.equal(lagrangian_advantage(advantages, multipliers, rescale=True), plain / 3.0)


@pytest.mark.parametrize("name", ["ppo", "focops"])
def test_passes_end_at_the_divergence_bound(name):
    tight = {"kl_stop": 1e-9} if name == "ppo" else {"kl_bound": 1e-9}
    steps = {}
    for key, settings in {"tight": tight, "loose": {}}.items():
        policy = build(name, lr=1e-3 if key == "tight" else 1e-6, **settings)
        collector = collector_for(policy)
        collect(policy, collector)
        steps[key] = update(policy, collector, 6, batch_size=50).metrics["actor/steps"]
    # FOCOPS has no gradient outside the bound but takes the first step at the old policy itself.
    assert steps == {"tight": 4, "loose": 24}


@every
def test_trains_under_tianshous_own_trainer(name):
    """Collector, buffer and policy need nothing of this library's trainer."""
    policy = build(name, cost_limit=3.0)
    collector, test = collector_for(policy), collector_for(policy)
    before = policy.state_dict()["actor.head.weight"].clone()
    trainer = OnpolicyTrainer(
        policy=policy, train_collector=collector, test_collector=test, max_epoch=1, step_per_epoch=400,
        repeat_per_collect=2, episode_per_test=4, batch_size=64, step_per_collect=200, show_progress=False,
        test_in_train=False,
    )  # fmt: skip
    trainer.run()
    assert not torch.equal(before, policy.state_dict()["actor.head.weight"])
    assert len(collector.buffer) == 0


@pytest.mark.parametrize("name", ["cvpo", "sac", "ppo"])
def test_costs_are_needed(name):
    policy = build(name)
    buffer = ReplayBuffer(8)
    buffer.add(
        Batch(obs=np.zeros(2), obs_next=np.zeros(2), act=np.zeros(1), rew=0.0,
              terminated=False, truncated=True, info={}),
    )  # fmt: skip
    indices = np.arange(1)
    with pytest.raises(TypeError, match="CostVectorReplayBuffer"):
        policy.process_fn(buffer[indices], buffer, indices)


def fitted(critic, cores, obs, returns):
    """Return the parameters of a policy's critic after one fit by L-BFGS."""
    policy = build("cpo")
    policy.critic, policy.cores = critic, cores
    policy._critic_parameters = list(critic.parameters())
    policy.critic_optim = torch.optim.LBFGS(critic.parameters(), max_iter=10, line_search_fn="strong_wolfe")
    policy._fit_critic(obs, returns, None, 1)
    return torch.cat([x.detach().flatten() for x in critic.parameters()])


def test_lbfgs_fits_each_network_as_if_it_were_alone():
    torch.manual_seed(0)
    obs, returns = torch.randn(200, 2), torch.randn(200, 2) * torch.tensor([1.0, 100.0])
    critic = ValueCritic(2, hidden_sizes=(8,))
    first, second = fitted(deepcopy(critic), 1, obs, returns), fitted(deepcopy(critic), 2, obs, returns)
    assert torch.equal(first, second)  # threads change no number
    # Other costs change nothing of the reward's network.
    other = fitted(deepcopy(critic), 1, obs, returns * torch.tensor([1.0, -3.0]))
    changed = deepcopy(critic)
    torch.nn.utils.vector_to_parameters((first != other).float(), changed.parameters())
    assert not any(x.any() for x in changed.network(0))
    assert all(x.any() for x in changed.network(1))


def test_a_fit_that_is_not_finite_leaves_all_networks_as_they_were():
    critic = ValueCritic(2, hidden_sizes=(8,))
    before = torch.cat([x.detach().flatten() for x in critic.parameters()])
    returns = torch.randn(50, 2)
    returns[3, 1] = math.nan
    with pytest.raises(NonFiniteError, match="critic loss"):
        fitted(critic, 1, torch.randn(50, 2), returns)
    assert torch.equal(before, torch.cat([x.detach().flatten() for x in critic.parameters()]))
