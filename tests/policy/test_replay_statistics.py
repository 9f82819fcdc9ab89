"""What off-policy policies measure in their buffer: scales, bounds of values, and observations."""

import functools
import warnings

import numpy as np
import pytest
import torch
from tianshou.data import Batch
from tianshou.env import DummyVectorEnv
from toys.buffers import numbered_step
from toys.policies import OFFPOLICY, build, tensors
from toys.training import collect, collector_for, update

from fsrl_ext.data import AheadCollector, CostReplayBuffer, CostVectorReplayBuffer
from fsrl_ext.env.known_optimum import KnownOptimumEnv
from fsrl_ext.functional.returns import SCALE_FLOOR
from fsrl_ext.policy.offpolicy.critics import OffpolicyConfig, nstep_returns
from fsrl_ext.policy.offpolicy.replay import CLIP

every = pytest.mark.parametrize("name", list(OFFPOLICY))
ends = pytest.mark.parametrize("time_limits", ["bootstrap", "end"])


def statistics(num_costs=1, **settings):
    """Return statistics before any collect."""
    return OffpolicyConfig(**settings).statistics(num_costs)


def add(buffer, signals=None, obs=None):
    """Add a collect of ``n`` steps without the end of an episode to a buffer of one environment.

    :param signals: ``[n, S]`` reward and costs; None for zeros.
    :param obs: ``[n, O]``; None for zeros.
    """
    if obs is None:
        obs = np.zeros((len(signals), 2))
    if signals is None:
        signals = np.zeros((len(obs), 2))
    for i, (row, seen) in enumerate(zip(signals, obs, strict=True)):
        step = numbered_step(i, 1, rew=row[:1], cost=row[None, 1:], obs=seen[None], obs_next=seen[None])
        buffer.add(step, buffer_ids=[0])
    buffer.episodes.publish(np.zeros((0, signals.shape[1] - 1)), np.zeros(0, dtype=np.int64))
    return buffer


def some_signals(steps, num_costs=2, seed=0):
    """Return rewards and costs ``[steps, 1 + C]`` of several sizes and signs."""
    rng = np.random.default_rng(seed)
    columns = [rng.normal(-3.0, 100.0, steps), rng.exponential(0.01, steps), rng.random(steps) < 0.1]
    return np.stack(columns[: 1 + num_costs], 1).astype(np.float32).astype(np.float64)


def test_scales_are_the_deviations_of_what_the_buffer_holds():
    """This holds before the buffer is full, when it is full, and after it has wrapped around."""
    signals, buffer, data = some_signals(100), CostReplayBuffer(40, 2), statistics(2)
    for first, last in ((0, 15), (15, 40), (40, 47), (47, 100)):
        add(buffer, signals[first:last])
        data.measure(buffer)
        held = signals[max(last - 40, 0) : last]
        np.testing.assert_allclose(data.scale, held.std(0), rtol=1e-5)
        np.testing.assert_allclose(data.signal_scale, held.std(0), rtol=1e-5)
        np.testing.assert_allclose(data.step_scale, held.std(0)[1:], rtol=1e-5)
        np.testing.assert_allclose(data.step_cost, held.mean(0)[1:], rtol=1e-5)


def test_all_environments_count_in_the_scales():
    """One of them has no steps yet."""
    buffer, signals, data = CostVectorReplayBuffer(60, 3), some_signals(20, 1), statistics()
    for i, row in enumerate(signals):
        step = numbered_step(i, 2, rew=row[0] * np.array([1.0, 10.0]), cost=row[1] * np.array([[1.0], [3.0]]))
        buffer.add(step, buffer_ids=[0, 2])
    data.measure(buffer)
    expected = np.concatenate([signals, signals * [10.0, 3.0]]).std(0)
    np.testing.assert_allclose(data.scale, expected, rtol=1e-5)


def test_a_constant_signal_has_a_share_of_its_size_and_a_zero_one_has_the_scale_one():
    data = statistics(3)
    signals = np.tile([-4.0, 0.0, 0.25, 1e-6], (30, 1))
    data.measure(add(CostReplayBuffer(30, 3), signals))
    np.testing.assert_allclose(
        data.scale, [4.0 * SCALE_FLOOR, 1.0, 0.25 * SCALE_FLOOR, 1e-6 * SCALE_FLOOR], rtol=1e-5
    )


def test_without_normalising_signals_keep_their_units():
    data = statistics(2, normalise_signals=False)
    signals = some_signals(50)
    data.measure(add(CostReplayBuffer(50, 2), signals))
    assert data.scale.tolist() == data.signal_scale.tolist() == [1.0] * 3
    # The unit of a multiplier's surplus is measured all the same.
    np.testing.assert_allclose(data.step_scale, signals.std(0)[1:], rtol=1e-5)
    np.testing.assert_allclose(data.value_high[0], signals[:, 0].max() / (1 - 0.97), rtol=1e-5)


@pytest.mark.parametrize("normalise", [True, False])
def test_no_policy_has_a_value_outside_of_the_bounds(normalise):
    """Random sequences of the stored signals, and the two extreme ones, end at any time or never."""
    gamma, rng = 0.9, np.random.default_rng(0)
    for shift in (0.0, 500.0, -500.0):  # rewards of both signs, of one, and of the other
        signals = some_signals(60)
        signals[:, 0] += shift
        data = statistics(2, gamma=gamma, normalise_signals=normalise)
        data.measure(add(CostReplayBuffer(60, 2), signals))
        scaled = signals / data.scale
        low, high = data.value_low.numpy(), data.value_high.numpy()
        sequences = [scaled[rng.integers(60, size=rng.integers(0, 300))] for _ in range(300)]
        sequences += [np.tile(x, (500, 1)) for x in (scaled.min(0), scaled.max(0))]
        values = np.array([(gamma ** np.arange(len(x)) @ x) if len(x) else np.zeros(3) for x in sequences])
        slack = 1e-4 * (high - low)
        assert (values >= low - slack).all()
        assert (values <= high + slack).all()
        # The bounds are the tightest ones: the extreme sequences, or the end of the episode, reach them.
        np.testing.assert_allclose(values.min(0), low, atol=slack.max())
        np.testing.assert_allclose(values.max(0), high, atol=slack.max())
        assert low[1:].tolist() == [0.0, 0.0]


@ends
def test_costs_that_are_never_negative_are_never_bootstrapped_below_zero(time_limits):
    """Critics that say too little or too much leave targets that some policy could have."""
    rng = np.random.default_rng(0)
    buffer, data = CostReplayBuffer(50), statistics(time_limits=time_limits, gamma=0.9)
    for i in range(50):
        step = numbered_step(
            i, 1, rew=[rng.normal()], cost=[[rng.random()]], truncated=np.array([i % 7 == 6])
        )
        buffer.add(step, buffer_ids=[0])
    data.measure(buffer)
    window = buffer.nstep_window(np.arange(50), 2)
    for value in (-1e3, 1e3):
        bounded, free = (
            nstep_returns(
                (window,),
                torch.full((50, 2), value),
                config=OffpolicyConfig(gamma=0.9, time_limits=time_limits, bound_targets=bound),
                data=data,
            )
            for bound in (True, False)
        )
        assert (bounded[:, 1] >= 0.0).all()
        assert (bounded >= data.value_low - 1e-4).all()
        assert (bounded <= data.value_high + 1e-4).all()
        assert (free.abs() > 500).any()
        inside = nstep_returns(
            (window,),
            torch.full((50, 2), 0.5),
            config=OffpolicyConfig(gamma=0.9, time_limits=time_limits, bound_targets=False),
            data=data,
        )
        same = nstep_returns(
            (window,),
            torch.full((50, 2), 0.5),
            config=OffpolicyConfig(gamma=0.9, time_limits=time_limits),
            data=data,
        )
        assert torch.equal(inside, same)


# Observations: unit size, thousands, thousandths, a large constant, a small constant, and zero.
UNIT, LARGE, SMALL, CONSTANT, FAINT, ZERO = range(6)


def some_observations(steps=200, seed=0):
    noise = np.random.default_rng(seed).normal(size=(steps, 3))
    columns = [noise[:, 0], 1000 * noise[:, 1] + 2000, 0.001 * noise[:, 2], *np.full((3, steps), np.nan)]
    columns[CONSTANT:] = np.full(steps, 1000.0), np.full(steps, 0.01), np.zeros(steps)
    return np.stack(columns, 1).astype(np.float32)


def looked_at(obs, size=1000, **settings):
    """Return statistics that have seen observations once, and their buffer."""
    buffer, data = CostReplayBuffer(size), statistics(**settings)
    data.measure(add(buffer, obs=obs))
    return data, buffer


def test_observations_of_unit_size_pass_as_they_are():
    obs = some_observations()[:, [UNIT, FAINT, ZERO]]
    data, _ = looked_at(obs)
    assert data.observations(obs) is obs
    tensor = torch.from_numpy(obs)
    assert data.observations(tensor) is tensor
    # Before the first look nothing is known.
    assert statistics().observations(obs) is obs


def test_features_far_from_unit_size_are_normalised_and_no_others():
    obs = some_observations()
    data, _ = looked_at(obs)
    seen = data.observations(obs)
    assert seen.dtype == torch.float32
    np.testing.assert_allclose(seen[:, [LARGE, SMALL]].mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(seen[:, [LARGE, SMALL]].std(0, correction=0), 1.0, rtol=1e-4)
    kept = [UNIT, FAINT, ZERO]
    np.testing.assert_array_equal(seen[:, kept], obs[:, kept])
    far = np.zeros((1, 6), np.float32)
    far[0, [UNIT, LARGE]] = 50.0, 1e6
    assert data.observations(far)[0, [UNIT, LARGE]].tolist() == [50.0, CLIP]


def test_a_constant_feature_that_changes_later_stays_small():
    obs = some_observations()
    data, buffer = looked_at(obs)
    assert (data.observations(obs)[:, CONSTANT] == 0.0).all()
    changed = obs.copy()
    changed[:, CONSTANT] = np.linspace(900.0, 5000.0, len(obs))
    seen = data.observations(changed)[:, CONSTANT]
    assert seen.min().item() == pytest.approx(-100.0 / (1000 * SCALE_FLOOR))
    assert seen.max().item() == CLIP
    # The next collect has it, and from then on it varies by its own deviation.
    data.measure(add(buffer, obs=changed))
    held = np.concatenate([obs, changed])[:, CONSTANT]
    expected = (changed[:, CONSTANT] - held.mean()) / held.std()
    np.testing.assert_allclose(data.observations(changed)[:, CONSTANT], expected, atol=1e-4)


def test_a_feature_that_was_normalised_once_always_is():
    """Its later values have unit size, so the data would leave it alone."""
    buffer, data = CostReplayBuffer(100), statistics()
    data.measure(add(buffer, obs=np.full((10, 1), 200.0) + np.arange(10)[:, None]))
    small = np.random.default_rng(0).normal(size=(100, 1))
    data.measure(add(buffer, obs=small))
    seen = data.observations(small.astype(np.float32))
    assert isinstance(seen, torch.Tensor)
    assert seen.std().item() == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("size", [1000, 150])
def test_statistics_of_observations_settle(size):
    """They settle after ``normalise_steps``, or when the buffer is full, and follow the data until then."""
    obs = some_observations(600)
    buffer, data = CostReplayBuffer(size), statistics(normalise_steps=200)
    states, signals = [], []
    for first in range(0, 600, 100):
        part = obs[first : first + 100] * (1 + first)
        data.measure(add(buffer, some_signals(100, 1, seed=first), part))
        states.append(data.units()["deviation"])
        signals.append(data.scale.tolist())
    assert states[0] != states[1]
    assert all(x == states[1] for x in states[2:])
    # The scales of the signals go on.
    assert len({tuple(x) for x in signals}) == 6


def test_observations_with_several_axes_are_normalised_as_the_networks_see_them():
    obs = np.random.default_rng(0).normal(size=(50, 2, 3)) * 1000
    data, _ = looked_at(obs)
    seen = data.observations(obs)
    assert seen.shape == (50, 6)
    np.testing.assert_allclose(seen.std(0, correction=0), 1.0, rtol=1e-4)


def test_one_line_says_that_observations_are_far_from_unit_size_and_normalising_is_off():
    obs = some_observations()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data, buffer = looked_at(obs, normalise_observations=False)
        for _ in range(3):
            data.measure(add(buffer, obs=obs))
        looked_at(obs)
        looked_at(obs[:, [UNIT, FAINT, ZERO]], normalise_observations=False)
    (text,) = (str(x.message) for x in caught)
    assert text.startswith("3 of 6 features of the observations are far from unit size")
    assert "normalise_observations is off" in text
    assert data.observations(obs) is obs


def test_the_statistics_move_to_the_policys_device():
    data, _ = looked_at(some_observations())
    obs = torch.zeros(3, 6, device="meta")
    assert data.to("meta").observations(obs).device.type == "meta"
    other = statistics().to("meta")
    other.load_units(looked_at(some_observations())[0].units())
    assert other.observations(obs).device.type == "meta"


# An environment whose observations are a number in [-1000, 1000], 1000 and 0.
LARGE_OBS = {"noise": True, "obs_scale": 1000.0, "max_episode_steps": 20}


def taught(name, cycles=2, **settings):
    """Return a policy that has learnt from large observations, and its collector."""
    policy = build(name, obs_dim=3, **settings)
    collector = collector_for(policy, env=KnownOptimumEnv, **LARGE_OBS)
    for _ in range(cycles):
        collect(policy, collector)
        update(policy, collector, 3)
    return policy, collector


@every
def test_networks_never_see_an_observation_that_was_not_normalised(name):
    policy, collector = taught(name, cycles=1)
    seen = []
    networks = (policy.actor, policy.critic, policy.target_critic)
    for network in (*networks, getattr(policy, "old_actor", None), getattr(policy, "target_actor", None)):
        if network is not None:
            network.register_forward_pre_hook(
                lambda _, args: seen.append(torch.as_tensor(args[0]).abs().max().item())
            )
    for _ in range(2):
        collect(policy, collector)
        update(policy, collector, 2)
    policy(Batch(obs=collector.buffer.obs[:5], info={}))
    assert len(seen) > 20
    assert max(seen) <= CLIP


@every
def test_statistics_are_saved_with_the_policy_and_frozen_at_evaluation(name, tmp_path):
    policy, _ = taught(name)
    torch.save(policy.state_dict(), tmp_path / "policy.pt")
    other = build(name, obs_dim=3)
    other.load_state_dict(torch.load(tmp_path / "policy.pt", weights_only=True))
    # The number's range is another one than in training.
    numbers = np.linspace(0.0, 3000.0, 50)
    obs = np.stack([np.zeros(50), numbers, np.full(50, 1000.0)], 1).astype(np.float32)
    batch = Batch(obs=obs, info={})
    before = policy.data.units()
    for _ in range(3):
        assert torch.equal(policy(batch).act, other(batch).act)
    assert other.data.units() == policy.data.units() == before
    raw = build(name, obs_dim=3)
    raw.load_state_dict(tensors(policy))
    assert not torch.allclose(raw(batch).act, policy(batch).act)


def make_envs(count):
    return DummyVectorEnv([functools.partial(KnownOptimumEnv, **LARGE_OBS)] * count)


def test_a_collecting_process_acts_with_the_learners_statistics():
    """Without exploration noise, its actions are those that the policy here takes in the same states."""
    policy = build("ddpg", obs_dim=3, exploration_std=0.0)
    with torch.no_grad():
        policy.actor.head.weight.mul_(20.0)  # the action depends on the observation
    buffer = CostVectorReplayBuffer(400, 2)
    collector = AheadCollector(policy, functools.partial(make_envs, 2), buffer, seed=0)
    try:
        collector.reset(gym_reset_kwargs={"seed": [0, 1]})
        collector.collect(n_step=100)
        update(policy, collector)
        collector.collect(n_step=100)
        newest = np.concatenate([i - np.arange(50) for i in buffer.last_index])
        expected = policy(Batch(obs=buffer.obs[newest], info={})).act.detach()
    finally:
        collector.close()
    np.testing.assert_allclose(buffer.act[newest], expected, atol=1e-5)
    assert expected.std() > 0.01
    assert expected.abs().max() < 1.0
