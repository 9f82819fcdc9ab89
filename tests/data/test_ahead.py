"""Collecting ahead gives the same data in another process and in turn, and errors arrive here."""

import functools
import os
import signal

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.env import DummyVectorEnv
from tianshou.policy.base import policy_within_training_step
from toys.envs import ForgetfulEnv, LineEnv
from toys.policies import assert_same_state, build_cvpo
from toys.resources import held

from fsrl_ext.data import AheadCollector, CostCollector, CostVectorReplayBuffer, NonFiniteStepError
from fsrl_ext.trainer import CostOffpolicyTrainer

N = 3


def envs(count=N, kind=LineEnv, **kwargs):
    return DummyVectorEnv([lambda: gym.wrappers.TimeLimit(kind(**kwargs), 7)] * count)


@pytest.fixture
def ahead():
    made = []

    def make(policy=None, seed=5, replayable=False, cores=2, **kwargs):
        policy = policy or build_cvpo()
        buffer = CostVectorReplayBuffer(300, N)
        make_envs = functools.partial(envs, **kwargs)
        settings = {"seed": seed, "discount": 0.9, "replayable": replayable, "cores": cores}
        made.append(AheadCollector(policy, make_envs, buffer, **settings))
        made[-1].reset(gym_reset_kwargs={"seed": list(range(N))})
        return made[-1]

    yield make
    for collector in made:
        collector.close()


@pytest.mark.usefixtures("new_interpreters")
@pytest.mark.parametrize("cores", [1, 2])
def test_collects_what_a_collector_here_would(cores, ahead):
    policy = build_cvpo()
    other = ahead(policy, cores=cores)
    stats = [other.collect(n_step=30), other.collect(n_step=12), other.collect(n_step=60)]
    torch.manual_seed(5)
    here = CostCollector(policy, envs(), CostVectorReplayBuffer(300, N), discount=0.9)
    here.reset(gym_reset_kwargs={"seed": list(range(N))})
    torch.manual_seed(5)
    with policy_within_training_step(policy):
        expected = [here.collect(n_step=30), here.collect(n_step=12), here.collect(n_step=60)]
    for key, values in here.buffer._meta.items():
        np.testing.assert_array_equal(other.buffer._meta[key], values, err_msg=key)
    assert len(other.buffer) == len(here.buffer) == 102
    assert other.buffer.last_index.tolist() == here.buffer.last_index.tolist()
    assert other.collect_step == 102
    assert other.collect_episode == here.collect_episode
    for one, reference in zip(stats, expected, strict=True):
        np.testing.assert_array_equal(one.costs, reference.costs)
        np.testing.assert_array_equal(one.discounted_returns, reference.discounted_returns)


@pytest.mark.parametrize("cores", [1, 2])
def test_acts_with_the_parameters_of_the_start(cores, ahead):
    """A collect that began before a change is the old policy's, and the next one is the new policy's."""
    policy = build_cvpo()
    collector = ahead(policy, cores=cores)
    with torch.no_grad():
        policy.actor.head.bias[:1].fill_(20.0)
        policy.actor.head.bias[1:].fill_(-20.0)
        collector.start(30)
        policy.actor.head.bias[:1].fill_(-20.0)
        collector.collect(n_step=30)
        assert collector.buffer.act[collector.buffer.sample_indices(0)].min() > 0.99
        collector.collect(n_step=30)
    newest = np.concatenate([i + np.arange(-9, 1) for i in collector.buffer.last_index])
    assert collector.buffer.act[newest].max() < -0.99


@pytest.mark.parametrize("cores", [1, 2])
def test_collects_must_match_what_was_begun_and_resets_drop_it(cores, ahead):
    collector = ahead(cores=cores)
    collector.start(30)
    with pytest.raises(RuntimeError, match="a collect of 30 steps is under way"):
        collector.start(30)
    with pytest.raises(ValueError, match=r"\(30, False\) was begun, got \(12, False\)"):
        collector.collect(n_step=12)
    assert collector.collect(n_step=30).n_collected_steps == 30
    with pytest.raises(ValueError, match="by n_step alone"):
        collector.collect(n_episode=3)
    collector.reset()
    collector.start(30)
    collector.reset_env({"seed": [1, 2, 3]})
    assert len(collector.buffer) == 0
    assert collector.collect(n_step=12).n_collected_steps == 12


@pytest.mark.parametrize("cores", [1, 2])
def test_errors_of_the_other_process_arrive_and_the_collector_goes_on(cores, ahead):
    collector = ahead(nan_at=3, cores=cores)
    collector.start(30)
    with pytest.raises(NonFiniteStepError, match="rew of environment 0 is not finite") as caught:
        collector.collect(n_step=30)
    if cores == 2:
        assert "in check_finite" in str(caught.value.__cause__)  # the traceback of the other process
    with pytest.warns(UserWarning, match="the last collect failed; all environments are reset"):
        assert collector.collect(n_step=12).n_collected_steps == 12
    assert len(collector.buffer) == collector.collect_step == 12
    before = held()
    with pytest.raises(ValueError, match="make_envs must build 3 environments, built 2"):
        AheadCollector(
            build_cvpo(), functools.partial(envs, 2), CostVectorReplayBuffer(300, N), seed=0, cores=cores
        )
    assert held() == before
    with pytest.raises(TypeError, match="buffer must be a CostVectorReplayBuffer"):
        AheadCollector(build_cvpo(), envs, None, seed=0)


def test_ctrl_c_loses_no_answer(ahead):
    collector = ahead(replayable=True)

    def interrupted(call):
        """Call while the other process is stopped, until a signal comes."""
        os.kill(collector._worker.process.pid, signal.SIGSTOP)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(KeyboardInterrupt):
                call()
        finally:
            os.kill(collector._worker.process.pid, signal.SIGCONT)

    former = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        interrupted(lambda: collector.collect(n_step=30))
        assert collector.collect(n_step=30).n_collected_steps == 30
        interrupted(collector.state_dict)
        assert collector.collect(n_step=12).n_collected_steps == 12
        assert collector.state_dict()["counters"][0] == len(collector.buffer) == 42
    finally:
        signal.signal(signal.SIGALRM, former)
    collector.close()
    with pytest.raises(RuntimeError, match="the collector is closed"):
        collector.collect(n_step=30)


class Interrupting(LineEnv):
    """Raises ``KeyboardInterrupt`` at its second step, as Ctrl-C may."""

    steps = 0

    def step(self, action):
        Interrupting.steps += 1
        if Interrupting.steps == 2 * N:
            raise KeyboardInterrupt
        return super().step(action)


def test_ctrl_c_in_a_collect_in_turn_loses_that_collect(ahead, monkeypatch):
    monkeypatch.setattr(Interrupting, "steps", 0)
    collector = ahead(kind=Interrupting, cores=1)
    before = torch.get_rng_state(), torch.get_num_threads()
    collector.start(30)
    with pytest.raises(KeyboardInterrupt):
        collector.collect(n_step=30)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    with pytest.warns(UserWarning, match="the last collect failed; all environments are reset"):
        assert collector.collect(n_step=12).n_collected_steps == 12
    assert len(collector.buffer) == collector.collect_step == 12
    collector.close()
    with pytest.raises(RuntimeError, match="the collector is closed"):
        collector.collect(n_step=30)


def test_what_is_drawn_here_changes_nothing_in_turn_and_the_other_way_round(ahead):
    collector = ahead(cores=1)
    np.random.seed(1)  # noqa: NPY002 - the global generators are what this is about
    torch.manual_seed(1)
    expected = np.random.random(), torch.rand(3)  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    collector.collect(n_step=30)
    assert np.random.random() == expected[0]  # noqa: NPY002
    assert torch.equal(torch.rand(3), expected[1])


def data_of(collector):
    return {key: values.copy() for key, values in collector.buffer._meta.items()}


def test_each_way_goes_on_from_the_others_state(ahead):
    """Also with a collect under way, and in global generators that the learner has drawn from."""
    policy = build_cvpo()
    first = {cores: ahead(policy, cores=cores, replayable=True) for cores in (1, 2)}
    states = {}
    for cores, collector in first.items():
        torch.rand(cores)
        collector.collect(n_step=30)
        collector.start(12)
        states[cores] = collector.state_dict()
    expected = None
    for cores in (1, 2):
        other = ahead(policy, cores=3 - cores, seed=8, replayable=True)
        assert other.load_state_dict(states[cores])
        for collector in (other, first[cores]):
            collector.collect(n_step=12)
            collector.collect(n_step=60)
            expected = expected or data_of(collector)
            for key, values in data_of(collector).items():
                np.testing.assert_array_equal(values, expected[key], err_msg=key)
    one, other = (first[cores].state_dict()["worker"]["randomness"] for cores in (1, 2))
    assert one["python"] == other["python"]
    assert torch.equal(one["torch"], other["torch"])


def test_an_ended_process_is_an_error_not_a_hang(ahead):
    collector = ahead()
    os.kill(collector._worker.process.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="the collecting process has ended"):
        collector.collect(n_step=30)


def test_trains_the_same_run_twice_in_another_process_and_in_turn(ahead):
    def run(cores):
        policy = build_cvpo()
        trainer = CostOffpolicyTrainer(
            policy=policy,
            train_collector=ahead(policy, cores=cores),
            test_collector=None,
            max_epoch=2,
            step_per_epoch=90,
            step_per_collect=60,
            update_per_step=0.2,
            batch_size=32,
            warmup_steps=60,
            show_progress=False,
            train_seeds=list(range(N)),
        )
        trainer.run()
        assert trainer.env_step == 180
        assert trainer._gradient_step == 24
        return policy.state_dict()

    expected = run(2)
    assert_same_state(expected, run(2))
    assert_same_state(expected, run(1))


def test_what_was_under_way_goes_with_episodes_that_cannot_be_repeated(ahead):
    collector = ahead(replayable=True, kind=ForgetfulEnv)
    collector.collect(n_step=30)
    collector.start(12)
    assert len(collector.buffer.unfinished_index()) == N
    assert not collector.load_state_dict(collector.state_dict())
    assert len(collector.buffer.unfinished_index()) == 0
    assert len(collector.buffer) == 30
    # Every episode has seven steps, so nothing of the old ones is left.
    assert collector.collect(n_step=7 * N).lens.tolist() == [7] * N
