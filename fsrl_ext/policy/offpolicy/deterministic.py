"""How deterministic policies act.

Dimension letters: ``B`` batch, ``A`` action.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def explore(act: Tensor, std: float) -> Tensor:
    """Actions ``[B, A]`` with Gaussian noise, clipped to the box as the environment would."""
    return (act + std * torch.randn_like(act)).clamp(-1.0, 1.0)


def act_deterministically(actor: nn.Module, obs: Any, state: Any, *, std: float) -> tuple[Tensor, Any]:
    """Actions ``[B, A]`` of ``(action, state) = actor(obs)``, with noise unless ``std`` is zero."""
    act, state = actor(obs, state=state)
    return (explore(act, std) if std > 0 else act), state
