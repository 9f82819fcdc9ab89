"""Objects in the processes of a Ray cluster, and messages to all of them at once.

Dimension: ``W`` actors, in a fixed order.
"""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import torch

from fsrl_ext.data.env_closing import CLOSE_SECONDS
from fsrl_ext.data.errors import ProcessEndedError
from fsrl_ext.data.remote_errors import RemoteError

POLL_SECONDS = 1.0
"""Seconds between two looks whether all answers have come; Ctrl-C counts at once."""


class RayActors:
    """One object in each of ``W`` Ray actors, wherever Ray places them.

    Ray is used as it is if this process has initialised it. Otherwise the cluster at ``RAY_ADDRESS`` is used
    or, where there is no such variable, a local one that :meth:`close` ends again. Actors take one CPU each
    and are spread over the machines. Messages and answers are pickled by ``cloudpickle``.

    :param makers: ``W`` functions that build the objects, each in its actor; objects have a method ``close``.
    :param owner: what an error calls the object that the actors belong to.
    :raises ImportError: Ray is not installed.
    :raises ValueError: the cluster has fewer CPUs than there are actors, or no cluster is at ``RAY_ADDRESS``.
    """

    def __init__(self, makers: Sequence[Callable[[], Any]], *, owner: str) -> None:
        import ray

        self._owner = owner
        started = _connect(ray, len(makers))
        self._actors: list[Any] = []
        self._answers: list[Any] = []
        self._finalizer = weakref.finalize(self, _end, self._actors, started)
        try:
            cpus = int(ray.cluster_resources().get("CPU", 0))
            if cpus < len(makers):
                raise ValueError(
                    f"workers must be at most {cpus}, the CPUs of the cluster, got {len(makers)}"
                )
            # Without restarts: an object that is built anew has other episodes and other random numbers.
            kind = ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(_Actor)
            self._actors += [kind.remote(cloudpickle.dumps(make)) for make in makers]
            self._answers = [actor.built.remote() for actor in self._actors]
            self.wait()
            self.read()
        except BaseException:
            self.close()
            raise

    def send(self, name: str, arguments: Sequence[tuple[Any, ...]], shared: tuple[Any, ...] = ()) -> None:
        """Call a method of every object; answers to an earlier message that were not read are dropped.

        :param name: the method.
        :param arguments: ``W`` tuples of arguments, one for each object.
        :param shared: further arguments, which are the same for all objects and are sent to a machine once.
        """
        import ray

        if not self._finalizer.alive:
            raise ProcessEndedError(f"{self._owner} is closed")
        common = ray.put(cloudpickle.dumps(shared))
        self._answers = [
            actor.answer.remote(name, cloudpickle.dumps(own), common)
            for actor, own in zip(self._actors, arguments, strict=True)
        ]

    def wait(self) -> None:
        """Wait until all answers can be read."""
        import ray

        while ray.wait(self._answers, num_returns=len(self._answers), timeout=POLL_SECONDS)[1]:
            continue

    def read(self) -> list[Any]:
        """Return the ``W`` answers, in the order of the actors, or raise the first that is an exception.

        :raises ProcessEndedError: an actor or its machine has ended.
        """
        import ray

        answers = []
        for i, reference in enumerate(self._answers):
            try:
                answers.append(cloudpickle.loads(ray.get(reference)))
            except ray.exceptions.RayError as error:
                raise ProcessEndedError(
                    f"Ray actor {i} of {len(self._actors)} has ended ({type(error).__name__}); "
                    "make a new collector, or resume the run"
                ) from error
        for answer in answers:
            if isinstance(answer, RemoteError):
                answer.raise_here()
        return answers

    def close(self, *, at_once: bool = False) -> None:
        """Close the objects and end the actors; may be called again.

        :param at_once: whether a call that is being answered is broken off; the objects are not closed then.
        """
        if at_once and self._finalizer.alive:
            _kill(self._actors)
        self._finalizer()


class _Actor:
    """What runs in a Ray actor: it builds an object, and answers with what the object's methods return."""

    def __init__(self, pickled: bytes) -> None:
        torch.set_num_threads(1)
        self._object: Any = None
        self._failure: RemoteError | None = None
        try:
            self._object = cloudpickle.loads(pickled)()
        except Exception as error:  # of any kind: the other process raises it
            self._failure = RemoteError.of(error)

    def built(self) -> bytes:
        """Tell whether the object could be built."""
        return cloudpickle.dumps(self._failure)

    def answer(self, name: str, own: bytes, shared: bytes) -> bytes:
        """Call a method of the object."""
        try:
            return cloudpickle.dumps(
                getattr(self._object, name)(*cloudpickle.loads(own), *cloudpickle.loads(shared))
            )
        except Exception as error:  # of any kind: the other process raises it
            return cloudpickle.dumps(RemoteError.of(error))

    def close(self) -> None:
        """Close the object, if it could be built."""
        if self._object is not None:
            self._object.close()


def _connect(ray: Any, count: int) -> bool:
    """Let this process use a Ray cluster.

    :param count: the number of actors, which a local cluster has room for.
    :return: whether the cluster was started here.
    """
    if ray.is_initialized():
        return False
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        ray.init("local", num_cpus=max(count, os.cpu_count() or 1), include_dashboard=False, **quiet)
        return True
    try:
        knock(address)
        ray.init(address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"RAY_ADDRESS must be that of a Ray cluster, got {address!r} ({reason})") from error
    return True


def knock(address: str) -> None:
    """Raise an ``OSError`` if nothing listens at an address, for which Ray would wait for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdigit():  # "auto" has neither
        socket.create_connection((host, int(port)), timeout=POLL_SECONDS * 5).close()


def _end(actors: Sequence[Any], started: bool) -> None:
    """Close the objects, end the actors, and end or leave a cluster that this process joined for them."""
    import ray

    if not ray.is_initialized():  # the process ends, and Ray has ended everything before
        return
    closing = [actor.close.remote() for actor in actors]
    if closing:
        ray.wait(closing, num_returns=len(closing), timeout=CLOSE_SECONDS)
    _kill(actors)
    if started:
        ray.shutdown()


def _kill(actors: Sequence[Any]) -> None:
    import ray

    for actor in actors:
        with contextlib.suppress(ray.exceptions.RayError):  # it has ended before
            ray.kill(actor)
