"""Playing a policy's episodes beside the learner, in another process or in turn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tianshou.policy import BasePolicy

from fsrl_ext.cost_names import LimitUnit
from fsrl_ext.data import CostCollector
from fsrl_ext.data.transport import LocalTransport, ProcessTransport
from fsrl_ext.errors import checked
from fsrl_ext.trainer.evaluation import evaluate_policy
from fsrl_ext.trainer.selection import Evaluation

NICENESS = 5
"""How much lower than the learner's the priority of the process is, in the units of ``os.nice``.

On a machine that other programs keep busy, a process of a much lower priority would let the learner wait."""


class EpisodePlayer:
    """Plays the episodes of selections with a copy of a policy.

    :meth:`start` takes the policy's parameters as they are and returns; :meth:`finish` returns the episodes.
    With two or more cores they are played meanwhile, by a process of a lower priority than the learner's.
    With one core they are played in :meth:`finish`, in this process. Both ways give the same episodes, bit
    for bit: the copy computes on the CPU with one torch thread, and its random numbers follow from the seeds.

    Of the policy only its ``state_dict`` is taken; changes to other attributes after construction are not.

    :param policy: plays, in a copy; must be picklable by ``cloudpickle``.
    :param make_collector: makes the collector of test episodes for a policy; must be picklable, too.
    :param cores: 1 plays in this process; any other number plays in a second one.
    """

    @checked(at_least_one=("cores",))
    def __init__(
        self, policy: BasePolicy, make_collector: Callable[[BasePolicy], CostCollector], *, cores: int = 2
    ) -> None:
        self.collect_step, self.collect_episode, self.collect_time = 0, 0, 0.0
        self._request: tuple[Any, ...] | None = None
        self._in_process = cores > 1
        make = functools.partial(PlayerWorker, policy, make_collector)
        self._worker: LocalTransport | ProcessTransport
        if self._in_process:
            self._worker = ProcessTransport(
                make,
                owner="the player of the episodes",
                name="the process that plays the test episodes",
                remedy="resume the run",
                niceness=NICENESS,
            )
        else:
            self._worker = LocalTransport(make, owner="the player of the episodes")

    @property
    def busy(self) -> bool:
        """Whether episodes were started whose result was not asked for."""
        return self._request is not None

    def start(
        self,
        parameters: Mapping[str, Any],
        seeds: Sequence[int],
        *,
        cost_limit: tuple[float, ...],
        limit_unit: LimitUnit = "episode",
        env_step: int,
        show_progress: bool = False,
        what: str = "evaluation",
        best: Evaluation | None = None,
        min_episodes: int | None = None,
    ) -> None:
        """Begin to play one deterministic episode for each seed.

        :param parameters: what :func:`parameters_of` returned.
        :param seeds: see :func:`~fsrl_ext.trainer.evaluate_policy`, as the other arguments.
        :param show_progress: whether to show on a terminal how many episodes were played. A process of its
            own shows nothing, because the learner shows its own progress meanwhile.
        :raises RuntimeError: the result of the last call was not asked for.
        """
        if self._request is not None:
            raise RuntimeError("episodes are being played; call finish() first")
        settings = {
            "cost_limit": cost_limit,
            "limit_unit": limit_unit,
            "env_step": env_step,
            "show_progress": show_progress and not self._in_process,
            "what": what,
            "best": best,
            "min_episodes": min_episodes,
        }
        request = ("play", dict(parameters), list(seeds), settings)
        self._worker.send(*request)
        self._request = request

    def finish(self) -> Evaluation:
        """Wait for the episodes that were started, and return them.

        Ctrl-C loses nothing: the next call returns them.

        :raises RuntimeError: nothing was started.
        :raises ProcessEndedError: the process has ended.
        :raises Exception: what an environment or the policy raised.
        """
        if self._request is None:
            raise RuntimeError("no episodes are being played; call start() first")
        try:
            self._worker.wait()
        except KeyboardInterrupt:
            if not self._worker.survives_interrupts:
                self._worker.send(*self._request)
            raise
        self._request = None
        evaluation: Evaluation = self._worker.read()
        self.collect_episode += len(evaluation.returns)
        return evaluation

    def close(self) -> None:
        """End the process, or close the environments; may be called again."""
        self._worker.close(at_once=self.busy)


class PlayerWorker:
    """The side that plays. Its environments are built when they are needed for the first time."""

    def __init__(self, policy: BasePolicy, make_collector: Callable[[BasePolicy], CostCollector]) -> None:
        self._policy = policy.to("cpu").eval()
        self._make_collector = make_collector
        self._collector: CostCollector | None = None

    def play(
        self, parameters: Mapping[str, Any], seeds: Sequence[int], settings: Mapping[str, Any]
    ) -> Evaluation:
        """Play one episode for each seed with a policy of the given ``state_dict``."""
        if self._collector is None:
            self._collector = self._make_collector(self._policy)
        state = {k: torch.as_tensor(v) if isinstance(v, np.ndarray) else v for k, v in parameters.items()}
        self._policy.load_state_dict(state)
        return evaluate_policy(self._collector, seeds, **settings)

    def close(self) -> None:
        """Close the environments."""
        if self._collector is not None:
            self._collector.close()


def parameters_of(policy: BasePolicy) -> dict[str, Any]:
    """Return a copy of a policy's ``state_dict`` with arrays for tensors, as a process can be sent it."""
    return {
        key: value.detach().cpu().numpy().copy() if isinstance(value, torch.Tensor) else value
        for key, value in policy.state_dict().items()
    }
