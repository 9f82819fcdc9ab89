"""Check that seeds repeat episodes: in one environment, in a second one, beside others, and in a process.

A run that is resumed brings new environments to where the former ones were: it seeds them and repeats their
actions and resets.
"""

import itertools
import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import gymnasium

from fsrl_ext.env.check.episodes import Row, difference, rows
from fsrl_ext.env.check.findings import CheckFailedError, raised

STEPS = 60
"""Steps that each of the checks plays."""

_SECONDS = 180
"""Within which a process must answer."""

Build = Callable[[], gymnasium.Env]


def check_seeds(env: gymnasium.Env, seed: int) -> str:
    """Check that the same seed and the same actions give the same episodes in one environment."""
    first = list(rows(env, seed, STEPS))
    change = difference(first, list(rows(env, seed, STEPS)))
    if change is None:
        return f"seed {seed} gave the same {STEPS} steps twice"
    if "the reset with a seed" in change:
        raise CheckFailedError(
            f"{change}, with the same seed",
            "super().reset(seed=seed)  # first in reset, and draw from self.np_random alone",
        )
    raise CheckFailedError(
        f"{change}, with the same seed and actions",
        "noise = self.np_random.normal()  # instead of np.random and random; and set all state in reset",
    )


def check_replay(env: gymnasium.Env, build: Build, seed: int) -> str:
    """Check that a new environment repeats what a used one does after a reset with a seed.

    :param env: an environment that has been stepped.
    :param build: builds a new one.
    """
    used = list(rows(env, seed + 1, STEPS))
    fresh = _play_closing(build, seed + 1)
    change = difference(used, fresh)
    if change is not None:
        raise CheckFailedError(
            f"a new environment does not repeat the episodes of a used one, so that a run cannot be resumed: "
            f"{change}",
            "self.time = 0  # set in reset everything that a step changes",
        )
    return "a new environment repeats the episodes of a used one: runs can be resumed"


def check_vector(build: Build, seed: int) -> str:
    """Check that environments of one process do not disturb each other."""
    alone = _play_closing(build, seed)
    envs = [build(), build()]
    try:
        pairs = itertools.zip_longest(rows(envs[0], seed, STEPS), rows(envs[1], seed + 1, STEPS))
        beside = [row for row, _ in pairs if row is not None]
    finally:
        for env in envs:
            env.close()
    change = difference(alone, beside)
    if change is not None:
        raise CheckFailedError(
            f"an environment differs when another one of the same process steps: {change}",
            "self.state = ...  # keep state in the instance, not in the class or the module",
        )
    return "two environments of one process do not disturb each other"


def check_process(method: str, env_fn: Build, expected: Sequence[Row], seed: int) -> str:
    """Check that a process of its own builds the environment and repeats its steps.

    :param method: how the process starts, see `multiprocessing`.
    :param env_fn: what vector environments send to their processes.
    :param expected: the steps of an environment in this process, with the same seed.
    """
    fix = 'register_task(id, entry_point="my_package.tasks:Cart")  # a class that can be imported by its name'
    try:
        pickled = cloudpickle.dumps(env_fn)
    except Exception as error:  # of any kind, because the objects are the user's
        raise CheckFailedError(
            f"what builds the environment cannot be pickled: {raised(error)}", fix
        ) from error
    context: Any = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, pickled, seed), daemon=True)
    try:
        process.start()
        there.close()
        if not here.poll(_SECONDS):
            raise CheckFailedError(f"a process ({method}) gave no answer in {_SECONDS} s", fix)
        try:
            kind, answer = pickle.loads(here.recv_bytes())
        except EOFError as error:
            process.join()
            raise CheckFailedError(
                f"a process ({method}) ended with code {process.exitcode} before it answered",
                'if __name__ == "__main__":  # around what a script does when it is started',
            ) from error
    finally:
        process.kill()
        process.join()
        here.close()
    if kind == "build":
        raise CheckFailedError(f"a process ({method}) cannot build the environment: {answer}", fix)
    if kind == "info":
        raise CheckFailedError(
            f"what a step returns cannot be sent from a process ({method}): {answer}",
            'info = {"cost": cost}  # numbers, arrays and texts only',
        )
    if kind == "play":
        raise CheckFailedError(f"the environment fails in a process ({method}): {answer}", fix)
    change = difference(expected, answer)
    if change is not None:
        raise CheckFailedError(
            f"the episodes in a process ({method}) are others: {change}",
            "self.np_random  # draw from nothing else, and read no global state of the module",
        )
    return f"a process ({method}) repeats the episodes"


def _play_closing(build: Build, seed: int) -> list[Row]:
    env = build()
    try:
        return list(rows(env, seed, STEPS))
    finally:
        env.close()


def _serve(connection: Connection, pickled: bytes, seed: int) -> None:
    """Play in this process, and send what came of it: a kind of outcome, and rows or a message."""
    kind = "build"
    try:
        env = cloudpickle.loads(pickled)()
        kind = "play"
        played = list(rows(env, seed, STEPS))
        kind = "info"
        pickle.dumps([row.info for row in played])
        answer: tuple[str, Any] = ("rows", [row._replace(info={}) for row in played])
        env.close()
    except Exception as error:  # of any kind, because the code is the user's
        answer = (kind, raised(error))
    connection.send_bytes(pickle.dumps(answer))
