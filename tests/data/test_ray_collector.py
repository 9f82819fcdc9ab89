"""Actors share the environments out, and their data are put together in order; here without Ray."""

import functools

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.env import DummyVectorEnv
from tianshou.policy.base import policy_within_training_step
from toys.envs import LineEnv
from toys.policies import build_cvpo

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer, NonFiniteStepError, RayCollector
from fsrl_ext.data import ray_collector as module
from fsrl_ext.data.randomness import GlobalRandomness, seed_globals
from fsrl_ext.trainer import CostOffpolicyTrainer

N, W, SIZES = 5, 3, (2, 2, 1)


class ActorsHere:
    """Stands for Ray's actors: each object is in this process, with random numbers of its own."""

    def __init__(self, makers, *, owner):
        self.made = [self.apart(make) for make in makers]

    def apart(self, call, state=None):
        """Call with other random numbers than this process's, and return the answer and their state."""
        here = GlobalRandomness().state_dict()
        if state is not None:
            GlobalRandomness().load_state_dict(state)
        try:
            return call(), GlobalRandomness().state_dict()
        finally:
            GlobalRandomness().load_state_dict(here)

    def send(self, name, arguments, shared=()):
        self.calls = [functools.partial(name_of, name, (*own, *shared)) for own in arguments]

    def wait(self):
        pass

    def read(self):
        answers = []
        for i, call in enumerate(self.calls):
            made, state = self.made[i]
            answer, state = self.apart(functools.partial(call, made), state)
            self.made[i] = made, state
            answers.append(answer)
        return answers

    def close(self, *, at_once=False):
        for made, _ in self.made:
            made.close()


def name_of(name, arguments, made):
    return getattr(made, name)(*arguments)


def make_env(**kwargs):
    return gym.wrappers.TimeLimit(LineEnv(**kwargs), 7)


@pytest.fixture
def far(monkeypatch):
    monkeypatch.setattr(module, "RayActors", ActorsHere)

    def make(policy=None, ahead=True, **kwargs):
        collector = RayCollector(
            policy or build_cvpo(),
            functools.partial(make_env, **kwargs),
            CostVectorReplayBuffer(500, N),
            actors=W,
            ahead=ahead,
            seed=5,
            discount=0.9,
            replayable=True,
        )
        collector.reset(gym_reset_kwargs={"seed": list(range(N))})
        return collector

    return make


def test_the_data_are_those_of_a_collector_for_each_actor_in_order(far):
    policy = build_cvpo()
    collector = far(policy)
    stats = [collector.collect(n_step=10 * N), collector.collect(n_step=4 * N)]
    assert collector.collect_step == 14 * N
    first = 0
    for i, size in enumerate(SIZES):
        seed_globals(int(np.random.SeedSequence([5, i]).generate_state(1)[0]))
        envs = DummyVectorEnv([make_env] * size)
        here = CostCollector(policy, envs, CostVectorReplayBuffer(100 * size, size), discount=0.9)
        here.reset(gym_reset_kwargs={"seed": list(range(first, first + size))})
        with policy_within_training_step(policy):
            expected = [here.collect(n_step=10 * size), here.collect(n_step=4 * size)]
        for key, values in here.buffer.arrays.items():
            there = collector.buffer.arrays[key].reshape(N, 100, *values.shape[1:])
            there = there[first : first + size].reshape(values.shape)
            np.testing.assert_array_equal(there, values, err_msg=key)
        for one, reference in zip(stats, expected, strict=True):
            own = (one.env_ids >= first) & (one.env_ids < first + size)
            np.testing.assert_array_equal(one.env_ids[own] - first, reference.env_ids)
            for name in ("returns", "costs", "lens", "discounted_returns", "discounted_costs"):
                np.testing.assert_array_equal(getattr(one, name)[own], getattr(reference, name))
        first += size


def test_a_state_goes_on_as_the_collector_does(far):
    policy = build_cvpo()
    collector, other = far(policy), far(policy)
    collector.collect(n_step=10 * N)
    collector.renew_seeds(range(100, 100 + N))
    collector.start(4 * N)
    assert other.load_state_dict(collector.state_dict())
    for each in (collector, other):
        each.collect(n_step=4 * N)
        each.collect(n_step=20 * N)
    for key, values in collector.buffer.arrays.items():
        np.testing.assert_array_equal(other.buffer.arrays[key], values, err_msg=key)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_trainer_collects_with_the_current_policy_or_one_collect_ahead(far, ahead):
    """Each cycle marks the actor, and the actions of a collect show which cycle's actor took them."""
    policy = build_cvpo()
    collector = far(policy, ahead=ahead)
    cycles = []

    def mark():
        cycles.append(collector.buffer.act[collector.buffer.last_index].mean())
        with torch.no_grad():
            policy.actor.head.bias[:1].fill_(20.0 * (-1) ** len(cycles))
            policy.actor.head.bias[1:].fill_(-20.0)

    trainer = CostOffpolicyTrainer(
        policy=policy,
        train_collector=collector,
        test_collector=None,
        max_epoch=1,
        step_per_epoch=20 * N,
        step_per_collect=4 * N,
        update_per_step=0.05,
        batch_size=8,
        train_seeds=list(range(N)),
        show_progress=False,
    )
    trainer.policy_update_fn = lambda stats: mark()  # and no gradient steps, which would change the mark
    trainer.run()
    # Marks are -1, 1, -1, ... after cycles 1, 2, 3, ...
    lag = 2 if ahead else 1
    assert len(cycles) == 5
    for i in range(lag, 5):
        assert np.sign(cycles[i]) == (-1) ** (i - lag + 1)
        assert abs(cycles[i]) > 0.9


def test_an_error_of_one_actor_resets_all(far):
    collector = far(nan_at=3)
    with pytest.raises(NonFiniteStepError, match="rew of environment 0 is not finite"):
        collector.collect(n_step=10 * N)
    with pytest.warns(UserWarning, match="the last collect failed; all environments are reset"):
        assert collector.collect(n_step=2 * N).n_collected_steps == 2 * N
    assert len(collector.buffer) == 2 * N


def test_there_are_at_most_as_many_actors_as_environments():
    with pytest.raises(ValueError, match="actors must be at most 2, one environment each, got 3"):
        RayCollector(build_cvpo(), make_env, CostVectorReplayBuffer(9, 2), actors=3, ahead=True, seed=0)
