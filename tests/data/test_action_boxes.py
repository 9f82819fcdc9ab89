"""What an environment receives lies in its action space and has its dtype, whoever acts."""

import functools

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tianshou.data import Batch
from tianshou.env import DummyVectorEnv, ShmemVectorEnv, SubprocVectorEnv
from tianshou.policy import BasePolicy
from tianshou.policy.base import policy_within_training_step
from toys.envs import StrictEnv
from toys.every import EVERY, make, rebuild
from toys.policies import build

from fsrl_ext.data import CostCollector
from fsrl_ext.data.action_boxes import ActionSpaces

# Scaled in float32 from the low -0.9, the largest action would be 0.30000007.
BOXES = {
    "float32": ([-0.9, -1.0], [0.3, 1.0], "float32"),
    "float64": ([-0.7, -0.1], [0.3, 0.6], "float64"),
    "float16": ([-0.7, -0.1], [0.3, 0.6], "float16"),
    "asymmetric": ([0.1, -1e-3], [0.3, 1e3], "float32"),
    "narrow": ([1.0, 1e-9], [1.0 + 1e-6, 2e-9], "float64"),
}
each_box = pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)


class Saturated(BasePolicy):
    """Draws raw actions in and beyond [-1, 1] and leaves the scaling to Tianshou."""

    def forward(self, batch, state=None, **kwargs):
        return Batch(act=np.random.uniform(-1.5, 1.5, (len(batch.obs), 2)).astype(np.float32))  # noqa: NPY002

    def learn(self, batch, *args, **kwargs):
        raise NotImplementedError


def space_of(box):
    return StrictEnv(*box).action_space


def policy_for(kind, box):
    if kind == "tianshou":
        return Saturated(action_space=space_of(box), action_scaling=True, action_bound_method="clip")
    return build(kind, space=space_of(box), **({} if kind == "ddpg" else {"initial_std": 1.0}))


@each_box
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("kind", ["cvpo", "sac", "ddpg", "ppo", "tianshou"])
def test_collectors_hand_over_what_the_space_contains(kind, fast, box):
    envs = DummyVectorEnv([lambda: gym.wrappers.TimeLimit(StrictEnv(*box), 9)] * 3)
    collector = CostCollector(policy_for(kind, box), envs, fast=fast)
    collector.reset(gym_reset_kwargs={"seed": [1, 2, 3]})
    with policy_within_training_step(collector.policy):
        collector.collect(n_step=60, random=True)
        collector.collect(n_step=120)
        collector.collect(n_episode=4)
    act = collector.buffer.act[collector.buffer.sample_indices(0)]
    assert act.min() < -0.9
    assert act.max() > 0.9
    assert np.abs(act[:20]).max() <= 1.0  # Random actions are inside.


@each_box
def test_every_raw_action_is_mapped_into_the_space(box):
    policy, space = build("sac", space=space_of(box)), space_of(box)
    raw = np.linspace(-1.2, 1.2, 4001, dtype=np.float32)[:, None].repeat(2, axis=1)
    for act in (raw, torch.tensor(raw), raw.astype(np.float64)):
        mapped = policy.map_action(act)
        assert mapped.dtype == space.dtype
        assert (mapped >= space.low).all()
        assert (mapped <= space.high).all()
        np.testing.assert_array_equal(mapped[[0, -1]], [space.low, space.high])
        assert (np.diff(mapped.astype(float), axis=0) >= 0).all()
    one = policy.compute_action(np.zeros(2, np.float32))
    assert one.dtype == space.dtype
    assert space.contains(one)


@each_box
def test_the_inverse_leads_back(box):
    policy, space = build("sac", space=space_of(box)), space_of(box)
    space.seed(0)
    actions = np.array([space.sample() for _ in range(200)] + [space.low, space.high])
    raw = policy.map_action_inverse(actions)
    assert np.abs(raw).max() == 1.0
    tolerance = 2e-7 if space.dtype == np.float64 else 4 * np.finfo(space.dtype).eps
    width = (space.high - space.low).astype(float)
    size = np.maximum(np.abs(space.low), np.abs(space.high)) + width
    assert (np.abs(policy.map_action(raw) - actions.astype(float)) <= tolerance * size).all()


@pytest.mark.parametrize("name", EVERY)
def test_every_policy_maps_into_its_space(name):
    space = spaces.Box(-0.7, 0.3, (1,), np.float32)
    policy = rebuild(make(name), action_space=space)
    mapped = policy.map_action(np.linspace(-1, 1, 101, dtype=np.float32)[:, None])
    assert space.contains(mapped[-1])
    assert mapped[-1] == space.high


def test_boxes_may_differ_within_rounding_only():
    policy = build("sac", space=spaces.Box(np.float32([-0.7, -0.1]), np.float32([0.3, 0.6])))
    for kind in ("float32", "float64"):
        env = StrictEnv([-0.7, -0.1], [0.3, 0.6], kind)
        collector = CostCollector(policy, DummyVectorEnv([lambda e=env: gym.wrappers.TimeLimit(e, 9)]))
        collector.reset()
        collector.collect(n_step=30, random=True)
        collector.collect(n_step=30)
    wider = DummyVectorEnv([StrictEnv, functools.partial(StrictEnv, high=[0.3, 0.7])])
    with pytest.raises(
        ValueError, match=r"must be that of the environments, got Box.* environment 1 has Box"
    ):
        CostCollector(policy, wider)
    with pytest.raises(ValueError, match=r"got Box.* environment 0 has Box"):
        CostCollector(build("sac"), DummyVectorEnv([StrictEnv]))


def test_other_spaces_get_what_they_got():
    discrete = ActionSpaces([spaces.Discrete(3)] * 2)
    action = np.array([2, 1])
    assert discrete.fit(action, np.arange(2)) is action
    discrete.check_policy(spaces.Discrete(3))
    others = spaces.Discrete(4), spaces.Discrete(3, start=1), spaces.Box(-1.0, 1.0, (1,), np.float32)
    for other in others:
        with pytest.raises(ValueError, match=r"must be that of the environments, .* 0 has Discrete\(3\)"):
            discrete.check_policy(other)
    whole = ActionSpaces([spaces.Box(0, 3, (1,), np.int64)])
    assert whole.fit(np.array([[2]]), np.arange(1)).dtype == np.int64


def drawn(kind, make_env, seeds=(5, 6)):
    """Return the random actions of two seeded environments, ``[16, 1]``."""
    envs = kind([make_env] * 2)
    collector = CostCollector(build("sac"), envs)
    try:
        collector.reset()
        collector.reset_env(gym_reset_kwargs={"seed": list(seeds)})
        collector.collect(n_step=16, random=True)
        return collector.buffer.act[collector.buffer.sample_indices(0)]
    finally:
        collector.close()


class SharedSpaceEnv(StrictEnv):
    """Has one space for all instances, draws from it itself, and no seed reaches it."""

    shared = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self):
        super().__init__([-1.0], [1.0], "float32")
        self.action_space = self.shared

    def step(self, action):
        self.action_space.sample()
        return super().step(action)


@pytest.mark.parametrize("kind", [DummyVectorEnv, SubprocVectorEnv, ShmemVectorEnv])
def test_random_actions_depend_on_the_seeds_alone(kind):
    expected = [spaces.Box(-1.0, 1.0, (1,), seed=s) for s in (5, 6)]
    expected = np.array([[space.sample() for _ in range(8)] for space in expected]).reshape(16, 1)
    np.testing.assert_allclose(drawn(kind, SharedSpaceEnv), expected, atol=1e-6)
    assert not np.allclose(drawn(kind, SharedSpaceEnv, seeds=(7, 8)), expected, atol=1e-2)


def test_seeding_the_environments_seeds_random_actions():
    for seeds in (3, [3, 4]):
        collector = CostCollector(build("sac"), DummyVectorEnv([SharedSpaceEnv] * 2))
        collector.env.seed(seeds)
        collector.reset()
        samples = [space.sample() for space in collector.action_spaces]
        assert samples == [spaces.Box(-1.0, 1.0, (1,), seed=s).sample() for s in (3, 4)]
