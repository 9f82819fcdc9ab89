"""Check the cost contract on a toy environment."""

import copy
import pickle
from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from toys.envs import OddEnv, SelfishEnv, TwoCostWalkEnv, WalkEnv

from fsrl_ext.env import (
    ContractError,
    CostError,
    CostReader,
    CostWrapper,
    MissingCostError,
    env_fn,
    make,
    register_task,
)
from fsrl_ext.env.bullet import BulletEnv
from fsrl_ext.env.contract import SimulatorEnv
from fsrl_ext.env.observations import float32_caster, float32_space

GO = np.ones(1, dtype=np.float32)


def costs_of(costs: list) -> list:
    env = CostWrapper(WalkEnv(costs), env_id="Walk-v0")
    env.reset(seed=0)
    return [env.step(GO)[4]["cost"] for _ in costs]


def test_missing_cost_names_the_environment_and_the_step() -> None:
    with pytest.raises(MissingCostError, match=r"Walk-v0, step 3: .*no \"cost\""):
        costs_of([0.0, 0.0, "none"])
    with pytest.raises(MissingCostError, match="Walk-v0, step 1"):
        costs_of([None])
    assert issubclass(MissingCostError, CostError)
    assert issubclass(CostError, ValueError)


@pytest.mark.parametrize("costs", [[0.0, [0.0, 1.0]], [[0.0, 1.0], 1.0], [[0.0, 1.0], [0.0, 1.0, 2.0]]])
def test_cost_of_another_length_is_an_error(costs: list) -> None:
    with pytest.raises(CostError, match=r"Walk-v0, step 2: .* numbers, expected \d"):
        costs_of(costs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), [0.0, float("nan")]])
def test_a_cost_that_is_not_finite_passes_like_a_reward(bad: object) -> None:
    """Collectors refuse it, and name the environment and the step: see tests/data/test_cost_errors.py."""
    np.testing.assert_array_equal(costs_of([bad])[0], np.array(bad, np.float32))


@pytest.mark.parametrize("bad", ["0.5", [[1.0], [2.0]], [], {"a": "much"}, [[1.0], [2.0, 3.0]]])
def test_cost_must_be_numbers(bad: object) -> None:
    with pytest.raises(CostError, match=r"Walk-v0, step 1: .*must be a number or a 1-D array"):
        costs_of([bad])


def test_one_cost_is_a_float_whatever_the_environment_calls_it() -> None:
    costs = costs_of([0.25, 1, True, np.float32(0.5), np.array(2.0), np.array([3.0]), [4]])
    assert costs == [0.25, 1.0, 1.0, 0.5, 2.0, 3.0, 4.0]
    assert {type(cost) for cost in costs} == {float}


def test_several_costs_are_float32_of_shape_c() -> None:
    env = CostWrapper(TwoCostWalkEnv(), env_id="Two-v0")
    assert env.num_costs is None
    env.reset(seed=0)
    costs = np.stack([env.step(GO)[4]["cost"] for _ in range(12)])
    assert costs.dtype == np.float32
    assert costs.shape == (12, 2)
    assert np.array_equal(costs.sum(axis=1), np.ones(12))  # one side or the other
    assert env.num_costs == 2


def test_declared_number_of_costs_is_held_from_the_first_step() -> None:
    env = CostWrapper(WalkEnv(), env_id="Walk-v0", num_costs=2)
    env.reset(seed=0)
    with pytest.raises(CostError, match=r"step 1: .*1 numbers, expected 2"):
        env.step(GO)
    with pytest.raises(ValueError, match="num_costs must be a whole number >= 1, got 0"):
        CostReader("Walk-v0", num_costs=0)


def test_returned_cost_is_not_the_environments_own_array() -> None:
    mine = np.array([1.0, 2.0], dtype=np.float32)
    cost = CostReader("Walk-v0")({"cost": mine}, 1)
    mine[:] = 0.0
    assert np.array_equal(cost, [1.0, 2.0])


def test_observations_are_float32_in_space_and_value() -> None:
    env = CostWrapper(WalkEnv(), env_id="Walk-v0")
    observation, _ = env.reset(seed=3)
    raw, _ = WalkEnv().reset(seed=3)
    assert env.observation_space.dtype == observation.dtype == np.float32
    assert np.array_equal(observation, raw.astype(np.float32))
    assert env.step(GO)[0].dtype == np.float32
    assert env.observation_space.contains(observation)


def test_spaces_are_cast_leaf_by_leaf_and_images_stay() -> None:
    space = spaces.Dict(
        {
            "state": spaces.Box(-1e-3, 0.1, (2,), np.float64),
            "camera": spaces.Box(0, 255, (4, 4, 3), np.uint8),
            "pair": spaces.Tuple([spaces.Box(0, 9, (1,), np.int64), spaces.Discrete(3)]),
        }
    )
    lean, cast = float32_space(space), float32_caster(space, "x")
    assert lean["state"].dtype == np.float32
    assert lean["camera"] == space["camera"]
    assert lean["pair"][0].dtype == np.float32
    assert lean["pair"][1] == spaces.Discrete(3)
    space.seed(0)
    for _ in range(50):
        assert lean.contains(cast(space.sample()))
    edge = {**space.sample(), "state": space["state"].high}
    assert lean.contains(cast(edge))  # rounding a bound and a value goes the same way


def test_reset_seeds_the_action_space_too() -> None:
    env = CostWrapper(WalkEnv(), env_id="Walk-v0")
    draws = []
    for _ in range(2):
        env.reset(seed=7)
        draws.append([env.action_space.sample() for _ in range(3)])
    assert np.array_equal(draws[0], draws[1])


def test_wrapper_can_be_rebuilt_from_its_spec() -> None:
    register_task("Rebuilt-v0", entry_point=WalkEnv, max_episode_steps=5)
    env = make("Rebuilt-v0")
    again = gymnasium.make(env.spec)
    first, _ = env.reset(seed=1)
    second, _ = again.reset(seed=1)
    assert np.array_equal(first, second)
    assert second.dtype == np.float32


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize(
    ("values", "message"),
    [(4, "got 4 values, as in the old Gym"), (6, "got 6 values, as in safety_gymnasium")],
)
def test_steps_with_other_values_are_named_with_the_task(
    values: int, message: str, limit: int | None
) -> None:
    """Also where Gymnasium's time limit is the first to look at the step."""
    task = f"Odd{values}Limit{limit}-v0"
    register_task(task, entry_point=OddEnv, kwargs={"values": values}, max_episode_steps=limit)
    env = make(task)
    env.reset(seed=0)
    with pytest.raises(ContractError, match=f"^{task}: step must return .*{message}"):
        env.step(GO)


def test_an_error_of_the_environment_is_no_error_of_the_contract() -> None:
    class Unpacking(WalkEnv):
        def step(self, action: np.ndarray) -> tuple:
            _one, _two, _three, _four, _five = action
            return super().step(action)

    env = CostWrapper(gymnasium.wrappers.TimeLimit(Unpacking(), 5), env_id="Unpacking-v0")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="not enough values to unpack") as caught:
        env.step(GO)
    assert not isinstance(caught.value, ContractError)


def test_a_reset_without_info_is_named_with_the_task() -> None:
    register_task("OddReset-v0", entry_point=OddEnv, kwargs={"info": False}, max_episode_steps=5)
    with pytest.raises(
        ContractError, match=r"^OddReset-v0: reset must return .*without info, of type ndarray"
    ):
        make("OddReset-v0").reset(seed=0)


def test_the_environments_own_dictionary_stays_its_own() -> None:
    env = CostWrapper(SelfishEnv(), env_id="Selfish-v0")
    env.reset(seed=0)
    infos = [env.step(GO)[4] for _ in range(3)]
    assert env.unwrapped.kept["cost"].dtype == np.float64
    assert [float(info["cost"][0]) for info in infos] == [np.float32(k / 3) for k in (1, 2, 3)]


def test_environments_of_one_vector_share_no_argument() -> None:
    register_task("Selfish-v0", entry_point=SelfishEnv, max_episode_steps=5)
    make_env = env_fn("Selfish-v0", weights=[0.0])
    first, second = make_env(), make_env()
    first.reset(seed=0)
    first.step(GO)
    assert (first.unwrapped.weights, second.unwrapped.weights) == ([1.0], [0.0])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_is_a_copy(copied: Callable) -> None:
    def trace(env: gymnasium.Env) -> list:
        return [float(env.step(GO[:1] * 0.3)[0][1]) for _ in range(5)]

    for env in (make("KnownOptimumNoise-v0"), CostWrapper(WalkEnv(), env_id="Walk-v0")):
        env.reset(seed=3)
        other = copied(env)
        if isinstance(env, CostWrapper):
            first = [env.step(GO)[0] for _ in range(3)]
            np.testing.assert_array_equal(first, [other.step(GO)[0] for _ in range(3)])
        else:
            assert trace(env) == trace(other)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_simulator_is_not_copied(copied: Callable) -> None:
    class Handle(SimulatorEnv):
        metadata = {"render_modes": []}  # noqa: RUF012

        def _reset(self, seed: int | None) -> tuple:
            return np.zeros(1), {}

        def _step(self, action: object) -> tuple:
            return np.zeros(1), 0.0, False, False, {"cost": 0.0}

    box = spaces.Box(-1.0, 1.0, (1,))
    env = Handle(
        env_id="Handle-v0", observation_space=box, action_space=box, max_episode_steps=5, render_mode=None
    )
    with pytest.raises(TypeError, match=r"^Handle-v0 cannot be copied .* make\('Handle-v0'\)"):
        copied(env)
    assert issubclass(BulletEnv, SimulatorEnv)
