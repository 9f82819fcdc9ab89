"""The measured level of the cost, the comparison of the critics' level with it, and what both lead to."""

import math
import warnings

import numpy as np
import pytest
import torch
from toys.envs import CreditEnv
from toys.policies import build
from toys.training import collect, collector_for, update

from fsrl_ext.env.known_optimum import HORIZON, KnownOptimumEnv
from fsrl_ext.policy.offpolicy.cost_level import APART_CYCLES, CriticLevel, MeasuredCost

NUM_ENVS = 4


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def measured_cost(*, num_costs=1, former_episodes=0.0, margin_rate=0.0, recovery_share=1.0):
    return MeasuredCost(
        num_costs,
        former_episodes=former_episodes,
        margin_rate=margin_rate,
        recovery_share=recovery_share,
    )


def measure(level, costs, *, steps=20, otherwise=(0.0,), bound=(math.inf,)):
    """Give a level the episodes of one collect: ``costs [E]`` or ``[E, C]``, of ``steps`` steps each."""
    costs = np.array(costs, dtype=np.float64).reshape(-1, len(otherwise))
    level.measure(
        costs,
        np.full(len(costs), steps),
        bound=tensor(*bound),
        num_envs=NUM_ENVS,
        otherwise=np.array(otherwise, dtype=np.float64),
    )


def played(costs, spans):
    """Follow policies of the episode costs ``costs [K]``, one for each collect, with exact changes.

    In every ``spans``-th collect an episode of each environment ends, which the newest ``spans`` policies
    played in equal parts.

    :return: the level, which started from a first estimate of zero.
    """
    level = measured_cost(former_episodes=4.0)
    for k, cost in enumerate(costs):
        level.change(tensor(cost - costs[k - 1] if k else 0.0))
        ended = (k + 1) % spans == 0
        measure(level, [np.mean(costs[k + 1 - spans : k + 1])] * NUM_ENVS if ended else [])
    return level


def test_the_level_converges_to_measured_costs_by_its_weight():
    """Two episodes against six that the former estimate counts for have the weight 1/4."""
    level = measured_cost(former_episodes=6.0)
    assert level.value is None
    measure(level, [4.0])
    assert level.value.tolist() == [4.0]
    for i in range(1, 30):
        measure(level, [6.0, 10.0])
        assert level.value.item() == pytest.approx(8.0 - 4.0 * 0.75**i)


def test_costs_are_measured_on_their_own():
    level = measured_cost(num_costs=3, former_episodes=2.0)
    infinite = (math.inf,) * 3
    for _ in range(30):
        measure(level, [[1.0, 200.0, 0.0], [3.0, 400.0, 0.0]], otherwise=(0.0, 0.0, 0.0), bound=infinite)
    np.testing.assert_allclose(level.value, [2.0, 300.0, 0.0])
    level.change(tensor(0.5, -50.0, 0.0))
    np.testing.assert_allclose(level.value, [2.5, 300.0, 0.0])


def test_expected_rises_count_at_once_and_falls_when_they_are_measured():
    level = measured_cost()
    level.change(tensor(7.0))  # there is no estimate yet that could change
    assert level.value is None
    measure(level, [5.0] * NUM_ENVS)
    assert level.value.tolist() == [5.0]
    for i in range(1, 6):
        level.change(tensor(0.5))
        measure(level, [], otherwise=(99.0,))
        assert level.value.item() == pytest.approx(5.0 + 0.5 * i)
    # A fall takes back the rises that were expected, and nothing of what was measured.
    for expected in (7.0, 6.5, 6.0, 5.5, 5.0, 5.0, 5.0, 5.0):
        level.change(tensor(-0.5))
        assert level.value.item() == pytest.approx(expected)
    measure(level, [1.0] * NUM_ENVS)
    assert level.value.item() == pytest.approx(1.0)
    # What was expected before a measurement has no effect after it.
    level.change(tensor(0.5))
    assert level.value.item() == pytest.approx(1.5)


def test_noise_of_the_expected_changes_is_no_rise():
    """Changes of +1 and -1 in turn over the 100 collects that an episode takes."""
    level = measured_cost()
    measure(level, [5.0] * NUM_ENVS)
    for i in range(100):
        level.change(tensor((-1.0) ** i))
        measure(level, [])
        assert 5.0 <= level.value.item() <= 6.0


@pytest.mark.parametrize("spans", [1, 4, 10])
def test_the_level_is_that_of_the_newest_policy_and_not_of_those_that_played(spans):
    """The cost rises by 0.3 with each collect, so the mean of the last ``spans`` policies is cheaper."""
    costs = 5.0 + 0.3 * np.arange(120)
    assert played(costs, spans).value.item() == pytest.approx(costs[-1], abs=0.02)


def test_what_a_policy_played_is_corrected_once():
    """Each episode takes four collects, and one of them ends in every collect."""
    level = measured_cost(former_episodes=1.0)
    measure(level, [], otherwise=(0.0,))
    for i in range(1, 12):
        level.change(tensor(0.0))
        measure(level, [8.0])
        assert level.value.item() == pytest.approx(8.0 * (1 - 0.5**i))


def test_episodes_that_took_more_collects_than_there_were_are_compared_with_all_policies():
    level = measured_cost()
    measure(level, [], otherwise=(3.0,))
    level.change(tensor(2.0))
    measure(level, [10.0], steps=10_000)
    # The mean of both estimates, 3 and 5, is corrected to 10.
    assert level.value.item() == pytest.approx(11.0)


def test_no_level_is_below_zero():
    """The mean of both estimates, 1 and 3, is 2, and the measured mean is 0."""
    level = measured_cost()
    measure(level, [], otherwise=(1.0,))
    level.change(tensor(2.0))
    measure(level, [0.0, 0.0], steps=4 * 20)
    assert level.state_dict()["estimates"] == [[0.0], [1.0]]


def test_the_extra_margin_grows_with_the_measured_excess_and_shrinks_again():
    level = measured_cost(margin_rate=0.1)
    measure(level, [9.0], bound=(6.0,))  # the first measurement sets the level alone
    assert level.extra_margin.tolist() == [0.0]
    measure(level, [9.0], bound=(6.0,))
    assert level.extra_margin.item() == pytest.approx(0.3)
    measure(level, [60.0], bound=(6.0,))  # an excess counts up to the size of the bound
    assert level.extra_margin.item() == pytest.approx(0.9)
    measure(level, [], bound=(6.0,))
    assert level.extra_margin.item() == pytest.approx(0.9)
    for _ in range(20):
        measure(level, [60.0], bound=(6.0,))
    assert level.extra_margin.item() == pytest.approx(3.0)  # half of the bound at most
    measure(level, [2.0], bound=(6.0,))
    assert level.extra_margin.item() == pytest.approx(2.6)
    measure(level, [60.0], bound=(math.inf,))
    assert level.extra_margin.tolist() == [0.0]


def test_with_a_recovery_share_the_extra_margin_is_a_share_of_what_an_update_can_do():
    level = measured_cost(margin_rate=0.1, recovery_share=0.3)
    for cost, share in [
        (9.0, 0.0),  # the first measurement sets the level alone
        (9.0, 0.05),  # half of the bound above it
        (60.0, 0.15),  # an excess counts up to the size of the bound
        (12.0, 0.25),
        (12.0, 0.3),  # the recovery share at most
        (3.0, 0.25),
        (0.0, 0.15),
    ]:
        measure(level, [cost], bound=(6.0,))
        assert level.extra_share.item() == pytest.approx(share)
        assert level.extra_margin.tolist() == [0.0]
    copy = measured_cost(margin_rate=0.1, recovery_share=0.3)
    copy.load_state_dict(level.state_dict())
    measure(copy, [6.0], bound=(6.0,))
    assert copy.extra_share.item() == pytest.approx(0.15)


@pytest.mark.parametrize(("bound", "share"), [(0.0, 0.1), (math.inf, 0.0)])
def test_the_share_grows_at_a_limit_of_zero_and_stays_without_a_limit(bound, share):
    level = measured_cost(margin_rate=0.1, recovery_share=0.3)
    for _ in range(2):
        measure(level, [9.0], bound=(bound,))
    assert level.extra_share.item() == pytest.approx(share)
    measure(level, [0.0], bound=(bound,))
    assert level.extra_share.item() == pytest.approx(share)


def test_a_saved_level_goes_on_as_it_was():
    costs = 5.0 + 0.3 * np.arange(50)
    level, other = played(costs, 4), measured_cost(former_episodes=4.0)
    other.load_state_dict(level.state_dict())
    assert other.state_dict() == level.state_dict()
    for x in (level, other):
        x.change(tensor(0.3))
        measure(x, [30.0] * NUM_ENVS)
    assert torch.equal(level.value, other.value)
    assert level.value.dtype == torch.float64


def compare(level, times, *, critics=(1.0,), measured=(4.0,), limits=(5.0,)):
    """Compare the same numbers several times; return the texts of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(times):
            level.compare(np.array(critics), np.array(measured), limits)
    return [str(x.message) for x in caught]


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (True, ("the limit holds", "uses measured costs")),
        (False, ("the limit need not hold", "uses the critics' level")),
    ],
)
def test_a_level_that_stays_apart_is_warned_of_once_and_the_warning_tells_the_effect(measured, words):
    level = CriticLevel(measured=measured)
    assert compare(level, APART_CYCLES - 1) == []
    (text,) = compare(level, 1)
    assert "(1)" in text
    assert "(4)" in text
    assert all(x in text for x in words)
    assert compare(level, 3 * APART_CYCLES) == []
    assert level.value == [1.0]


def test_one_look_at_which_the_levels_agree_begins_the_count_anew():
    level = CriticLevel(measured=True)
    for _ in range(3):
        assert compare(level, APART_CYCLES - 1) == []
        assert compare(level, 1, critics=(3.0,)) == []
    compare(level, APART_CYCLES - 1)
    assert len(compare(level, 1)) == 1


@pytest.mark.parametrize(
    ("critics", "measured", "limits", "warned"),
    [
        ((2.1,), (4.0,), (5.0,), False),  # apart by less than half
        ((8.1,), (4.0,), (5.0,), True),  # above, by more than half of the larger one
        ((-4.0,), (0.0,), (5.0,), True),  # no cost can be negative
        ((0.1,), (0.4,), (5.0,), False),  # both are far below the limit
        ((0.1,), (0.4,), (0.0,), True),
        ((1.0,), (4.0,), (math.inf,), False),
        ((4.0, 1.0), (4.0, 4.0), (5.0, math.inf), False),
        ((4.0, 1.0), (4.0, 4.0), (math.inf, 5.0), True),
    ],
)
def test_levels_are_apart_where_a_finite_limit_feels_it(critics, measured, limits, warned):
    level = CriticLevel(measured=True)
    texts = compare(level, 4 * APART_CYCLES, critics=critics, measured=measured, limits=limits)
    assert len(texts) == warned


def test_a_saved_comparison_goes_on_as_it_was():
    level, other = CriticLevel(measured=True), CriticLevel(measured=True)
    other.load_state_dict(level.state_dict())
    assert other.value is None
    compare(level, APART_CYCLES - 1)
    other.load_state_dict(level.state_dict())
    assert other.state_dict() == level.state_dict()
    assert len(compare(other, 1)) == 1
    # What has been said once is not said again after a restart.
    again = CriticLevel(measured=True)
    again.load_state_dict(other.state_dict())
    assert compare(again, 2 * APART_CYCLES) == []


FIRST_SIX, LAST_SIX = (0, 6), (HORIZON - 6, HORIZON)


@pytest.mark.parametrize(
    ("level", "case"),
    [
        ("measured", {"window": FIRST_SIX}),
        ("measured", {}),
        ("measured", {"window": LAST_SIX}),
        ("measured", {"clock": True}),
        ("critic", {"window": FIRST_SIX}),
    ],
    ids=["measured_first_six", "measured_all", "measured_last_six", "measured_clock", "critic_first_six"],
)
def test_cvpo_ends_at_the_limit_wherever_the_cost_falls_if_its_level_is_measured(level, case):
    """An untrained policy costs 5 an episode, and the limit is 3.

    The critics' level alone assumes an even cost. In this training of 6000 steps it ends far above the limit
    if the cost falls at the beginning of the episodes.
    """
    limit, cycles = 3.0, 15
    policy = build(
        "cvpo",
        obs_dim=3,
        cost_limit=limit,
        max_episode_steps=HORIZON,
        cost_level=level,
        initial_std=0.6,
        gamma=0.97,
        lr=1e-3,
        kl_bound_scale=0.005,
    )
    collector = collector_for(policy, env=KnownOptimumEnv, limit=HORIZON, **case)
    costs = []
    for _ in range(cycles):
        costs.append(collect(policy, collector, 400).costs.mean())
        update(policy, collector, 80, batch_size=128)
    # Fifty episodes
    newest = np.mean(costs[-5:])
    if level == "measured":
        assert newest == pytest.approx(limit, rel=0.15)
    else:
        assert newest > 2 * limit


def test_the_level_follows_costs_below_zero():
    level = measured_cost(margin_rate=0.5)
    for cost in (-4.0, -2.0):
        measure(level, [cost], bound=(0.0,))
        assert level.value.tolist() == [cost]
    assert level.extra_margin.tolist() == [0.0]


def test_critics_far_above_costs_below_zero_are_noticed():
    level = CriticLevel(measured=False)
    signs = np.array([0.0]), np.array([-100.0]), [0.0]
    for _ in range(APART_CYCLES - 1):
        level.compare(*signs)
    with pytest.warns(UserWarning, match=r"another episode cost \(0\) than was measured \(-100\)"):
        level.compare(*signs)


@pytest.mark.parametrize("scale", [1.0, 1e12])
@pytest.mark.parametrize("name", ["cvpo", "sac", "td3", "cpo", "trpo", "ppo", "focops"])
def test_every_policy_learns_from_costs_below_zero_with_a_limit_of_zero(name, scale):
    """The checks of settings are not for data: a measured cost may be any finite number."""
    policy = build(name, cost_limit=0.0)
    collector = collector_for(policy, env=CreditEnv, scale=scale)
    for _ in range(3):
        collect(policy, collector)
        update(policy, collector, 2)
    assert all(bool(torch.isfinite(x).all()) for x in policy.parameters())
    assert collector.buffer.episodes.costs.max() < 0.0
