"""Actions of deterministic policies, with and without exploration noise.

Dimension letters: ``B`` batch, ``O`` observation, ``A`` action.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def act_deterministically(actor: nn.Module, obs: Any, state: Any, *, std: float) -> tuple[Tensor, Any]:
    """Returns actions ``[B, A]`` of ``actor`` for ``obs [B, O]``, and the actor's state.

    :param actor: called as ``action, state = actor(obs, state=state)``, with actions in ``[-1, 1]``.
    :param std: standard deviation of Gaussian noise on the actions, which are then clipped to ``[-1, 1]``; 0
        for no noise.
    """
    act, state = actor(obs, state=state)
    if std > 0:
        act = (act + std * torch.randn_like(act)).clamp(-1.0, 1.0)
    return act, state
