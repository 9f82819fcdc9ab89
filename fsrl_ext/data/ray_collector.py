"""Collecting on the machines of a Ray cluster for one learner.

Dimensions: ``W`` actors, ``N`` environments of all actors together, ``T`` steps of each.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
from tianshou.env import BaseVectorEnv, DummyVectorEnv
from tianshou.policy import BasePolicy

from fsrl_ext.data.ahead import AheadCollector
from fsrl_ext.data.ahead_worker import CollectedRows, Worker, WorkerSpec
from fsrl_ext.data.env_workers import build_vector
from fsrl_ext.data.ray_actors import RayActors
from fsrl_ext.data.sizes import ceil_div
from fsrl_ext.data.stats import CostCollectStats
from fsrl_ext.data.vector_buffer import CostVectorReplayBuffer
from fsrl_ext.errors import checked


class RayCollector(AheadCollector):
    """A collector whose environments run in Ray actors, each with a copy of the policy.

    The learner exchanges one message with every actor for a whole collect: parameters go out, transitions
    come back. The actors share the environments out in order, as evenly as possible, and the data of a
    collect are put together in the order of the actors. The same seed and number of actors therefore give the
    same data, on however many machines the actors run and in whatever order they end.

    Staleness: with ``ahead``, a trainer begins the next collect before it learns, so that the acting policy
    is at most one collect old. Otherwise the acting policy is current, and the actors wait while the learner
    learns.

    Everything else is as in :class:`AheadCollector`. An actor or a machine that ends is a
    :class:`ProcessEndedError` at the next method that needs it; the collector cannot go on then.

    :param policy: acts, in a copy on each actor's CPU; must be picklable.
    :param make_env: makes one environment; must be picklable by ``cloudpickle``.
    :param buffer: receives the transitions, one sub-buffer for each environment.
    :param actors: ``W``, at most the number of environments.
    :param ahead: see above.
    :param seed: of the actors' random numbers, each of which gets its own.
    :param exploration_noise: see Tianshou.
    :param discount: see :class:`CostCollector`.
    :param replayable: see :class:`CostCollector`.
    :raises ImportError: Ray is not installed.
    :raises ValueError: there are more actors than environments, or than the cluster has CPUs.
    :raises Exception: what the construction in an actor raised, with its traceback as the cause.
    """

    @checked(seed=("seed",), at_least_one=("actors",), closed_unit_interval=("discount",), own=("buffer",))
    def __init__(
        self,
        policy: BasePolicy,
        make_env: Callable[[], gym.Env],
        buffer: CostVectorReplayBuffer,
        *,
        actors: int,
        ahead: bool,
        seed: int,
        exploration_noise: bool = False,
        discount: float | tuple[float, ...] | None = None,
        replayable: bool = False,
    ) -> None:
        if not isinstance(buffer, CostVectorReplayBuffer):
            raise TypeError(f"buffer must be a CostVectorReplayBuffer, got {type(buffer).__name__}")
        if actors > buffer.buffer_num:
            raise ValueError(
                f"actors must be at most {buffer.buffer_num}, one environment each, got {actors}"
            )
        self.policy = policy
        self.buffer = buffer
        self.env_num = buffer.buffer_num
        self.replayable = replayable
        self.ahead = ahead
        self.collect_step, self.collect_episode, self.collect_time = 0, 0, 0.0
        self._request = self._rows = None
        self._failed = False
        sizes = [self.env_num // actors + (i < self.env_num % actors) for i in range(actors)]
        on_cpu = copy.deepcopy(policy).to("cpu")  # a machine of the cluster may have no accelerator
        specs = [
            WorkerSpec(
                policy=on_cpu,
                make_envs=functools.partial(_make_envs, make_env, size),
                num_envs=size,
                num_costs=buffer.num_costs,
                seed=int(np.random.SeedSequence([seed, i]).generate_state(1)[0]),
                exploration_noise=exploration_noise,
                discount=discount,
                replayable=replayable,
            )
            for i, size in enumerate(sizes)
        ]
        self._worker: Any = _Workers([functools.partial(Worker, spec) for spec in specs], sizes)

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`AheadCollector.state_dict`; there is a state of each actor's worker."""
        state = super().state_dict()
        state["workers"] = state.pop("worker")
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """See :meth:`CostCollector.load_state_dict`.

        :raises ValueError: the state is that of another number of actors.
        """
        return super().load_state_dict({**state, "worker": state["workers"]})


class _Workers:
    """The workers of all actors as one worker, which is called as each of them is.

    :param makers: ``W`` functions that build the workers.
    :param sizes: ``W`` numbers of environments.
    """

    survives_interrupts = True

    def __init__(self, makers: Sequence[Callable[[], Worker]], sizes: Sequence[int]) -> None:
        self._sizes = list(sizes)
        self._bounds = list(pairwise(np.cumsum([0, *sizes]).tolist()))
        self._actors = RayActors(makers, owner="the collector")
        self._name = ""

    def send(self, name: str, *arguments: Any) -> None:
        """Call a method of all workers, each with its share of the arguments."""
        self._name = name
        if name == "collect":
            n_step, *shared = arguments
            steps = ceil_div(n_step, sum(self._sizes))
            self._actors.send(name, [(steps * size,) for size in self._sizes], tuple(shared))
        elif name == "state_dict":
            self._actors.send(name, [()] * len(self._sizes))
        elif name == "load_state_dict":
            self._actors.send(name, [(state,) for state in arguments[0]])
        elif name == "renew_seeds":
            self._actors.send(name, [(seeds,) for seeds in self._shares(arguments[0])])
        else:
            assert name == "reset", name
            self._actors.send(name, self._reset_arguments(arguments[0]))

    def wait(self) -> None:
        """Wait until all workers have answered."""
        self._actors.wait()

    def read(self) -> Any:
        """Return the answers as one, or raise the first exception among them."""
        answers = self._actors.read()
        if self._name == "collect":
            return self._joined(answers)
        if self._name == "load_state_dict":
            return all(answers)
        return answers if self._name == "state_dict" else None

    def close(self, *, at_once: bool = False) -> None:
        """End the actors."""
        self._actors.close(at_once=at_once)

    def _shares(self, values: Sequence[Any]) -> list[list[Any]]:
        """One value for each of the ``N`` environments, by actor."""
        return [list(values[start:end]) for start, end in self._bounds]

    def _reset_arguments(self, kwargs: dict[str, Any] | None) -> list[tuple[dict[str, Any] | None]]:
        if kwargs is None or not isinstance(kwargs.get("seed"), Sequence | np.ndarray):
            return [(kwargs,)] * len(self._sizes)
        return [({**kwargs, "seed": seeds},) for seeds in self._shares(kwargs["seed"])]

    def _joined(self, parts: Sequence[CollectedRows]) -> CollectedRows:
        """The data of all actors, ``[N, T, ...]`` by key, in the order of the actors."""
        for (first, _), part in zip(self._bounds, parts, strict=True):
            part.stats.env_ids = part.stats.env_ids + first
        steps = sum(part.stats.n_collected_steps for part in parts)
        stats = CostCollectStats.joined([part.stats for part in parts], n_collected_steps=steps)
        keys = parts[0].arrays
        return CollectedRows(
            stats, {key: np.concatenate([part.arrays[key] for part in parts]) for key in keys}
        )


def _make_envs(make_env: Callable[[], gym.Env], count: int) -> BaseVectorEnv:
    return build_vector(DummyVectorEnv, [make_env] * count)
