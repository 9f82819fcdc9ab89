"""The constructors of every policy: settings by name, and configs of its own and of other policies."""

import dataclasses
import inspect
import math
import pydoc

import gymnasium as gym
import numpy as np
import pytest
from toys.every import EVERY, META, data_for, learn, make, rebuild

from fsrl_ext.policy import (
    CPOConfig,
    CVPOConfig,
    DDPGConfig,
    DDPGLagConfig,
    FOCOPSConfig,
    MAMLConfig,
    MAMLLagConfig,
    MetaCPOConfig,
    PPOConfig,
    PPOLagConfig,
    SACConfig,
    SACLagConfig,
    TD3Config,
    TD3LagConfig,
    TRPOConfig,
    TRPOLagConfig,
)

every = pytest.mark.parametrize("name", EVERY)

# Every config of the package, and the policy that takes it.
OWNERS = {
    CVPOConfig: "cvpo", SACConfig: "sac", SACLagConfig: "sac", DDPGConfig: "ddpg", DDPGLagConfig: "ddpg",
    TD3Config: "td3", TD3LagConfig: "td3", CPOConfig: "cpo", TRPOConfig: "trpo", TRPOLagConfig: "trpo",
    PPOConfig: "ppo", PPOLagConfig: "ppo", FOCOPSConfig: "focops", MetaCPOConfig: META, MAMLConfig: META,
    MAMLLagConfig: META,
}  # fmt: skip

# A config of the plain algorithm, with a setting that is not the default.
PLAIN = {
    "sac": SACConfig(alpha=0.3),
    "ddpg": DDPGConfig(exploration_std=0.3),
    "td3": TD3Config(policy_delay=3),
    "trpo": TRPOConfig(kl_bound=0.03),
    "ppo": PPOConfig(clip=0.1),
    META: MAMLConfig(outer_kl_bound=0.02),
}


@every
def test_signature_and_help_show_every_argument_and_every_setting(name):
    policy = type(make(name))
    shown = inspect.signature(policy).parameters
    assert {x.kind for x in shown.values()} == {inspect.Parameter.KEYWORD_ONLY}
    arguments = [
        "actor",
        "critic",
        "critic_optim",
        "action_space",
        "cost_limit",
        "max_episode_steps",
        "config",
    ]
    if name not in ("cpo", "trpo", META):
        arguments.append("actor_optim")
    assert set(arguments) <= shown.keys()
    settings = dataclasses.fields(policy.config_type)
    assert {x.name: x.default for x in settings}.items() <= {k: v.default for k, v in shown.items()}.items()
    text = pydoc.plain(pydoc.render_doc(policy))
    (signature,) = (line for line in text.splitlines() if line.startswith(f" |  {policy.__name__}(*"))
    for key in (*arguments, *(x.name for x in settings)):
        assert f", {key}: " in signature, key


@every
def test_a_setting_by_name_wins_over_the_config(name):
    config = type(make(name)).config_type(gamma=0.5)
    policy = rebuild(make(name), config=config)
    assert policy.config == config
    assert rebuild(policy, gamma=0.8).config == dataclasses.replace(config, gamma=0.8)
    assert config.gamma == 0.5


@pytest.mark.parametrize("name", PLAIN)
def test_the_config_of_the_plain_algorithm_is_accepted(name):
    """Its settings are kept, all others have their defaults, and the policy learns with them."""
    plain = PLAIN[name]
    policy = rebuild(make(name), config=plain, cost_limit=math.inf)
    expected = dataclasses.asdict(type(policy).config_type()) | dataclasses.asdict(plain)
    assert type(policy.config) is type(policy).config_type
    assert dataclasses.asdict(policy.config) == expected
    metrics = learn(policy, data_for(policy), cycles=2, updates=3)
    assert all(math.isfinite(x) for x in metrics.values())
    assert "constraint/surplus" not in metrics


@every
def test_the_config_of_another_policy_is_refused(name):
    policy = make(name)
    for config, owner in OWNERS.items():
        if owner == name:
            assert isinstance(rebuild(policy, config=config()).config, config)
        else:
            own = type(policy).config_type.__name__
            with pytest.raises(TypeError, match=f"config must be a {own}, got {config.__name__}"):
                rebuild(policy, config=config())


@every
def test_settings_that_do_not_exist_are_refused(name):
    with pytest.raises(TypeError, match="gama"):
        make(name, gama=0.9)


@every
@pytest.mark.parametrize(
    ("gamma", "words"),
    [
        (0.0, r"in \(0, 1\).*got 0.0"),
        (1.0, r"in \(0, 1\).*got 1.0"),
        (math.nan, "a number, got nan"),
        (True, "a number, got True"),
        ("0.9", "a number, got '0.9'"),
    ],
)
def test_every_policy_checks_its_discount(name, gamma, words):
    with pytest.raises(ValueError, match=f"gamma must be {words}"):
        make(name, gamma=gamma)


@every
@pytest.mark.parametrize(
    ("space", "words"),
    [
        (gym.spaces.MultiDiscrete([2, 3]), r"action_space must be .*Box.* got MultiDiscrete"),
        (gym.spaces.MultiBinary(2), r"action_space must be .*Box.* got MultiBinary"),
        (
            gym.spaces.Box(-np.inf, np.inf, (1,)),
            r"must be bounded .* got Box.*self.action_space = gymnasium.spaces.Box\(-1.0, 1.0, \(1,\)",
        ),
        (gym.spaces.Box(np.nan, 1.0, (1,)), "action_space must be bounded .* got Box"),
        (gym.spaces.Box(0, 3, (1,), np.int64), "must have a floating-point dtype .* got int64 in Box"),
        (gym.spaces.Box(-1.0, 1.0, (1, 2)), r"must be flat.*got the shape \(1, 2\)"),
        (gym.spaces.Box(-1.0, 1.0, ()), r"must be flat.*got the shape \(\)"),
        (
            gym.spaces.Box(np.zeros(2), np.array([1.0, 0.0])),
            r"low < high.* got low 0.0 and high 0.0 in dim.* 1",
        ),
        (gym.spaces.Box(np.ones(1), np.zeros(1)), r"low < high.* got low 1.0 and high 0.0 in dimension 0"),
        (gym.spaces.Box(-3e38, 3e38, (1,)), r"low < high, with a finite difference.* got low -3"),
    ],
)
def test_action_spaces_that_cannot_be_scaled_are_refused(name, space, words):
    policy = make(name)
    with pytest.raises(ValueError, match=words):
        rebuild(policy, action_space=space)


@every
@pytest.mark.parametrize(
    ("cost_limit", "words"),
    [
        (-1.0, "cost_limit must be >= 0"),
        (math.nan, "cost_limit must be >= 0"),
        ((1.0, 2.0), r"cost_limit must have one number per cost \(1\), got \[1.0, 2.0\]"),
    ],
)
def test_limits_that_make_no_sense_are_refused(name, cost_limit, words):
    with pytest.raises(ValueError, match=words):
        make(name, cost_limit=cost_limit)
