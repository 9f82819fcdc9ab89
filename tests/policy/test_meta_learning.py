"""On a family of bandits, adaptation pays, a meta-learnt start beats a fresh one, and the limit holds."""

import numpy as np
import pytest
from toys.meta import ENVS, adapt, build, collector_for, iterate, targets_of

HELD_OUT = (0.25, 0.4, 0.6, 0.75)
# A mean action of 0.5: the targets above it are out of reach.
LIMIT = 7.5
SETTINGS = {"cost_limit": LIMIT, "inner_steps": 3, "kl_bound": 0.02}


def curves(policy, collector):
    """Return the mean returns ``[K + 1]`` over held-out targets, and the mean costs ``[targets, K + 1]``.

    The first entry of the K + 1 is before the adaptation, the others are after each of its steps.
    """
    collects = [adapt(policy, collector, x, seed=10_000 + ENVS * i) for i, x in enumerate(HELD_OUT)]
    returns = np.mean([[x.returns.mean() for x in of_target] for of_target in collects], axis=0)
    costs = np.array([[x.costs.mean() for x in of_target] for of_target in collects])
    return returns, costs


@pytest.fixture(scope="module")
def learnt():
    policy = build(num_tasks=3, outer_kl_bound=0.05, **SETTINGS)
    collector = collector_for(policy, steps=250)
    for i in range(9):
        iterate(policy, collector, targets_of(i, 3), seed=1000 * i)
    return policy, collector


def test_adaptation_pays_and_a_meta_learnt_start_beats_a_fresh_one(learnt):
    policy, collector = learnt
    returns, costs = curves(policy, collector)
    fresh = build(**SETTINGS)
    from_scratch, _ = curves(fresh, collector_for(fresh, steps=250))
    assert returns[-1] > returns[0] + 0.1
    assert returns[-1] > from_scratch[-1] + 1.0
    # The limit holds even for the target beyond it, up to the noise in the mean of 25 episodes.
    assert costs[:, -1].max() < LIMIT + 0.3


def test_adaptation_finds_the_target(learnt):
    """The mean action after the adaptation lies nearer to a target than that of the meta-policy does."""
    policy, collector = learnt
    for target in (0.1, 0.9):
        before, *_, after = adapt(policy, collector, target, seed=20_000)
        assert after.returns.mean() > before.returns.mean()
    # Below the limit, a higher target asks for more cost. The costs of the meta-policy alone differ by less
    # than 0.1, those of the adapted policies by 0.5 to 0.7, with other seeds and on other processors.
    low, high = (adapt(policy, collector, t, seed=20_000)[-1].costs.mean() for t in (0.1, 0.6))
    assert low < high - 0.3
