"""Acting step by step through episodes, outside of a collector."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tianshou.data import Batch
from tianshou.policy import BasePolicy


class EpisodeActor:
    """Acts in one episode after the other, on one observation at a time.

    A recurrent policy remembers the episode: the hidden state of each step goes into the next one. Other
    policies act as their ``compute_action`` does.

    .. code-block:: python

        act = EpisodeActor(load_policy("runs/first"))
        obs, _ = env.reset()
        act.reset()
        obs, reward, terminated, truncated, info = env.step(act(obs))

    :param policy: its mode, training or evaluation, stays as it is.
    """

    def __init__(self, policy: BasePolicy) -> None:
        self.policy = policy
        self._state: Any = None

    def reset(self) -> None:
        """Forgets the episode, because a new one begins."""
        self._state = None

    @torch.no_grad()
    def __call__(self, obs: Any) -> Any:
        """Returns the action for an observation ``[O]``, in the environment's units.

        :return: an array ``[A]``, or a discrete action as ``int``.
        """
        if not getattr(self.policy, "is_recurrent", False):
            return self.policy.compute_action(obs)
        batch: Any = Batch(obs=np.asarray(obs)[None], info=Batch())
        answer = self.policy(batch, self._state)
        self._state = answer.state
        act = self.policy.map_action(answer.act)[0]
        return int(act) if act.ndim == 0 else act
