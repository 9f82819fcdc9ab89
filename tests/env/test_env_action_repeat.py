"""Actions that last for several steps: sums over a decision, its end, and the time limit in decisions."""

import gymnasium
import numpy as np
import pytest
from toys.counting_envs import CountingEnv, length

from fsrl_ext.env import ActionRepeat, env_fn, make, make_joint, time_limit


def play(env, actions, seed=0):
    """Return what each step of an episode gives, until the actions or the episode end."""
    env.reset(seed=seed)
    steps = []
    for action in actions:
        steps.append(env.step(action))
        if steps[-1][2] or steps[-1][3]:
            break
    return steps


@pytest.mark.parametrize("num_costs", [1, 2])
@pytest.mark.parametrize("repeat", [2, 3, 4])
def test_a_decision_sums_its_steps_and_ends_with_the_episode(repeat, num_costs):
    action = np.zeros(2)
    for episode in range(5):
        single = play(CountingEnv(1, num_costs, episode), [action] * 10)
        decided = play(ActionRepeat(CountingEnv(1, num_costs, episode), repeat), [action] * 10)
        steps = length(1, episode)
        assert len(single) == steps
        assert len(decided) == int(np.ceil(steps / repeat))
        for i, (obs, rew, terminated, truncated, info) in enumerate(decided):
            part = single[i * repeat : (i + 1) * repeat]
            np.testing.assert_array_equal(obs, part[-1][0])
            assert rew == pytest.approx(sum(step[1] for step in part))
            np.testing.assert_allclose(info["cost"], sum(step[4]["cost"] for step in part))
            assert (terminated, truncated) == part[-1][2:4]
            assert info["extra"] == part[-1][4]["extra"]


@pytest.mark.parametrize("id", ["SafetyPointGoal1-v0", "SafetyBallRun-v0", "SafetyHopperVelocity-v1"])
def test_a_repeated_action_is_the_action_given_again_in_real_tasks(id):
    joint, stock = make_joint(id, action_repeat=4, max_episode_steps=42), make(id, max_episode_steps=42)
    actions = np.random.default_rng(0).uniform(-1, 1, (11, *joint.action_space.shape)).astype(np.float32)
    decided = play(joint, actions)
    single = play(stock, np.repeat(actions, 4, axis=0))
    np.testing.assert_array_equal(decided[-1][0], single[-1][0])
    for what in (lambda step: step[1], lambda step: step[4]["cost"]):
        assert sum(map(what, decided)) == pytest.approx(sum(map(what, single)), abs=1e-9)
    assert decided[-1][2:4] == single[-1][2:4]
    if single[-1][3]:
        assert len(decided) == time_limit(joint) == 11
    for env in (joint, stock):
        env.close()


def test_the_time_limit_is_that_of_calls_and_the_specification_builds_the_same():
    env = make_joint("ToyLine-v0", action_repeat=3)
    assert (time_limit(env), time_limit(make("ToyLine-v0"))) == (7, 20)
    again = gymnasium.make(env.spec)
    assert time_limit(again) == 7
    actions = [env.action_space.sample() for _ in range(7)]
    for one, other in zip(play(env, actions), play(again, actions), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1] == other[1]
        assert one[4]["cost"] == other[4]["cost"]
    assert time_limit(env_fn("ToyLine-v0", action_repeat=3)()) == 7


def test_without_repetition_there_is_no_wrapper():
    assert not isinstance(make_joint("ToyLine-v0", action_repeat=1), ActionRepeat)


@pytest.mark.parametrize("repeat", [0, -1, 1.5, True])
def test_a_number_of_steps_is_a_whole_number_from_one(repeat):
    with pytest.raises((TypeError, ValueError), match="repeat must be"):
        make_joint("ToyLine-v0", action_repeat=repeat)
    with pytest.raises((TypeError, ValueError), match="repeat must be"):
        ActionRepeat(CountingEnv(0), repeat)


def test_a_film_has_a_frame_for_each_decision():
    env = make_joint("SafetyPointGoal1-v0", action_repeat=4)
    assert env.metadata["render_fps"] == make("SafetyPointGoal1-v0").metadata["render_fps"] / 4
    env.close()


def test_a_team_decides_for_several_steps_too():
    env = make_joint("SafetyAntVelocity-2x4-v0", action_repeat=5, max_episode_steps=20)
    assert time_limit(env) == 4
    steps = play(env, [env.action_space.sample() for _ in range(4)])
    assert steps[-1][3] or steps[-1][2]
    env.close()
