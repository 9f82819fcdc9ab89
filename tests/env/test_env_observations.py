"""Observations of several parts become one vector, in the order of Gymnasium's own wrapper."""

import copy
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from toys.broken import CAMERA, IMAGE, broken, picture, view
from toys.envs import LineEnv

from fsrl_ext.env import ContractError, CostWrapper, make, register_task
from fsrl_ext.env.observations import flat_caster, flat_space, is_image, unflat_part
from fsrl_ext.experiment.task import TaskSpec

PARTS = spaces.Dict(
    {
        "wheels": spaces.Tuple([spaces.Box(-2, 2, (2,), np.float64), spaces.Discrete(3)]),
        "arm": spaces.Box(-1, 1, (2, 2), np.float32),
        "lamps": spaces.MultiBinary(2),
        "gear": spaces.MultiDiscrete([2, 3]),
    }
)


class PartsEnv(LineEnv):
    """Is a :class:`LineEnv` that observes several parts.

    :param wrong: replaces parts of the observation.
    """

    def __init__(self, space: Any = PARTS, wrong: Any = None, render_mode: str | None = None) -> None:
        super().__init__()
        self.observation_space, self.wrong = copy.deepcopy(space), wrong or {}

    def reset(self, **kwargs: Any) -> tuple:
        if kwargs.get("seed") is not None:
            self.observation_space.seed(kwargs["seed"])
        return super().reset(**kwargs)

    def observe(self) -> Any:
        parts = self.observation_space.sample()
        return {**parts, **self.wrong} if isinstance(parts, dict) else parts


@pytest.mark.parametrize("space", [PARTS, spaces.Tuple(list(PARTS.values())), PARTS["arm"], PARTS["gear"]])
def test_the_numbers_and_their_order_are_those_of_flatten_observation(space):
    ours = CostWrapper(PartsEnv(space), env_id="Parts-v0")
    theirs = gymnasium.wrappers.FlattenObservation(PartsEnv(space))
    low, high = theirs.observation_space.low, theirs.observation_space.high
    assert ours.observation_space == spaces.Box(np.float32(low), np.float32(high), dtype=np.float32)
    np.testing.assert_array_equal(ours.reset(seed=3)[0], np.float32(theirs.reset(seed=3)[0]))
    for action in (np.ones(1, np.float32), np.zeros(1, np.float32)):
        observation, other = ours.step(action)[0], theirs.step(action)[0]
        assert observation.dtype == np.float32
        np.testing.assert_array_equal(observation, np.float32(other))
        assert observation in ours.observation_space


def test_the_caster_can_be_pickled():
    caster = pickle.loads(pickle.dumps(flat_caster(PARTS, "x")))
    assert caster(PARTS.sample()).shape == flat_space(PARTS).shape == (16,)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"arm": np.zeros((4,))}, r"x: observation part \['arm'\] must have shape \[2, 2\], got \[4\]"),
        ({"arm": "up"}, r"x: observation part \['arm'\] must be in Box.* got 'up'"),
        ({"wheels": (np.zeros(2), 7)}, r"part \['wheels'\]\[1\] must be in Discrete\(3\), got 7"),
        ({"wheels": (np.zeros(2),)}, r"part \['wheels'\] must be a tuple of 2 parts"),
        ({"more": 1}, r"x: observation must be a dictionary of arm, gear, lamps, wheels, got .*'more'"),
    ],
)
def test_errors_name_the_part(wrong, message):
    env = CostWrapper(PartsEnv(wrong=wrong), env_id="x")
    with pytest.raises(ContractError, match=message):
        env.reset(seed=0)


def test_a_task_of_several_parts_has_the_spec_of_a_vector():
    register_task("Parts-v0", entry_point=PartsEnv, max_episode_steps=5)
    spec = TaskSpec.from_env(make("Parts-v0"), "Parts-v0")
    assert spec.obs_dim == 16


def seeing(image: np.ndarray) -> gymnasium.Env:
    """Return an environment whose observation is always the same image."""
    return broken(observation_space=IMAGE, observe=lambda self: image)()


def test_an_image_keeps_its_pixels_and_must_be_uint8():
    register_task("Image-v0", entry_point=lambda: seeing(picture()), max_episode_steps=5)
    env = make("Image-v0")
    assert env.reset(seed=0)[0].dtype == np.uint8
    spec = TaskSpec.from_env(env, "Image-v0")
    assert (spec.obs_dim, spec.image_shape) == (192, (8, 8, 3))
    for image, got in (
        (picture() / 255, r"float64 \[8, 8, 3\]"),
        (picture()[:, :, 0], r"uint8 \[8, 8\]"),
    ):
        env = CostWrapper(seeing(image), env_id="x")
        with pytest.raises(ContractError, match=rf"x: an image must be uint8 \[8, 8, 3\], got {got}"):
            env.reset(seed=0)


def test_stacked_grey_pictures_are_an_image():
    grey = broken(
        observation_space=spaces.Box(0, 255, (8, 8), np.uint8), observe=lambda self: picture()[..., 0]
    )
    env = CostWrapper(gymnasium.wrappers.FrameStack(grey(), 4), env_id="x")
    observation = env.reset(seed=0)[0]
    assert (type(observation), observation.dtype, observation.shape) == (np.ndarray, np.uint8, (4, 8, 8))
    assert is_image(env.observation_space)


def test_an_image_beside_numbers_is_refused_in_one_line():
    class CameraEnv(PartsEnv):
        def observe(self) -> Any:
            return view()

    env = CostWrapper(CameraEnv(CAMERA), env_id="Camera-v0")
    assert env.reset(seed=0)[0]["camera"].dtype == np.uint8
    assert unflat_part(IMAGE) is not None
    assert unflat_part(PARTS) is None
    for space, what, line in (
        (CAMERA, r"part \['camera'\] is an image", r"FilterObservation\(env, \['state'\]\)"),
        (spaces.Tuple([IMAGE]), r"part \[0\] is an image", r"self.observation_space = .*return n numbers"),
    ):
        env = CostWrapper(PartsEnv(space), env_id="x")
        with pytest.raises(
            ValueError, match=f"Camera-v0: the observation {what}.*; policies.*{line}"
        ) as caught:
            TaskSpec.from_env(env, "Camera-v0")
        assert "\n" not in str(caught.value)
    filtered = gymnasium.wrappers.FilterObservation(CameraEnv(CAMERA), ["state"])  # as the message says
    assert CostWrapper(filtered, env_id="x").reset(seed=0)[0].shape == (2,)


def test_a_part_without_numbers_keeps_the_structure():
    space = spaces.Dict({"path": spaces.Sequence(spaces.Discrete(2)), "state": spaces.Box(-1, 1, (1,))})
    assert "part ['path'] is no space of numbers" in str(unflat_part(space))
    assert isinstance(CostWrapper(PartsEnv(space), env_id="x").observation_space, spaces.Dict)
