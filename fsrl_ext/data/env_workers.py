"""Building the environments of a vector, in this process or in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
from tianshou.env import BaseVectorEnv, DummyVectorEnv, ShmemVectorEnv, SubprocVectorEnv
from tianshou.env.worker import DummyEnvWorker, EnvWorker, SubprocEnvWorker

from fsrl_ext.data.env_closing import close_groups, close_workers, end_processes, how_ended, named
from fsrl_ext.data.env_groups import EnvFn, EnvGroup, GroupedVectorEnv, LocalGroup, split_evenly
from fsrl_ext.data.errors import ProcessEndedError
from fsrl_ext.data.worker_env import WorkerEnvFn

PLAIN_VECTORS = (DummyVectorEnv, SubprocVectorEnv, ShmemVectorEnv)


def build_vector(kind: type[BaseVectorEnv], env_fns: Sequence[Callable[[], gym.Env]]) -> BaseVectorEnv:
    """Build a vector of environments; if one of them cannot be built, close those that were built before.

    :param kind: ``DummyVectorEnv``, ``SubprocVectorEnv`` or ``ShmemVectorEnv``; others build as they do.
    :raises ProcessEndedError: the process of an environment ended while it built the environment.
    """
    if kind not in PLAIN_VECTORS:
        return kind(env_fns)  # type: ignore[call-arg]
    in_process = kind is DummyVectorEnv
    settings = {} if in_process else {"share_memory": kind is ShmemVectorEnv}
    workers: list[EnvWorker] = []

    def add_worker(env_fn: Callable[[], gym.Env]) -> EnvWorker:
        worker_class = DummyEnvWorker if in_process else SubprocEnvWorker
        workers.append(_build_worker(worker_class, env_fn, len(workers), **settings))
        return workers[-1]

    vector = kind.__new__(kind)
    try:
        BaseVectorEnv.__init__(vector, env_fns, add_worker)
    except BaseException:
        close_workers(workers, wait=1.0)
        raise
    return vector


def build_grouped_vector(
    make_env: EnvFn, num_envs: int, processes: int, *, own_share: bool = False
) -> BaseVectorEnv:
    """Build a vector of environments that are served by some processes.

    :param processes: other processes, at least 1.
    :param own_share: whether the calling process steps a share of the environments, too.
    :raises ProcessEndedError: a process ended while it built an environment.
    """
    groups: list[EnvGroup | LocalGroup] = []
    shares = split_evenly([make_env] * num_envs, min(processes + own_share, num_envs))
    try:
        if own_share:
            groups.append(LocalGroup(shares[0]))
        first = len(shares[0]) if own_share else 0
        for env_fns in shares[int(own_share) :]:
            groups.append(build_group([WorkerEnvFn(fn) for fn in env_fns], first))
            first += len(env_fns)
        return GroupedVectorEnv(groups)
    except BaseException:
        close_groups(groups, wait=1.0)
        raise


def build_group(env_fns: Sequence[EnvFn], first: int, method: str | None = None) -> EnvGroup:
    """Start the process of a group; if that fails, give back what its constructor has taken.

    :param first: the number of the group's first environment, which error messages name.
    """
    group = EnvGroup.__new__(EnvGroup)
    group.is_closed = False
    try:
        group.__init__(env_fns, method)  # type: ignore[misc]
    except BaseException as error:
        mates = range(first, first + len(env_fns))
        ended = how_ended(group, mates) if isinstance(error, EOFError | ConnectionError) else None
        end_processes([group], wait=0.0)
        if ended is not None:
            raise ProcessEndedError(ended) from error
        error.add_note(f"raised by the process of {named(mates)} while it built them")
        raise
    return group


def _build_worker(
    worker_class: type[EnvWorker], env_fn: Callable[[], gym.Env], i: int, **settings: Any
) -> EnvWorker:
    """Build the worker of environment ``i``; if that fails, give back what its constructor has taken."""
    worker = worker_class.__new__(worker_class)
    worker.is_closed = False
    try:
        worker.__init__(env_fn, **settings)  # type: ignore[misc]
    except BaseException as error:
        ended = how_ended(worker, [i]) if isinstance(error, EOFError | ConnectionError) else None
        close_workers([worker], wait=0.0)
        if ended is not None:
            raise ProcessEndedError(ended) from error
        error.add_note(f"raised while environment {i} was built")
        raise
    return worker


def build_successor(worker: EnvWorker, i: int) -> EnvWorker:
    """Start a new process for environment ``i``, whose worker was closed."""
    assert isinstance(worker, SubprocEnvWorker)
    method = getattr(worker.process, "_start_method", None)
    settings = {"share_memory": worker.share_memory, "context": method}
    return _build_worker(SubprocEnvWorker, worker._env_fn, i, **settings)
