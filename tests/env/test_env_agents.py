"""Check tasks of several agents: the contract, safety-gymnasium's divided robots, and the team as one."""

import pickle
import re
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo.test import parallel_api_test
from tianshou.env import DummyVectorEnv, SubprocVectorEnv
from toys.teams import ThrottlesEnv

from fsrl_ext.data.env_workers import build_grouped_vector
from fsrl_ext.env import (
    ContractError,
    MissingCostError,
    UnknownTaskError,
    can_terminate,
    env_fn,
    list_tasks,
    make,
    make_joint,
    time_limit,
)
from fsrl_ext.env.agents import ParallelCostEnv, TeamEnv
from fsrl_ext.env.observations import unflat_part
from fsrl_ext.env.suite_tasks import DIVIDED_ROBOTS

TOY = "toys.teams:make_throttles"
LEAVER = "toys.teams:make_leaver"


def wrapped(**arguments):
    return ParallelCostEnv(ThrottlesEnv(**arguments), env_id="throttles")


def actions_of(env, value=0.0):
    return {name: np.full(env.action_space(name).shape, value, np.float32) for name in env.agents}


@pytest.mark.parametrize("id", DIVIDED_ROBOTS)
def test_divided_robots_pass_the_test_of_pettingzoo(id):
    pytest.importorskip("mujoco")
    (task,) = [x for x in list_tasks() if x.id == id]
    env = make(id)
    assert (len(env.possible_agents), env.max_episode_steps) == (task.num_agents, task.horizon)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(env, num_cycles=30)
        env = make(id, max_episode_steps=9)
        parallel_api_test(env, num_cycles=30)
    env.reset(seed=0)
    cuts = []
    while env.agents:
        observations, rewards, _, truncations, infos = env.step(
            {name: env.action_space(name).sample() for name in env.agents}
        )
        cuts.append(any(truncations.values()))
        assert {info["cost"] for info in infos.values()} <= {0.0, 1.0}
        assert len({(info["cost"], rewards[name]) for name, info in infos.items()}) == 1
        for name, obs in observations.items():
            assert obs.dtype == np.float32
            assert env.observation_space(name).contains(obs)
    assert not any(cuts[:-1])
    assert cuts[-1] == (len(cuts) == 9)
    assert can_terminate(id) is task.can_terminate
    env.close()
    env.close()


def test_a_divided_robot_is_the_package_s_own():
    pytest.importorskip("mujoco")
    from safety_gymnasium.tasks.safe_multi_agent.safe_mujoco_multi import SafeMAEnv

    stock, mine = SafeMAEnv("Swimmer", "2x1"), make("SafetySwimmerVelocity-2x1-v0")
    seen = stock.reset(seed=3)[0], mine.reset(seed=3)[0]
    rng = np.random.default_rng(0)
    costs = []
    for _ in range(30):
        actions = {name: rng.uniform(-1, 1, 1).astype(np.float32) for name in mine.agents}
        theirs, ours = stock.step(actions), mine.step(actions)
        seen = theirs[0], ours[0]
        for name in mine.agents:
            np.testing.assert_array_equal(seen[0][name].astype(np.float32), seen[1][name])
            assert (theirs[1][name], theirs[2][name]) == (ours[1][name], ours[4][name]["cost"])
        costs.append(theirs[2]["agent_0"])
    assert set(costs) == {0.0, 1.0}


def test_the_same_seed_gives_the_same_episodes():
    pytest.importorskip("mujoco")

    def episode():
        env = make_joint("SafetyHopperVelocity-3x1-v0", max_episode_steps=8)
        observations = [env.reset(seed=5)[0]]
        for _ in range(4):
            obs, reward, *_ = env.step(env.action_space.sample())
            observations.append(np.append(obs, reward))
        return np.concatenate(observations)

    np.testing.assert_array_equal(episode(), episode())


@pytest.mark.parametrize("id", [TOY, LEAVER, "toys.teams:make_shared"])
def test_own_tasks_pass_the_test_of_pettingzoo(id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(make(id), num_cycles=50)
    env = make(id, max_episode_steps=5)
    parallel_api_test(env, num_cycles=50)
    assert env.max_episode_steps == 5


def test_agents_that_leave_early_take_no_further_part():
    env = make(LEAVER)
    env.reset(seed=0)
    present = []
    while env.agents:
        present.append(list(env.agents))
        observations, *_, infos = env.step(actions_of(env))
        assert list(observations) == list(infos) == present[-1]
    assert [len(x) for x in present] == [2] * 7 + [1] * 33


def test_the_team_is_one_environment():
    env = make_joint(TOY)
    assert isinstance(env, TeamEnv)
    assert (env.agent_names, env.obs_dims, env.act_dims) == (("slow", "fast"), (2, 3), (1, 2))
    assert time_limit(env) == 40
    obs, _ = env.reset(seed=1)
    own, _ = make(TOY).reset(seed=1)
    np.testing.assert_array_equal(obs, np.concatenate([own["slow"], own["fast"], [1, 1]]))
    assert obs in env.observation_space
    obs, reward, terminated, truncated, info = env.step(np.array([1.0, -1.0, 0.0], np.float32))
    # Throttles 1, and 0 and 1/2.
    assert reward == pytest.approx(1.75)
    assert info["cost"] == pytest.approx(10 * 1.25 / 40)
    np.testing.assert_allclose(info["agent_costs"], [0.25, 0.0625])
    np.testing.assert_allclose(info["agent_rewards"], [1, 0.75])
    while not truncated:
        assert not terminated
        *_, terminated, truncated, info = env.step(np.array([1.0, -1.0, 0.0], np.float32))
    assert env.last_episode.lens == (40, 40)
    assert env.last_episode.costs == pytest.approx((10, 2.5))
    assert env.last_episode.returns == pytest.approx((40, 30))
    assert env.reset()[0] in env.observation_space


def test_costs_per_agent_and_shared_ones():
    env = make_joint(TOY, cost_unit="agent")
    env.reset(seed=0)
    *_, info = env.step(np.array([1.0, -1.0, 0.0], np.float32))
    np.testing.assert_allclose(info["cost"], [0.25, 0.0625])
    assert info["cost"].dtype == np.float32
    shared, apart = make_joint("toys.teams:make_shared"), make_joint(TOY)
    answers = []
    for env in (shared, apart):
        env.reset(seed=0)
        answers.append(env.step(np.array([1.0, -1.0, 0.0], np.float32)))
    assert answers[0][1] == pytest.approx(answers[1][1])
    assert answers[0][4]["cost"] == pytest.approx(answers[1][4]["cost"])
    with pytest.raises(
        ValueError, match=r"cost_unit must be 'team' for toys.teams:make_shared, whose agents"
    ):
        make_joint("toys.teams:make_shared", cost_unit="agent")
    with pytest.raises(ValueError, match=r"cost_unit must be one of .*got 'each'"):
        make_joint(TOY, cost_unit="each")


def test_the_team_goes_on_without_an_agent_that_left():
    env = make_joint(LEAVER, cost_unit="agent")
    env.reset(seed=0)
    for step in range(1, 41):
        obs, reward, terminated, truncated, info = env.step(np.array([1.0, 1.0, 1.0], np.float32))
        gone = step >= 7
        # The state after the step shows who acts next; the state at the time limit, whom the limit stopped.
        assert obs[-2:].tolist() == [float(not gone), 1.0]
        assert (obs[:2] == 0).all() == gone
        np.testing.assert_allclose(info["cost"], [0.25 * (step <= 7), 0.25])
        assert reward == pytest.approx(2.0 + (step <= 7))
        assert (terminated, truncated) == (False, step == 40)
    assert env.last_episode.lens == (7, 40)


def test_the_last_agent_decides_how_an_episode_ends():
    class LastTerminates(ThrottlesEnv):
        def step(self, actions):
            *answer, left, over, infos = super().step(actions)
            if self.steps == 2:
                over["fast"] = True
                self.agents = ["slow"]
            if self.steps == 3:
                left["slow"] = True
                self.agents = []
            return *answer, left, over, infos

    env = TeamEnv(ParallelCostEnv(LastTerminates(), env_id="x"))
    env.reset(seed=0)
    ends = [env.step(np.zeros(3, np.float32))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (True, False)]


@pytest.mark.parametrize("kind", [DummyVectorEnv, SubprocVectorEnv, "grouped"])
def test_workers_build_teams(kind):
    make_env = pickle.loads(pickle.dumps(env_fn(TOY, cost_unit="agent")))
    vector = build_grouped_vector(make_env, 2, 1) if kind == "grouped" else kind([make_env] * 2)
    obs, _ = vector.reset(seed=4)
    np.testing.assert_array_equal(obs[1], make_joint(TOY).reset(seed=4)[0])
    *_, infos = vector.step(np.ones((2, 3), np.float32))
    assert [list(info["cost"]) for info in infos] == [[0.25, 0.25]] * 2
    vector.close()


def test_one_agent_is_the_environment_of_make():
    env = make_joint("ToyLine-v0", cost_unit="agent")
    assert not isinstance(env, TeamEnv)
    assert env.reset(seed=0)[0].shape == (2,)


class Broken(ThrottlesEnv):
    """Changes one answer of a step or of a reset.

    :param part: 0 to 4 of the step, or "reset", "all" for the whole step, "names" after a reset.
    :param change: maps the right part to the wrong one.
    """

    def __init__(self, part, change):
        super().__init__()
        self.part, self.change = part, change

    def reset(self, **kwargs):
        answer = super().reset(**kwargs)
        if self.part == "names":
            self.agents = self.change(self.agents)
        return self.change(answer) if self.part == "reset" else answer

    def step(self, actions):
        answer = list(super().step(actions))
        if self.part == "all":
            return self.change(tuple(answer))
        if self.part == "join":
            self.agents = ["slow", "fast", "third"]
        elif self.part == "drop":
            self.agents = ["fast"]
        elif isinstance(self.part, int):
            answer[self.part] = self.change(answer[self.part])
        return tuple(answer)


def without_slow(part):
    return {name: x for name, x in part.items() if name != "slow"}


@pytest.mark.parametrize(
    ("part", "change", "error", "message"),
    [
        ("reset", lambda x: x[0], ContractError, "broken: reset must return .*got an object of type dict"),
        ("reset", lambda x: ({}, x[1]), ContractError, "observations of reset must have .* none for .'slow'"),
        ("names", lambda x: ["tall"], ContractError, r"agents must be some of .*got \['tall'\]"),
        ("names", lambda x: [], ContractError, r"agents must be some of .*got \[\]"),
        ("all", lambda x: x[:4], ContractError, "broken: step must return .*got 4 values of types dict"),
        ("all", lambda x: (1, *x[1:]), ContractError, "five dictionaries, got 5 values of types int, dict"),
        (0, without_slow, ContractError, r"observations of step must have .*got none for \['slow'\]"),
        (1, without_slow, ContractError, r"rewards of step must have .*got none for \['slow'\]"),
        (4, without_slow, ContractError, r"infos of step must have .*got none for \['slow'\]"),
        (4, lambda x: {**x, "fast": {}}, MissingCostError, 'broken, fast, step 1: info has no "cost"'),
        ("join", None, ContractError, r"no agent may join an episode, got \['third'\]"),
    ],
)
def test_what_breaks_the_contract_is_named(part, change, error, message):
    env = ParallelCostEnv(Broken(part, change), env_id="broken")

    def first_step():
        env.reset(seed=0)
        env.step(actions_of(env))

    with pytest.raises(error, match=message):
        first_step()


def test_an_agent_that_is_listed_no_more_was_cut_off():
    env = ParallelCostEnv(Broken("drop", None), env_id="broken")
    env.reset(seed=0)
    *_, terminations, truncations, _ = env.step(actions_of(env))
    assert (terminations["slow"], truncations["slow"], env.agents) == (False, True, ["fast"])


def test_a_step_needs_a_reset_and_all_actions():
    env = wrapped()
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"throttles: call reset\(\) before step"):
        env.step({})
    env.reset(seed=0)
    with pytest.raises(ContractError, match=r"actions must have an entry .*got none for \['fast'\]"):
        env.step({"slow": np.zeros(1)})


def test_names_that_are_no_task_of_several_agents():
    with pytest.raises(UnknownTaskError, match=r"unknown task 'nothing'"):
        make("toys.teams:nothing")
    with pytest.raises(UnknownTaskError, match=r"unknown task 'NOT_CALLABLE'"):
        make("toys.teams:NOT_CALLABLE")
    with pytest.raises(
        ContractError, match=r"must build a pettingzoo.ParallelEnv, got .* Env; register_task"
    ):
        make("toys.teams:make_single")
    with pytest.raises(ContractError, match=r"make_numbers must build .* got an object of type int$"):
        make("toys.teams:make_numbers")
    env = ThrottlesEnv()
    env.possible_agents = []
    with pytest.raises(ContractError, match=r"x: possible_agents must list the agents' names, got \[\]"):
        ParallelCostEnv(env, env_id="x")


def test_spaces_that_a_team_cannot_have():
    class Other(ThrottlesEnv):
        pass

    env = Other()
    env.actions = {**env.actions, "fast": spaces.Discrete(3)}
    with pytest.raises(ValueError, match=r"x: the actions of fast must be a Box .*got Discrete\(3\)"):
        TeamEnv(ParallelCostEnv(env, env_id="x"))
    env = Other()
    env.spaces = {**env.spaces, "slow": spaces.Sequence(spaces.Box(0.0, 1.0))}
    with pytest.raises(ValueError, match=r"x, slow: the observation space is no space of numbers, Sequence"):
        TeamEnv(ParallelCostEnv(env, env_id="x"))


def test_dictionaries_of_observations_become_vectors():
    class Dictionaries(ThrottlesEnv):
        def observation_space(self, agent):
            return self.parts

        parts = spaces.Dict(
            {"a": spaces.Box(-1.0, 1.0, (2, 2), np.float64), "b": spaces.Box(-1.0, 1.0, (1,), np.float64)}
        )

        def observe(self):
            return {name: {"a": np.eye(2), "b": np.full(1, 0.5)} for name in self.agents}

    env = TeamEnv(ParallelCostEnv(Dictionaries(), env_id="x"))
    obs, _ = env.reset(seed=0)
    assert obs.tolist() == [1, 0, 0, 1, 0.5] * 2 + [1, 1]
    assert env.obs_dims == (5, 5)


OBSERVED = {
    "vector": spaces.Box(-1.0, 1.0, (3,), np.float64),
    "matrix": spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    "parts": spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Box(-1.0, 1.0, (2,), np.float32)}),
    "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
    "camera": spaces.Dict({"camera": spaces.Box(0, 255, (4, 4, 3), np.uint8), "state": spaces.Discrete(2)}),
    "list": spaces.Sequence(spaces.Discrete(2)),
}


@pytest.mark.parametrize("space", OBSERVED.values(), ids=OBSERVED)
def test_a_team_and_one_agent_agree_on_what_becomes_a_vector(space):
    own = ThrottlesEnv()
    own.spaces["fast"] = space
    env = ParallelCostEnv(own, env_id="throttles")
    unflat = unflat_part(env.observation_space("fast"))
    if unflat is None:
        assert TeamEnv(env).obs_dims[1] == spaces.flatdim(space)
    else:
        with pytest.raises(ValueError, match=f"throttles, fast: {re.escape(unflat)}; leave it out of"):
            TeamEnv(env)


def test_what_an_agent_observes_is_in_the_order_of_gymnasium():
    class PartsEnv(ThrottlesEnv):
        def observe(self):
            return {"slow": np.zeros(2), "fast": {"b": 2, "a": np.array([0.25, 0.5], np.float32)}}

    own = PartsEnv()
    own.spaces["fast"] = OBSERVED["parts"]
    team = TeamEnv(ParallelCostEnv(own, env_id="throttles"))
    assert team.reset(seed=0)[0].tolist() == [0, 0, 0.25, 0.5, 0, 0, 1, 1, 1]
