"""Wrong costs, rewards, observations and arguments are refused by name, and the buffer stays clean."""

import pickle

import numpy as np
import pytest
import torch
from tianshou.data import (
    AsyncCollector,
    Batch,
    CachedReplayBuffer,
    CollectStats,
    HERVectorReplayBuffer,
    PrioritizedVectorReplayBuffer,
    ReplayBuffer,
    VectorReplayBuffer,
)
from tianshou.env import DummyVectorEnv, VectorEnvNormObs
from toys.counting import RandomPolicy, check_links
from toys.counting_envs import BadStartEnv, BrokenEnv, CountingEnv, DictEnv

from fsrl_ext.data import (
    CostCollector,
    CostReplayBuffer,
    CostVectorReplayBuffer,
    NonFiniteStepError,
)


def broken_collector(breaks, num_costs=1):
    """Make a collector of three environments, of which environment 1 breaks."""
    fns = [lambda i=i: CountingEnv(i, num_costs) for i in range(3)]
    fns[1] = lambda: BrokenEnv(1, breaks, num_costs)
    buffer = CostVectorReplayBuffer(90, 3, num_costs)
    collector = CostCollector(RandomPolicy(), DummyVectorEnv(fns), buffer)
    collector.reset()
    return collector


def set_cost(value):
    return lambda result: result[4].__setitem__("cost", value)


@pytest.mark.parametrize(
    ("num_costs", "breaks", "message"),
    [
        (1, lambda result: result[4].pop("cost"), r"environment 1 reports no info\['cost'\]"),
        (1, set_cost(np.zeros(2)), r"environment 1 must have num_costs=1 .* got shape \(2,\)"),
        (1, set_cost(np.zeros((1, 1))), r"environment 1 must have num_costs=1 .* \(1, 1\)"),
        (1, set_cost("high"), r"environment 1 must be a number or 1 numbers, got 'high'"),
        (2, lambda result: result[4].pop("cost"), r"environment 1 reports no info\['cost'\]"),
        (2, set_cost(0.5), r"environment 1 must have num_costs=2 entries, got shape \(\)"),
        (2, set_cost([1.0, 2.0, 3.0]), r"num_costs=2 entries, got shape \(3,\)"),
    ],
)
def test_a_missing_or_misshapen_cost_names_the_environment(num_costs, breaks, message):
    collector = broken_collector(breaks, num_costs)
    with pytest.raises(ValueError, match=message):
        collector.collect(n_step=30)
    assert len(collector.buffer) == 6


def test_costs_may_be_int_bool_list_or_array_of_one():
    values = iter([1, True, 0.7, [0.5], np.array([0.25]), np.float32(0.125), np.array(2.0)])
    collector = broken_collector(lambda result: set_cost(next(values))(result))
    collector.collect(n_step=27)
    stored = collector.buffer.cost[30:39, 0]
    np.testing.assert_array_equal(stored[2:], np.float32([1, 1, 0.7, 0.5, 0.25, 0.125, 2.0]))


def put(position, value):
    def breaks(result):
        if isinstance(result[position], np.ndarray):
            result[position][1] = value
        else:
            result[position] = value

    return breaks


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("field", "breaks"),
    [("obs_next", lambda v: put(0, v)), ("rew", lambda v: put(1, v)), ("cost", set_cost)],
)
def test_a_non_finite_step_is_not_stored_and_collection_goes_on_after_a_reset(field, breaks, value):
    collector = broken_collector(breaks(value))
    with pytest.raises(NonFiniteStepError, match=f"^{field} of environment 1 is not finite") as caught:
        collector.collect(n_step=30)
    assert (caught.value.field, caught.value.env_id, caught.value.step) == (field, 1, 9)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert len(collector.buffer) == 6
    assert not collector.buffer.hasnull()
    assert collector.collect_step == collector.buffer.episodes.steps.sum() == 6
    collector.env.venv.workers[1].env.steps = -1000
    with pytest.warns(UserWarning, match="the last collect or reset failed; all environments are reset"):
        stats = collector.collect(n_episode=3)
    assert stats.n_collected_episodes == 3
    check_links(collector.buffer, {(e, k) for e in range(3) for k in range(2)})


def test_non_finite_initial_observations_and_actions_are_named():
    env = DummyVectorEnv([lambda i=i: BadStartEnv(i) for i in range(2)])
    with pytest.raises(NonFiniteStepError, match=r"^obs of environment 1"):
        CostCollector(RandomPolicy(), env).reset()

    policy = RandomPolicy()
    policy.forward = lambda batch, state=None: Batch(act=np.full((len(batch.obs), 2), np.nan))
    collector = CostCollector(policy, DummyVectorEnv([lambda: CountingEnv(0)]))
    collector.reset()
    with pytest.raises(NonFiniteStepError, match=r"^act of environment 0 .* after 0 collected steps"):
        collector.collect(n_step=1)
    assert collector.env.venv.workers[0].env.t == 0  # The environment did not see the action.


def test_a_failed_reset_is_repeated_before_collecting():
    env = CountingEnv(0)
    collector = CostCollector(RandomPolicy(), env)
    with pytest.raises(ValueError, match="reset the collector"):  # It was never reset.
        collector.collect(n_step=1)
    collector.reset()
    collector.collect(n_step=1)
    env._obs = lambda: np.full(4, np.nan)
    with pytest.raises(NonFiniteStepError, match=r"obs of environment 0 .* after 1 collected steps"):
        collector.reset_env()
    del env._obs
    with pytest.warns(UserWarning, match="the last collect or reset failed"):
        assert collector.collect(n_step=8).lens.tolist() == [6]
    check_links(collector.buffer, {(0, 0)})


def test_a_hook_cannot_smuggle_nan_into_the_buffer():
    def hook(action_batch, rollout_batch):
        rollout_batch.rew = rollout_batch.rew * np.nan

    collector = CostCollector(RandomPolicy(), CountingEnv(0), on_step_hook=hook)
    collector.reset()
    with pytest.raises(NonFiniteStepError, match=r"^rew of environment 0 .* after 1 collected steps"):
        collector.collect(n_step=5)
    assert len(collector.buffer) == 0


def test_dictionary_observations_are_checked_and_narrowed():
    collector = CostCollector(RandomPolicy(), DummyVectorEnv([lambda: DictEnv(0)]))
    collector.reset()
    with pytest.raises(NonFiniteStepError, match=r"^obs_next of environment 0"):
        collector.collect(n_step=10)
    assert len(collector.buffer) == 2
    assert collector.buffer.obs.a.dtype == np.float32
    assert collector.buffer.obs.b.dtype.kind == "i"


def stock_buffers():
    """Make one buffer of each kind, with arguments that Tianshou accepts."""
    her = {"compute_reward_fn": lambda a, g: np.zeros(len(a)), "horizon": 5, "future_k": 1}
    yield ReplayBuffer(10)
    yield VectorReplayBuffer(10, 1)
    yield PrioritizedVectorReplayBuffer(10, 1, alpha=0.5, beta=0.5)
    yield HERVectorReplayBuffer(10, 1, **her)
    yield CachedReplayBuffer(ReplayBuffer(10), 1, 5)


@pytest.mark.parametrize("buffer", list(stock_buffers()), ids=lambda buffer: type(buffer).__name__)
def test_stock_buffers_are_refused(buffer):
    with pytest.raises(TypeError, match=f"got {type(buffer).__name__}, which does not store costs"):
        CostCollector(RandomPolicy(), CountingEnv(0), buffer)


def test_wrong_arguments_of_the_collector_are_named():
    env = DummyVectorEnv([lambda i=i: CountingEnv(i) for i in range(2)])
    policy = RandomPolicy()
    with pytest.raises(ValueError, match="num_costs=3, but the buffer has 1"):
        CostCollector(policy, env, CostVectorReplayBuffer(10, 2), num_costs=3)
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\], got 1.5"):
        CostCollector(policy, env, discount=1.5)
    with pytest.raises(TypeError, match=r"collect_stats_class must be .* got CollectStats"):
        CostCollector(policy, env, collect_stats_class=CollectStats)
    with pytest.raises(ValueError, match="env_num=2"):
        CostCollector(policy, env, CostVectorReplayBuffer(10, 1))
    with pytest.raises(ValueError, match="Cannot use CostReplayBuffer"):
        CostCollector(policy, env, CostReplayBuffer(10))


def test_asynchronous_environments_and_collectors_are_refused():
    env = DummyVectorEnv([lambda i=i: CountingEnv(i) for i in range(2)], wait_num=1)
    with pytest.raises(ValueError, match="CostCollector needs synchronous environments"):
        CostCollector(RandomPolicy(), env)
    # Tianshou's AsyncCollector works only with one number per action and with a policy entry.
    policy = RandomPolicy()
    entry = Batch(entry=np.zeros(2))
    policy.forward = lambda batch, state=None: Batch(act=np.zeros(len(batch.obs)), policy=entry)
    with pytest.warns(UserWarning, match="async"):
        collector = AsyncCollector(policy, env, CostVectorReplayBuffer(10, 2))
    collector.reset()
    with pytest.raises(ValueError, match=r"no `cost`: collect with .*CostCollector.*AsyncCollector"):
        collector.collect(n_step=2)


def test_what_a_wrapped_environment_offers_stays_reachable():
    env = VectorEnvNormObs(DummyVectorEnv([lambda: CountingEnv(0)]))
    collector = CostCollector(RandomPolicy(), env)
    collector.reset()
    collector.collect(n_step=5)
    assert collector.env.get_obs_rms() is env.get_obs_rms()
    assert collector.env.action_space[0] == CountingEnv.action_space
    with pytest.raises(AttributeError):
        _ = collector.env.no_such_thing
    assert torch.is_grad_enabled()
