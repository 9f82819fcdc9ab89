"""Environments that share processes: one message to each process, and one answer, for a step of them all.

How many processes serve the environments changes nothing that they do, if they draw their random numbers from
their own ``np_random``.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Sequence
from copy import deepcopy
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import gymnasium as gym
from tianshou.env import BaseVectorEnv
from tianshou.env.worker import EnvWorker

from fsrl_ext.data.remote_errors import RemoteError
from fsrl_ext.data.worker_env import FAILURE

EnvFn = Callable[[], gym.Env]
# The name of a method, the places of environments in their group, and the arguments for each of them.
Message = tuple[str, Sequence[int], Sequence[Any]]


class EnvGroup:
    """A process with some of a vector's environments.

    :param env_fns: build the environments in the process, and can be pickled by ``cloudpickle``.
    :param method: how the process starts, see ``multiprocessing``; None for the platform's default.
    :raises EOFError: the process ended while it built an environment.
    :raises Exception: what the construction of an environment raised.
    """

    def __init__(self, env_fns: Sequence[EnvFn], method: str | None = None) -> None:
        self.env_fns = list(env_fns)
        self.method = method
        self.is_closed = False
        context = multiprocessing.get_context(method)
        self.parent_remote, self.child_remote = context.Pipe()
        arguments = (self.parent_remote, self.child_remote, cloudpickle.dumps(self.env_fns))
        process_class: Any = context.Process  # type: ignore[attr-defined]
        self.process = process_class(target=_serve, args=arguments, daemon=True)
        self.process.start()
        self.child_remote.close()
        failure = self.receive()
        if failure is not None:
            failure.raise_here()

    def send(self, name: str, places: Sequence[int], arguments: Sequence[Any]) -> None:
        """Ask for one call of each environment at ``places``; each call has one answer."""
        self.parent_remote.send_bytes(_pickled((name, places, arguments)))

    def receive(self) -> Any:
        """Wait for the next answer: a list with one entry for each environment that was asked."""
        return pickle.loads(self.parent_remote.recv_bytes())

    def ask(self, name: str, place: int, argument: Any) -> Any:
        """Call one environment and return its answer."""
        self.send(name, [place], [argument])
        return self.receive()[0]


class LocalGroup:
    """Environments that the calling process steps itself, while it would wait for those of other processes.

    The methods are those of :class:`EnvGroup`; a call is made when its answer is received.

    :param env_fns: build the environments.
    """

    def __init__(self, env_fns: Sequence[EnvFn]) -> None:
        self.env_fns = list(env_fns)
        self._message: Message = ("step", [], [])
        self._envs: list[gym.Env] = []
        try:
            for make_env in env_fns:
                self._envs.append(make_env())
        except BaseException:
            self.close()
            raise

    def send(self, name: str, places: Sequence[int], arguments: Sequence[Any]) -> None:
        """Note the calls of the environments at ``places``."""
        self._message = (name, places, arguments)

    def receive(self) -> Any:
        """Make the calls; an exception is in the info of its answer, as those of other processes are."""
        name, places, arguments = self._message
        answers: list[Any] = []
        for place, argument in zip(places, arguments, strict=True):
            try:
                # Copies, because the step of the next environment may change what both share.
                answers.append(deepcopy(_answer(self._envs[place], name, argument)))
            except Exception as error:  # of any kind: the one who asks raises it, after all answers are read
                nothing = (None, {FAILURE: LocalError(error)})
                answers.append(nothing if name == "reset" else (None, 0.0, False, False, nothing[1]))
        return answers

    def ask(self, name: str, place: int, argument: Any) -> Any:
        """Call one environment and return its answer."""
        return _answer(self._envs[place], name, argument)

    def close(self) -> None:
        """Close the environments; a second call does nothing."""
        while self._envs:
            self._envs.pop().close()


class LocalError:
    """Holds an exception of an environment of this process until all answers are read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def raise_here(self, note: str) -> None:
        """Raise the exception with a note."""
        self.error.add_note(note)
        raise self.error


class GroupedWorker(EnvWorker):
    """One environment of a group, as Tianshou's vectors see it.

    :param env_fn: of the environment.
    :param group: its process.
    :param place: its place in the group.
    """

    def __init__(self, env_fn: EnvFn, group: EnvGroup | LocalGroup, place: int) -> None:
        self.group = group
        self.place = place
        super().__init__(env_fn)

    @property
    def process(self) -> Any:
        """The process of the group; None for the calling one."""
        return getattr(self.group, "process", None)

    def get_env_attr(self, key: str) -> Any:
        """Return an attribute of the environment."""
        return self.group.ask("getattr", self.place, key)

    def set_env_attr(self, key: str, value: Any) -> None:
        """Set an attribute of the environment itself, inside of all wrappers."""
        self.group.ask("setattr", self.place, (key, value))

    def send(self, action: Any, **kwargs: Any) -> None:
        """Begin a step, or without an action a reset."""
        if action is None:
            self.group.send("reset", [self.place], [kwargs])
        else:
            self.group.send("step", [self.place], [action])

    def recv(self) -> Any:
        """Return the answer to the group's oldest call."""
        return self.group.receive()[0]

    def reset(self, **kwargs: Any) -> Any:
        """Reset the environment."""
        return self.group.ask("reset", self.place, kwargs)

    @staticmethod
    def wait(workers: list[Any], wait_num: int, timeout: float | None = None) -> list[Any]:
        """Return all workers, because a vector of groups steps them together."""
        return workers

    def render(self, **kwargs: Any) -> Any:
        """Render the environment."""
        return self.group.ask("render", self.place, kwargs)

    def close_env(self) -> None:
        """Do nothing: a group closes its environments together."""


class GroupedVectorEnv(BaseVectorEnv):
    """A vector whose environments are spread evenly over groups.

    :param groups: all of them open.
    """

    def __init__(self, groups: Sequence[EnvGroup | LocalGroup]) -> None:
        places = [(group, place) for group in groups for place in range(len(group.env_fns))]
        env_fns = [fn for group in groups for fn in group.env_fns]
        remaining = iter(places)
        super().__init__(env_fns, lambda env_fn: GroupedWorker(env_fn, *next(remaining)))


def split_evenly(env_fns: Sequence[EnvFn], processes: int) -> list[list[EnvFn]]:
    """Split into ``processes`` parts whose lengths differ by at most one, in order."""
    edges = [round(i * len(env_fns) / processes) for i in range(processes + 1)]
    return [list(env_fns[a:b]) for a, b in itertools.pairwise(edges)]


def _pickled(message: Any) -> bytes:
    # `Connection.send` would build a pickler of its own for each message.
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


def _serve(parent: Connection, connection: Connection, pickled_fns: bytes) -> None:
    """Build environments and answer messages until one says "close", or the other end is gone."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the process that asks, which then ends this one
    parent.close()
    envs: list[gym.Env] = []
    with contextlib.suppress(EOFError, ConnectionError):  # nobody is left to be answered
        try:
            for make_env in cloudpickle.loads(pickled_fns):
                envs.append(make_env())
        except Exception as error:  # of any kind: the process that asked raises it
            connection.send_bytes(_pickled(RemoteError.of(error)))
            return
        connection.send_bytes(_pickled(None))
        while True:
            name, places, *arguments = pickle.loads(connection.recv_bytes())
            if name == "close":
                break
            calls = zip(places, arguments[0], strict=True)
            connection.send_bytes(_pickled([_answer(envs[i], name, argument) for i, argument in calls]))
    for env in envs:
        env.close()
    connection.close()


def _answer(env: gym.Env, name: str, argument: Any) -> Any:
    if name == "step":
        return env.step(argument)
    if name == "reset":
        return env.reset(**argument)
    if name == "getattr":
        return getattr(env, argument, None)
    if name == "setattr":
        return setattr(env.unwrapped, *argument)
    assert name == "render"
    return env.render(**argument)
