"""A collector that is closed, or that could not be built, gives back everything that it used."""

import gc

import pytest
from tianshou.env import DummyVectorEnv, ShmemVectorEnv, SubprocVectorEnv
from toys.counting import RandomPolicy
from toys.counting_envs import CountingEnv
from toys.resources import held

from fsrl_ext.data import CostCollector, MetaCollector, ProcessEndedError
from fsrl_ext.data.env_workers import build_vector
from fsrl_ext.data.worker_env import WorkerEnvFn


@pytest.mark.parametrize("kind", [ShmemVectorEnv, SubprocVectorEnv])
def test_closed_collectors_give_back_processes_pipes_and_memory(kind):
    """Also while they are kept, as the collectors of a finished run may be."""
    kept, counts = [], []
    gc.disable()
    try:
        for _ in range(4):
            collector = CostCollector(RandomPolicy(), kind([WorkerEnvFn(lambda: CountingEnv(0))] * 2))
            collector.reset()
            collector.collect(n_step=4)
            collector.close()
            collector.close()
            kept.append(collector)
            counts.append(held())
    finally:
        gc.enable()
    assert counts[1:] == [counts[1]] * 3
    assert counts[0]["children"] == 0
    with pytest.raises(RuntimeError, match="the environments are closed"):
        kept[0].reset()


def test_a_process_that_does_not_answer_is_ended():
    collector = CostCollector(RandomPolicy(), SubprocVectorEnv([lambda: CountingEnv(0)] * 2))
    collector.reset()
    process = collector.env.venv.workers[0].process
    collector.env.venv.workers[0].send(None)  # Nobody reads the answer.
    collector.close()
    assert process._closed
    assert held()["children"] == 0


class Closing(CountingEnv):
    """Counts the instances that are open; the second one cannot be built."""

    open = built = 0

    def __init__(self) -> None:
        Closing.built += 1
        if Closing.built == 2:
            raise RuntimeError("no second one")
        super().__init__(0)
        Closing.open += 1

    def close(self) -> None:
        Closing.open -= 1


def test_environments_built_before_one_that_fails_are_closed(monkeypatch):
    monkeypatch.setattr(Closing, "built", 0)
    with pytest.raises(RuntimeError, match="no second one") as caught:
        build_vector(DummyVectorEnv, [Closing] * 3)
    assert (Closing.open, Closing.built) == (0, 2)
    assert caught.value.__notes__ == ["raised while environment 1 was built"]


class OnlyHere(CountingEnv):
    """Cannot be built in the process of environment 1."""

    def __init__(self, index: int) -> None:
        if index == 1:
            raise RuntimeError("not here")
        super().__init__(index)


def test_processes_started_before_one_that_fails_are_ended():
    counts = []
    for _ in range(2):  # what multiprocessing starts the first time stays open
        with pytest.raises(
            ProcessEndedError, match=r"the process of environment 1 has ended \(exit code 1\)"
        ):
            build_vector(SubprocVectorEnv, [lambda i=i: OnlyHere(i) for i in range(3)])
        with pytest.raises(RuntimeError, match="not here"):
            build_vector(ShmemVectorEnv, [lambda i=i: OnlyHere(i) for i in range(3)])
        after = held()
        counts.append((after["files"], after["children"]))
    assert counts[0] == counts[1]


def test_a_task_that_cannot_be_collected_is_closed(monkeypatch):
    monkeypatch.setattr(Closing, "built", 2)
    collector = MetaCollector(
        RandomPolicy(), lambda _: build_vector(DummyVectorEnv, [Closing]), step_per_collect=4, num_envs=1
    )
    collector.discount = 2.0  # what CostCollector refuses
    with pytest.raises(ValueError, match="discount"):
        collector.start(None, [1])
    assert Closing.open == 0
