"""After an exception in an environment, and after Ctrl-C, a collector goes on, and nothing is half-stored."""

import os
import pickle
import signal

import numpy as np
import pytest
from tianshou.env import DummyVectorEnv, ShmemVectorEnv, SubprocVectorEnv, VectorEnvNormObs
from toys.counting import RandomPolicy, check_links
from toys.counting_envs import AwkwardError, BrokenEnv, CountingEnv, FailingEnv, SleepyEnv

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer, ProcessEndedError
from fsrl_ext.data.env_groups import EnvGroup, GroupedVectorEnv, LocalGroup, split_evenly
from fsrl_ext.data.interrupts import InterruptGuard
from fsrl_ext.data.remote_errors import RemoteError
from fsrl_ext.data.worker_env import WorkerEnvFn

N = 3
ABANDONED = {(e, k) for e in range(N) for k in range(9)}


def answering(env_fns):
    return ShmemVectorEnv([WorkerEnvFn(fn) for fn in env_fns])


def normalised(env_fns):
    return VectorEnvNormObs(SubprocVectorEnv(env_fns), update_obs_rms=False)


def grouped(env_fns):
    return GroupedVectorEnv([EnvGroup(fns) for fns in split_evenly([WorkerEnvFn(fn) for fn in env_fns], 2)])


def with_own_share(env_fns):
    return GroupedVectorEnv([LocalGroup(env_fns[:2]), EnvGroup([WorkerEnvFn(env_fns[2])])])


VECTORS = {
    "grouped": grouped,
    "own share": with_own_share,
    "here": DummyVectorEnv,
    "subproc": SubprocVectorEnv,
    "shmem": ShmemVectorEnv,
    "answering": answering,
    "wrapped": normalised,
}


def collector_of(vector, make_env, size=60):
    envs = VECTORS[vector]([lambda i=i: make_env(i) for i in range(N)])
    collector = CostCollector(RandomPolicy(), envs, CostVectorReplayBuffer(size, N))
    collector.reset(gym_reset_kwargs={"seed": [1, 2, 3]})
    return collector


def assert_goes_on(collector):
    """Assert that all steps so far are stored and counted, and that the next collect has new episodes."""
    buffer = collector.buffer
    rows = len(buffer)
    assert rows == collector.collect_step == buffer.episodes.steps.sum() > 0
    done = int(buffer.done[buffer.sample_indices(0)].sum())
    assert done == collector.collect_episode == buffer.episodes.count
    with pytest.warns(UserWarning, match="all environments are reset and new episodes begin"):
        collector.collect(n_step=2 * N)
    assert len(buffer) == rows + 2 * N
    # Answers of the former steps would show another time.
    for newest in buffer.last_index:
        assert buffer.obs[[newest - 1, newest], 2].tolist() == [0.0, 1.0]
    check_links(buffer, ABANDONED)
    collector.close()


@pytest.mark.parametrize("where", ["step", "reset"])
@pytest.mark.parametrize("vector", ["here", "answering", "grouped", "own share"])
def test_an_exception_arrives_as_it_is_and_names_the_environment(vector, where):
    collector = collector_of(vector, lambda i: FailingEnv(i, where, KeyError("no such place")))
    worker = collector.env.venv.workers[1]
    with pytest.raises(KeyError, match="no such place") as caught:
        collector.collect(n_step=20 * N)
    assert caught.value.__notes__ == ["raised by environment 1 of the collector"]
    if vector not in ("here", "own share"):
        assert "in _fail" in str(caught.value.__cause__)  # the traceback of the environment's process
    assert_goes_on(collector)
    assert collector.env.venv.workers[1] is worker  # The process goes on.


@pytest.mark.parametrize("where", ["step", "reset"])
@pytest.mark.parametrize("vector", ["subproc", "shmem"])
def test_a_process_that_ends_is_replaced(vector, where, capfd):
    collector = collector_of(vector, lambda i: FailingEnv(i, where, RuntimeError("its own traceback")))
    with pytest.raises(ProcessEndedError, match=r"the process of environment 1 has ended \(exit code 1\)"):
        collector.collect(n_step=20 * N)
    assert "RuntimeError: its own traceback" in capfd.readouterr().err
    assert_goes_on(collector)


def test_a_process_that_is_killed_is_replaced_also_behind_a_wrapper():
    collector = collector_of("shmem", lambda i: FailingEnv(i, "step", None))
    with pytest.raises(ProcessEndedError, match=r"environment 1 has ended \(exit code 3\)"):
        collector.collect(n_step=20 * N)
    with pytest.raises(ProcessEndedError, match=r"environments \[1\] must be reset before they step"):
        collector.env.step(np.zeros((N, 2)))
    os.kill(collector.env.venv.workers[0].process.pid, signal.SIGKILL)
    with pytest.raises(ProcessEndedError, match=r"environment 0 has ended \(killed by signal 9\)"):
        collector.env.reset()
    assert_goes_on(collector)

    shared = collector_of("grouped", lambda i: FailingEnv(i, "step", None))
    with pytest.raises(ProcessEndedError, match=r"environments 0 to 1 has ended \(exit code 3\)"):
        shared.collect(n_step=20 * N)
    with pytest.raises(ProcessEndedError, match=r"environments \[0, 1\] must be reset before they step"):
        shared.env.step(np.zeros((N, 2)))
    shared.env.reset([1], seed=5)
    # The new process has an environment 0 that nobody has reset.
    with pytest.raises(ProcessEndedError, match=r"environments \[0\] must be reset before they step"):
        shared.env.step(np.zeros((N, 2)))
    assert_goes_on(shared)

    wrapped = collector_of("wrapped", lambda i: FailingEnv(i, "step", None))
    with pytest.raises(EOFError):
        wrapped.collect(n_step=20 * N)
    with pytest.warns(UserWarning, match="all environments are reset"):
        assert wrapped.collect(n_step=N).n_collected_steps == N
    wrapped.close()


@pytest.mark.parametrize("vector", ["here", "own share"])
@pytest.mark.parametrize("where", ["step", "reset"])
def test_ctrl_c_in_an_environment(where, vector):
    collector = collector_of(vector, lambda i: FailingEnv(i, where, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        collector.collect(n_step=20 * N)
    assert_goes_on(collector)


def test_ctrl_c_while_processes_step():
    """Environment 1 still owes its answer, which must not be taken for the next one."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    collector = collector_of("shmem", SleepyEnv)
    collector.collect(n_step=3 * N)
    former = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            collector.collect(n_step=20 * N)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, former)
    assert_goes_on(collector)


@pytest.mark.parametrize("fast", [True, False])
def test_ctrl_c_while_a_step_is_stored_waits(fast):
    collector = collector_of("here", CountingEnv)
    collector.collect(n_step=N)
    collector.fast = fast
    owner, name = (
        (collector._episodes, "step") if fast else (collector.buffer.buffers[1], "_update_state_pre_add")
    )
    own = getattr(owner, name)

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGINT)
        return own(*args)

    setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        collector.collect(n_step=20 * N)
    setattr(owner, name, own)
    assert_goes_on(collector)


def test_a_guard_puts_off_a_signal_and_restores_the_handlers():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with InterruptGuard() as guard:
        guard.hold()
        os.kill(os.getpid(), signal.SIGINT)
        held = True
        with pytest.raises(KeyboardInterrupt):
            guard.release()
        assert held
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before

    def stored_in_full():
        with InterruptGuard() as guard:
            guard.hold()
            os.kill(os.getpid(), signal.SIGINT)
            rows.append(1)
            raise ValueError("full disk")

    rows = []
    with pytest.raises(KeyboardInterrupt):
        stored_in_full()
    assert rows == [1]


def test_failed_environments_get_seeds_that_follow_from_the_former_ones():
    def after_failure(seed):
        env = FailingEnv(1, "step", ValueError("broken"))
        collector = CostCollector(RandomPolicy(), env, CostVectorReplayBuffer(60, 1), replayable=True)
        collector.reset(gym_reset_kwargs={"seed": seed})
        with pytest.raises(ValueError, match="broken"):
            collector.collect(n_step=20)
        state = collector.state_dict()
        with pytest.warns(UserWarning, match="are reset"):
            collector.collect(n_step=4)
        return env.np_random.random(), collector.env.history.state_dict(), state

    (first, history, state), (again, _, _), (other, _, _) = map(after_failure, (5, 5, 6))
    assert first == again != other
    # The history begins with the new seed, so that it can be repeated.
    assert history["seeds"][0] not in (None, 5)
    assert len(history["actions"][0]) == 4
    fresh = CostCollector(
        RandomPolicy(), FailingEnv(1, "reset", None), CostVectorReplayBuffer(60, 1), replayable=True
    )
    fresh.env.venv.workers[0].env.index = 0
    with pytest.warns(UserWarning, match="the collect before was broken off; new episodes begin"):
        assert not fresh.load_state_dict(state)


def test_observations_keep_their_shape():
    def shrink(result):
        result[0] = result[0][:1]

    envs = DummyVectorEnv([lambda: CountingEnv(0), lambda: BrokenEnv(1, shrink)])
    collector = CostCollector(RandomPolicy(), envs, CostVectorReplayBuffer(60, 2))
    collector.reset()
    with pytest.raises(ValueError, match=r"environment 1 returned an observation of shape \[1\].* had \[4\]"):
        collector.collect(n_step=30)
    assert len(collector.buffer) == collector.collect_step == 4
    answers = answering([lambda: BrokenEnv(0, shrink)])
    collector = CostCollector(RandomPolicy(), answers, CostVectorReplayBuffer(60, 1))
    collector.reset()
    with pytest.raises(ValueError, match=r"must have shape \[4\] like the observation space, got \[1\]"):
        collector.collect(n_step=30)
    collector.close()


@pytest.mark.parametrize(
    ("vector", "breaks", "message"),
    [
        ("here", lambda r: r.insert(2, 0.0), 'got 6 values, as in safety_gymnasium.*info."cost".'),
        ("answering", lambda r: r.pop(2), "got 4 values, as in the old Gym"),
        ("subproc", lambda r: r.__setitem__(4, None), "got an info of type NoneType"),
        ("here", lambda r: r.__setitem__(4, None), "got an info of type NoneType"),
    ],
)
def test_a_step_with_other_values_is_named(vector, breaks, message):
    collector = CostCollector(
        RandomPolicy(), VECTORS[vector]([lambda: BrokenEnv(0, breaks)]), CostVectorReplayBuffer(60, 1)
    )
    collector.reset()
    with pytest.raises(ValueError, match=message) as caught:
        collector.collect(n_step=30)
    assert "environment 0" in str(caught.value.__notes__)
    collector.close()


def test_costs_and_observations_too_large_for_the_buffer_are_refused():
    for field, breaks in (
        ("cost", lambda r: r[4].__setitem__("cost", 1e39)),
        ("obs_next", lambda r: r[0].__setitem__(0, 1e39)),
    ):
        collector = CostCollector(RandomPolicy(), BrokenEnv(0, breaks))
        collector.reset()
        with pytest.raises(FloatingPointError, match=f"^{field} of environment 0 is not finite"):
            collector.collect(n_step=30)
        assert len(collector.buffer) == collector.collect_step == 2


def test_two_environments_may_not_be_one_object():
    env = CountingEnv(0)
    with pytest.raises(ValueError, match="environments 0 and 1 are one object"):
        CostCollector(RandomPolicy(), DummyVectorEnv([lambda: env] * 2))


@pytest.mark.parametrize("error", [AwkwardError("step", 3), RuntimeError(lambda: None)])
def test_any_exception_can_be_sent(error):
    sent = pickle.loads(pickle.dumps(RemoteError.of(error)))
    with pytest.raises(RuntimeError, match=f"{type(error).__name__}: ") as caught:
        sent.raise_here("raised there")
    assert caught.value.__notes__ == ["raised there"]
    assert type(error).__name__ in str(caught.value.__cause__)
