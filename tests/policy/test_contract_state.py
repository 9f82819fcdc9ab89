"""What ``state_dict`` saves of every policy, and how learning goes on from it."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from tianshou.data import Batch
from toys import meta
from toys.every import EVERY, META, data_for, learn, make, optimisers
from toys.policies import assert_same_state, tensors
from toys.training import update

every = pytest.mark.parametrize("name", EVERY)
# Multipliers, KL multipliers and the actor's delay have moved when these have learnt for three cycles.
SETTINGS = {"cvpo": {"kl_bound_mean": 1e-6, "kl_bound_scale": 1e-6}, "td3": {"policy_delay": 2}}


def through_a_file(state, path):
    """Return a state as a file gives it back that holds nothing but tensors and plain values."""
    torch.save(state, path)
    return torch.load(path, weights_only=True)


def taught(name, **settings):
    """Return a policy after three cycles of three updates each, and its collector."""
    policy = make(name, cost_limit=2.0, **SETTINGS.get(name, {}), **settings)
    collector = data_for(policy)
    learn(policy, collector, cycles=3)
    return policy, collector


def restored(name, policy, path, **settings):
    """Return another policy with the state of one and of its optimisers, through a file."""
    state, moments = through_a_file(
        [policy.state_dict(), {k: v.state_dict() for k, v in optimisers(policy).items()}], path
    )
    other = make(name, cost_limit=2.0, **SETTINGS.get(name, {}), **settings)
    other.load_state_dict(state)
    for key, optimiser in optimisers(other).items():
        optimiser.load_state_dict(moments[key])
    return other


@every
def test_a_file_holds_parameters_and_the_progress_of_learning(name, tmp_path):
    policy, _ = taught(name)
    other = make(name, cost_limit=2.0)
    assert policy.get_extra_state() != other.get_extra_state()
    other.load_state_dict(through_a_file(policy.state_dict(), tmp_path / "state.pt"))
    assert_same_state(policy.state_dict(), other.state_dict())
    assert other.get_extra_state() == policy.get_extra_state()
    assert policy.episode_cost > 0
    np.testing.assert_array_equal(other.episode_cost, policy.episode_cost)
    batch = Batch(obs=np.eye(2, dtype=np.float32), info={})
    assert torch.equal(policy(batch).act, other(batch).act)


def test_the_saved_state_is_no_trivial_one():
    """Whatever a policy can lose in saving is other than in a fresh policy, once it has learnt."""
    assert taught("cvpo")[0].kl_multipliers.min() > 0
    assert taught("sac")[0].alpha != make("sac").alpha
    for name in ("sac", "ddpg", "td3", "trpo", "ppo", "focops"):
        assert taught(name)[0].multipliers.values > 0, name
    progress = taught("td3")[0].get_extra_state()
    assert progress["critic_steps"] == 9  # the next step of the critics moves the actor, too
    assert progress["data"]["cycle"] == 3
    assert taught(META)[0].normaliser.count > 0


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in EVERY),
        ("cvpo", {"margin_rate": 0.5, "solver": "slsqp", "average_tau": 0.1}),
        ("sac", {"multiplier_source": "critic", "multiplier_method": "ascent", "augmented_penalty": 1.0}),
    ],
)
def test_a_loaded_policy_goes_on_as_the_saved_one(name, settings, tmp_path):
    """The same data, the same parameters, the same numbers to log."""
    policy, collector = taught(name, **settings)
    # The rate of the optimisers is part of their state.
    other = restored(name, policy, tmp_path / "saved.pt", **settings, **({} if name == META else {"lr": 1.0}))
    logged = []
    if name == META:
        collectors = [meta.collector_for(x, steps=100) for x in (policy, other)]
    else:
        collectors = [collector, deepcopy(collector)]
        collectors[1].policy = other
    for one, data in zip((policy, other), collectors, strict=True):
        torch.manual_seed(1)
        # First in the same cycle, then in new ones.
        logged.append({} if name == META else update(one, data).metrics)
        logged[-1] |= {f"then {k}": v for k, v in learn(one, data).items()}
    assert logged[0] == logged[1]
    assert_same_state(policy.state_dict(), other.state_dict())


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_a_meta_learner_goes_on_whichever_way_its_critic_is_fitted(optimiser, tmp_path):
    """Between meta-iterations its critic's optimiser has no state that matters."""
    policy, _ = taught(META, optimiser=optimiser)
    other = make(META, cost_limit=2.0, optimiser=optimiser)
    other.load_state_dict(through_a_file(policy.state_dict(), tmp_path / "state.pt"))
    for one in (policy, other):
        torch.manual_seed(1)
        learn(one, meta.collector_for(one, steps=100), cycles=1)
    assert_same_state(policy.state_dict(), other.state_dict())


@every
def test_a_state_without_progress_loads(name):
    """Version 0.1.0 saved parameters and buffers alone."""
    policy, _ = taught(name)
    old = tensors(policy)
    assert policy.state_dict().keys() - old.keys() == {"_extra_state"}
    other = make(name, cost_limit=2.0, **SETTINGS.get(name, {}))
    progress = other.get_extra_state()
    other.load_state_dict(old)
    assert_same_state(old, tensors(other))
    assert other.get_extra_state() == progress
    metrics = learn(other, data_for(other), cycles=1)
    assert all(math.isfinite(x) for x in metrics.values())


@every
def test_a_state_that_does_not_fit_is_refused(name):
    policy = make(name)
    state = policy.state_dict()
    for key in ("actor", "critic"):
        lacking = {k: v for k, v in state.items() if not k.startswith(key)}
        with pytest.raises(RuntimeError, match=f"Missing key.*{key}"):
            make(name).load_state_dict(lacking)
