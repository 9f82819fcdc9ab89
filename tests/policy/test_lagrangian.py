"""What is SAC-Lag's, DDPG-Lag's and TD3-Lag's own: targets, multipliers, the actor's loss, exploration."""

import math

import numpy as np
import pytest
import torch
from tianshou.data import Batch
from tianshou.policy.base import policy_within_training_step
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import Actor, ActorProb
from torch import nn
from toys.cmdps import ChainEnv, chain_values
from toys.policies import GAMMA, LAGRANGIAN, RAW, T, build, learner
from toys.training import collect, collector_for, measure, train, update

from fsrl_ext.functional.gaussian import squash
from fsrl_ext.functional.returns import cost_threshold
from fsrl_ext.net.values import QValues
from fsrl_ext.policy.offpolicy.critics import OffpolicyConfig, critic_losses, nstep_returns

every = pytest.mark.parametrize("name", list(LAGRANGIAN))
# With these every gradient step moves the actor.
DUE = {"td3": {"policy_delay": 1}}


def filled(policy, steps=200, **kwargs):
    collector = collector_for(policy, **kwargs)
    collect(policy, collector, steps)
    return collector


def processed(policy, buffer, count=64, seed=0):
    """Return a processed batch; the same seed gives the same noise."""
    indices = np.arange(count)
    torch.manual_seed(seed)
    return policy.process_fn(buffer[indices], buffer, indices)


def value_everywhere(critic, reward, *costs):
    """Let every member of a critic say the same numbers for all states and actions."""
    with torch.no_grad():
        critic.layers[-1].weight.zero_()
        critic.layers[-1].bias.view(1 + len(costs), -1)[:] = torch.tensor([reward, *costs])[:, None]


def test_entropy_counts_in_the_targets_of_reward_and_never_of_cost():
    """The policies differ in the entropy's weight alone."""
    low, high = build("sac", entropy="fixed", alpha=0.01), build("sac", entropy="fixed", alpha=100.0)
    buffer = filled(low).buffer
    a, b = processed(low, buffer).returns, processed(high, buffer).returns
    assert (a[:, 0] - b[:, 0]).abs().min() > 0.1
    assert torch.equal(a[:, 1:], b[:, 1:])


@pytest.mark.parametrize("name", [*LAGRANGIAN, "cvpo"])
def test_the_window_and_the_discount_of_the_costs_leave_the_reward_alone(name):
    """The critics say 3 and 2 everywhere, so that only windows and discounts tell the targets apart."""
    own = build(name, estimation_step=2, cost_estimation_step=4, cost_gamma=0.8, **RAW)
    of_reward = build(name, estimation_step=2, **RAW)
    of_cost = build(name, estimation_step=4, gamma=0.8, **RAW)
    buffer = filled(own).buffer
    for policy in (own, of_reward, of_cost):
        value_everywhere(policy.target_critic, 3.0, 2.0)
    a, b, c = (processed(x, buffer).returns for x in (own, of_reward, of_cost))
    torch.testing.assert_close(a[:, 0], b[:, 0])
    torch.testing.assert_close(a[:, 1], c[:, 1])
    assert (a[:, 1] - b[:, 1]).abs().max() > 0.1


class TableCritic(nn.Module):
    """Values a state by its row of a table, whatever the action is."""

    num_costs = 1

    def __init__(self, states):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(states, 2))

    def forward(self, obs, act):
        values = obs @ self.table
        return QValues(values[:, 0].unsqueeze(0), values[:, 1].expand(1, 1, -1))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_sacs_critic_learns_the_soft_value_whatever_the_steps_of_its_targets(steps):
    """The policy is fixed, episodes end in a terminal state or by the time limit, and the rest is exact."""
    length, alpha = 6, 2.0
    mean, std = torch.tensor([[0.4]]), torch.tensor([[0.5]])
    noise = torch.linspace(0.5, 199_999.5, 200_000).div(100_000).sub(1).erfinv().mul(math.sqrt(2))[:, None]
    entropy = -squash(mean.expand_as(noise), std.expand_as(noise), noise)[1].mean().item()
    assert abs(entropy) > 0.3

    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, obs, state=None, info=None):
            rows = torch.ones(len(obs), 1) + 0 * self.unused
            return (rows * mean, rows * std), state

    critic = TableCritic(length)
    policy = build(
        "sac",
        actor=Fixed(),
        critic=critic,
        critic_optim=torch.optim.SGD(critic.parameters(), lr=0.5),
        cost_limit=math.inf,
        entropy="fixed",
        alpha=alpha,
        tau=1.0,
        estimation_step=steps,
        **RAW,
    )
    collector = collector_for(policy, env=ChainEnv, length=length, limit=4)
    collector.reset_env()  # seeding has reset the environments, whose first observations are old otherwise
    collect(policy, collector, 4 * 500)
    assert collector.buffer.truncated.any()
    assert collector.buffer.terminated.any()
    update(policy, collector, 300, batch_size=0)
    reward, cost = chain_values(length, GAMMA, alpha * entropy)
    learnt = critic.table.detach().numpy()
    np.testing.assert_allclose(learnt[:, 0], reward, rtol=0.03)
    # A cost has no entropy.
    np.testing.assert_allclose(learnt[:, 1], cost, rtol=1e-3)
    # The share of the entropy alone
    plain = chain_values(length, GAMMA, 0.0)[0]
    assert (learnt[:, 0] - plain).sum() == pytest.approx((reward - plain).sum(), rel=0.03)


@every
def test_the_ensemble_of_a_cost_is_never_reduced_by_its_minimum(name):
    """The members say 1, 2 and 6, so their mean is 3. Targets and actor use the same estimate."""
    spread = np.std([1.0, 2.0, 6.0])
    for settings, value in (
        ({}, 3.0),
        ({"cost_reduction": "max"}, 6.0),
        ({"cost_reduction": "ucb", "ucb_scale": 0.5}, 3.0 + 0.5 * spread),
    ):
        policy = build(name, ensemble=3, estimation_step=1, **RAW, **DUE.get(name, {}), **settings)
        with torch.no_grad():
            for critic in (policy.critic, policy.target_critic):
                critic.layers[-1].weight.zero_()
                critic.layers[-1].bias[3:, 0, 0] = torch.tensor([1.0, 2.0, 6.0])
        buffer = filled(policy).buffer
        batch = processed(policy, buffer)
        expected = torch.as_tensor(buffer.cost[:64, 0]) + GAMMA * value
        torch.testing.assert_close(batch.returns[:, 1], expected)
        metrics = policy.learn(batch).metrics
        episode_cost = value * T * (1 - GAMMA)
        assert metrics["constraint/expected_cost"] == pytest.approx(episode_cost)


def test_members_with_targets_of_their_own_bootstrap_from_themselves():
    policy = build(
        "sac", num_costs=2, cost_limit=(5.0, 5.0), ensemble=2, estimation_step=1, cost_targets="own", **RAW
    )
    values = torch.tensor([1.0, 2.0, 30.0, 40.0])
    with torch.no_grad():
        policy.target_critic.layers[-1].weight.zero_()
        policy.target_critic.layers[-1].bias[2:, 0, 0] = values
    buffer = filled(policy, num_costs=2).buffer
    batch = processed(policy, buffer)
    cost = torch.as_tensor(buffer.cost[:64]).repeat_interleave(2, dim=1)
    torch.testing.assert_close(batch.returns[:, 1:], cost + GAMMA * values)
    # Every member is compared with its own column of the targets.
    q = QValues(batch.returns[:, :1].T.expand(2, -1), batch.returns[:, 1:].T.unflatten(0, (2, 2)))
    assert critic_losses(q, batch.returns).total == 0


@every
def test_multipliers_follow_fresh_episodes_once_each(name):
    """If no episode has ended since the last update, gradient steps do not move the multiplier."""
    policy = build(name, cost_limit=0.5, multiplier_method="ascent", multiplier_lr=0.1)
    collector = filled(policy, 4 * 10)
    update(policy, collector)
    assert policy.multipliers.values.item() == 0
    collect(policy, collector, 4 * 5)
    update(policy, collector, 5)
    assert policy.multipliers.values.item() == 0
    stats = collect(policy, collector, 4 * 5)
    update(policy, collector, 5)
    surplus = stats.costs.mean() - policy.cost_bound.item()
    # The surplus counts in parts of the limit.
    assert policy.multipliers.values.item() == pytest.approx(0.1 * surplus / 0.5, rel=1e-4)
    assert policy.episode_cost == pytest.approx(stats.costs.mean(0), rel=1e-5)
    collect(policy, collector, 4 * 19)
    update(policy, collector, 5)
    assert policy.multipliers.values.item() == pytest.approx(0.1 * surplus / 0.5, rel=1e-4)


@every
@pytest.mark.parametrize("unit", ["paper", "stationary"])
def test_critics_estimates_are_compared_with_the_discounted_threshold(name, unit):
    """A critic that says the threshold leaves the multiplier; a surplus of its size raises it by the rate."""
    threshold = cost_threshold(5.0, max_episode_steps=T, gamma=GAMMA, unit=unit)
    for excess in (0.0, 1.0):
        # The constraint is the critics' alone.
        policy = build(
            name,
            multiplier_source="critic",
            multiplier_method="ascent",
            multiplier_lr=0.1,
            multiplier_init=1.0,
            threshold=unit,
            cost_level="critic",
            cost_margin=0.0,
            **RAW,
            **DUE.get(name, {}),
        )
        assert policy.cost_threshold.item() == pytest.approx(threshold)
        value_everywhere(policy.critic, 0.0, threshold * (1 + excess))
        update(policy, filled(policy))
        assert policy.multipliers.values.item() == pytest.approx(1.0 + 0.1 * excess, abs=1e-5)


@every
@pytest.mark.parametrize("level", ["measured", "critic"])
@pytest.mark.parametrize("value", [0.0, 3.0, 40.0])
def test_a_measured_level_takes_the_critics_bias_away(name, level, value):
    """The critics say the same number for ever, and multipliers follow the measured costs all the same."""
    policy = build(
        name, multiplier_source="critic", cost_level=level, lr=0.0, cost_limit=2.0, **RAW, **DUE.get(name, {})
    )
    for critic in (policy.critic, policy.target_critic):
        value_everywhere(critic, 0.0, value)
    collector = filled(policy)
    critics, bias, costs = value * T * (1 - GAMMA), 0.0, []
    for _ in range(8):
        metrics = update(policy, collector, 2).metrics
        expected = critics + bias if level == "measured" else critics
        assert metrics["constraint/expected_cost"] == pytest.approx(expected, rel=1e-4, abs=1e-4)
        surplus = expected - policy.cost_bound.item()
        assert metrics["constraint/surplus"] == pytest.approx(surplus, rel=1e-4, abs=1e-4)
        ended = collect(policy, collector).costs
        costs.append(ended.mean())
        bias += len(ended) / (len(ended) + 2) * (costs[-1] - critics - bias)
    update(policy, collector)
    assert policy.cost_bias.item() == pytest.approx(bias if level == "measured" else 0.0, abs=1e-3)
    if level == "measured":
        # The critics' number is forgotten.
        assert critics + bias == pytest.approx(np.mean(costs[-2:]), rel=0.1, abs=0.1)


def loss_and_cost(name, policy, obs):
    """Return the actor's loss without a constraint and the mean value of the cost, by their formulas."""
    if name == "sac":
        mean, std = policy.actor(obs)[0]
        act, log_prob = squash(mean, std, torch.randn_like(mean))
        q = policy.critic(obs, act)
        loss = (policy.alpha * log_prob - q.reward.min(0).values).mean()
    else:
        q = policy.critic(obs, policy.actor(obs)[0])
        loss = -(q.reward[0] if name == "td3" else q.reward.min(0).values).mean()
    return loss, q.cost.mean()


@every
@pytest.mark.parametrize("rescale", [True, False])
def test_actor_goes_down_the_rescaled_lagrangian(name, rescale):
    """The optimiser gets the gradient that the formulas give for the reward's loss and the cost's value."""
    fixed = {"multiplier_init": 3.0, "multiplier_method": "ascent", "multiplier_lr": 0.0}
    policy = build(name, rescale=rescale, ensemble=2, **fixed, **DUE.get(name, {}))
    policy.actor_optim = torch.optim.SGD(policy.actor.parameters(), lr=0.0)
    policy.critic_optim = torch.optim.SGD(policy.critic.parameters(), lr=0.0)
    batch = processed(policy, filled(policy).buffer)
    parameters = list(policy.actor.parameters())
    parts = []
    for part in (0, 1):
        torch.manual_seed(5)
        parts.append(torch.autograd.grad(loss_and_cost(name, policy, batch.obs)[part], parameters))
    torch.manual_seed(5)
    policy.train()
    policy.learn(batch)
    for parameter, reward, cost in zip(parameters, *parts, strict=True):
        expected = (reward + 3.0 * cost) / (4.0 if rescale else 1.0)
        torch.testing.assert_close(parameter.grad, expected, atol=1e-6, rtol=1e-4)
    # The critics got the gradient of their own loss alone.
    q = policy.critic(batch.obs, batch.act.clamp(-1, 1))
    targets = batch.returns.T
    own = (q.reward - targets[0]).square().mean(-1).sum() + (q.cost - targets[1:, None]).square().mean(
        -1
    ).sum()
    for parameter, gradient in zip(
        policy.critic.parameters(), torch.autograd.grad(own, list(policy.critic.parameters())), strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient)


def test_augmented_lagrangian_prices_the_critics_surplus():
    """The loss uses ``(lambda + c (Q_c - d) / d)_+``, here with lambda = 0.5 and c = 2."""
    for surplus, multiplier in ((1.0, 2.5), (0.0, 0.5), (-1.0, 0.0)):
        policy = build(
            "sac", multiplier_init=0.5, augmented_penalty=2.0, cost_level="critic", cost_margin=0.0, **RAW
        )
        value_everywhere(policy.critic, 0.0, policy.cost_threshold.item() * (1 + surplus))
        metrics = policy.learn(processed(policy, filled(policy).buffer)).metrics
        assert metrics["constraint/multiplier"] == pytest.approx(multiplier, abs=1e-5)


def test_cal_finds_the_constrained_optimum():
    """Ensemble, upper bound, own targets, critic-driven ascent and penalty work together."""
    policy = learner(
        "sac",
        cost_limit=4.0,
        ensemble=2,
        threshold="stationary",
        cost_reduction="ucb",
        ucb_scale=0.5,
        cost_targets="own",
        multiplier_source="critic",
        multiplier_method="ascent",
        multiplier_lr=0.003,
        augmented_penalty=2.0,
    )
    train(policy, collector_for(policy))
    episode_return, episode_cost = measure(policy)
    assert episode_cost == pytest.approx([4.0], rel=0.25)
    assert episode_return > 11.0


def test_the_tightest_of_two_costs_binds():
    """The second cost is half the first, so limits (20, 2) ask for the same policy as (4, 20)."""
    gains = {"multiplier_gains": (0.8, 0.16, 0.0), "multiplier_init": 1.0, "cost_margin": 0.0}
    policy = learner("ddpg", cost_limit=(20.0, 2.0), num_costs=2, **gains)
    train(policy, collector_for(policy, num_costs=2))
    assert measure(policy, num_costs=2)[1][1] == pytest.approx(2.0, rel=0.2)
    free, binding = policy.multipliers.values.tolist()
    assert free == 0
    assert binding > 0.5


def test_entropy_weight_follows_the_entropy():
    """Too little entropy raises the weight, too much lowers it; a fixed weight stays."""
    for target, direction in ((100.0, 1), (-100.0, -1)):
        policy = build("sac", target_entropy=target, alpha_lr=0.01)
        before = policy.alpha.item()
        update(policy, filled(policy), 3)
        assert np.sign(policy.alpha.item() - before) == direction
    policy = build("sac", entropy="fixed", alpha=0.3)
    update(policy, filled(policy), 3)
    assert policy.alpha.item() == pytest.approx(0.3)
    assert build("sac").target_entropy == -1.0


def test_td3_moves_actor_and_targets_every_other_step():
    policy = build("td3", policy_delay=2)
    collector = filled(policy)

    def parameters():
        return [
            torch.nn.utils.parameters_to_vector(m.parameters()).clone()
            for m in (policy.critic, policy.actor, policy.target_actor, policy.target_critic)
        ]

    moved = []
    for _ in range(4):
        before = parameters()
        update(policy, collector)
        moved.append([not torch.equal(a, b) for a, b in zip(before, parameters(), strict=True)])
    assert moved == [[True, False, False, False], [True, True, True, True]] * 2


def test_td3_smooths_its_targets_within_the_clip():
    """The target critic sees the actions of the target actor with noise that is clipped."""
    for std, largest in ((10.0, 0.25), (0.0, 0.0)):
        policy = build("td3", target_std=std, target_clip=0.25, estimation_step=1)
        buffer, seen = filled(policy, 4 * 100).buffer, []
        policy.target_critic.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args))
        processed(policy, buffer, count=100)
        ((obs, act),) = seen
        with torch.no_grad():
            difference = act - policy.target_actor(obs)[0]
        assert difference.abs().max().item() == pytest.approx(largest, abs=1e-6)
        assert difference.std() > 0.1 or largest == 0.0


@pytest.mark.parametrize("name", ["ddpg", "td3"])
def test_exploration_noise_has_its_deviation_and_is_stored(name):
    policy = build(name, exploration_std=0.2)
    obs = np.zeros((4000, 2), np.float32)
    with torch.no_grad(), policy_within_training_step(policy):
        noisy = policy(Batch(obs=obs, info={})).act
    with torch.no_grad():
        difference = noisy - policy(Batch(obs=obs, info={})).act
    assert difference.std().item() == pytest.approx(0.2, rel=0.05)
    collector = filled(policy)
    act = collector.buffer.act[collector.buffer.sample_indices(0)]
    assert np.abs(act).max() <= 1.0
    assert act.std() > 0.1


@pytest.mark.parametrize("name", list(LAGRANGIAN))
def test_tianshous_actors_fit(name):
    net = Net(state_shape=2, hidden_sizes=[16])
    if name == "sac":
        actor = ActorProb(net, 1, unbounded=True, conditioned_sigma=True, preprocess_net_output_dim=16)
    else:
        actor = Actor(net, 1, preprocess_net_output_dim=16)
    other = build(name)
    policy = LAGRANGIAN[name](
        actor=actor,
        actor_optim=torch.optim.Adam(actor.parameters()),
        critic=other.critic,
        critic_optim=other.critic_optim,
        action_space=other.action_space,
        cost_limit=1.0,
        max_episode_steps=T,
    )
    stats = train(policy, collector_for(policy), cycles=2, updates=3)
    assert all(math.isfinite(x) for x in stats.metrics.values())


def test_a_limit_set_while_training_is_used_at_once():
    policy = build("ddpg", cost_limit=math.inf, multiplier_method="ascent", multiplier_lr=0.1)
    collector = filled(policy)
    train(policy, collector, cycles=2, updates=2)
    assert policy.multipliers.values.item() == 0
    policy.cost_limit = 0.0
    stats = train(policy, collector, cycles=1, updates=2)
    assert policy.multipliers.values.item() > 0
    assert stats.metrics["constraint/multiplier"] > 0


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("sac", {"alpha": 0.0}, "alpha must be > 0, got 0.0"),
        ("sac", {"entropy": "off"}, "entropy must be one of .* got 'off'"),
        ("sac", {"augmented_penalty": -1.0}, "augmented_penalty must be >= 0, got -1.0"),
        ("ddpg", {"exploration_std": -0.1}, "exploration_std must be >= 0, got -0.1"),
        ("ddpg", {"multiplier_gains": (1.0, 2.0)}, r"multiplier_gains must be three numbers >= 0, got \(1"),
        ("ddpg", {"multiplier_smoothing": 1.0}, r"multiplier_smoothing must be in \[0, 1\), got 1.0"),
        ("ddpg", {"multiplier_init": 200.0}, "multiplier_init must be at most multiplier_max=100.0, got 2"),
        ("ddpg", {"multiplier_source": "episode"}, "multiplier_source must be one of"),
        ("td3", {"policy_delay": 0}, "policy_delay must be a whole number >= 1, got 0"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(name, settings, words):
    with pytest.raises(ValueError, match=words):
        build(name, **settings)


@pytest.mark.parametrize("size", [50_000, 4 * 33, 4 * 2])
def test_every_collect_starts_a_cycle_with_the_costs_of_the_episodes_that_ended(size):
    """This holds for collects of any length, before and after the buffer wraps, and if it holds two steps."""
    collector = collector_for(build("ddpg"), size=size)
    data, rng = OffpolicyConfig().statistics(1), np.random.default_rng(0)
    collector.collect(n_step=4 * 7, random=True)
    assert data.arrived(collector.buffer)
    assert data.measure(collector.buffer)[0].shape == (0, 1)
    for _ in range(30):
        stats = collector.collect(n_step=4 * int(rng.integers(1, 30)), random=True)
        assert data.arrived(collector.buffer)
        assert not data.arrived(collector.buffer)
        costs, lens = data.measure(collector.buffer)
        np.testing.assert_array_equal(costs, stats.costs)
        np.testing.assert_array_equal(lens, stats.lens)
        assert len(data.measure(collector.buffer)[0]) == 0


def test_cycles_go_on_from_a_saved_state():
    collector = collector_for(build("ddpg"))
    data, saved = (OffpolicyConfig().statistics(1) for _ in range(2))
    for _ in range(2):
        collector.collect(n_step=4 * 25, random=True)
        data.arrived(collector.buffer)
        data.measure(collector.buffer)
    saved.load_progress(data.progress())
    assert saved.progress() == data.progress()
    assert not saved.arrived(collector.buffer)
    stats = collector.collect(n_step=4 * 25, random=True)
    assert saved.arrived(collector.buffer)
    np.testing.assert_array_equal(saved.measure(collector.buffer)[0], stats.costs)


def test_nstep_returns_repeat_costs_for_members_with_their_own_values():
    collector = collector_for(build("ddpg", num_costs=2, cost_limit=(1.0, 1.0)), num_costs=2)
    collector.collect(n_step=40, random=True)
    buffer = collector.buffer
    window = buffer.nstep_window(np.arange(5), 2)
    config = OffpolicyConfig(gamma=0.9)
    data = config.statistics(2)
    data.measure(buffer)
    shared = nstep_returns((window,), torch.zeros(5, 3), config=config, data=data)
    own = nstep_returns((window,), torch.zeros(5, 7), config=config, data=data)
    assert torch.equal(own, shared[:, [0, 1, 1, 1, 2, 2, 2]])
