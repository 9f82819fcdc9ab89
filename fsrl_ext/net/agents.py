"""Act for several agents: an actor that all agents share, or one actor for each.

Dimension letters: ``B`` batch, ``N`` agents, ``O`` numbers that all agents observe, ``A`` numbers of all
agents' actions; ``Oi`` and ``Ai`` are those of one agent, ``O1`` and ``A1`` the largest of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsrl_ext.errors import checked


class AgentActors(nn.Module):
    """Lets every agent of a team act on its own observations alone.

    The call is that of the actors in it. With ``shared`` the agents are rows of one batch: one actor sees an
    agent's observations, with zeros up to ``O1`` and the agent's number as a one-hot vector after them, and
    the first ``Ai`` of its ``A1`` actions are the agent's. Otherwise each agent has an actor of its own.

    :param obs_dims: ``[N]`` numbers that each agent observes.
    :param act_dims: ``[N]`` numbers of each agent's action.
    :param make_actor: builds an actor from the lengths of its observations and of its actions; the actor
        returns actions ``[B, Ai]``, or mean ``[B, Ai]`` and standard deviations ``[B, Ai]`` or a Cholesky
        factor ``[B, Ai, Ai]``.
    :param shared: whether all agents share one actor.
    :raises ValueError: the two sequences have different lengths, or are empty.
    """

    @checked(at_least_one=("obs_dims", "act_dims"))
    def __init__(
        self,
        obs_dims: Sequence[int],
        act_dims: Sequence[int],
        make_actor: Callable[[int, int], nn.Module],
        *,
        shared: bool,
    ) -> None:
        super().__init__()
        if not obs_dims or len(obs_dims) != len(act_dims):
            raise ValueError(
                f"obs_dims and act_dims must have one entry for each agent, got {obs_dims} and {act_dims}"
            )
        self.obs_dims, self.act_dims, self.shared = tuple(obs_dims), tuple(act_dims), shared
        count = len(self.obs_dims)
        if shared:
            actors = [make_actor(max(obs_dims) + count, max(act_dims))]
        else:
            actors = [make_actor(o, a) for o, a in zip(obs_dims, act_dims, strict=True)]
        # The annotation is `Any` because a ModuleList has no element type.
        self.actors: Any = nn.ModuleList(actors)
        self.obs_index: Tensor
        self.numbers: Tensor
        # Where an agent observes less than O1 numbers, it sees the zero that follows all observations.
        self.register_buffer("obs_index", _places(obs_dims, padding=sum(obs_dims)), persistent=False)
        self.register_buffer("numbers", torch.eye(count), persistent=False)

    def forward(self, obs: np.ndarray | Tensor, state: Any = None, info: Any = None) -> tuple[Any, Any]:
        """Return what the actors return, for all agents together.

        :param obs: ``[B, O]`` or longer; what follows the agents' own observations is not looked at.
        :return: actions ``[B, A]``, or mean ``[B, A]`` and standard deviations ``[B, A]`` or a Cholesky
            factor ``[B, A, A]``, and the state as it was.
        """
        seen = torch.as_tensor(obs, dtype=self.numbers.dtype, device=self.numbers.device).flatten(1)
        seen = seen[:, : sum(self.obs_dims)]
        outputs = self._shared(seen) if self.shared else self._apart(seen)
        if len(outputs) == 1:
            return torch.cat(outputs[0], 1), state
        mean, scale = outputs
        joint = self._blocks(scale) if scale[0].dim() == 3 else torch.cat(scale, 1)
        return (torch.cat(mean, 1), joint), state

    def _shared(self, seen: Tensor) -> list[list[Tensor]]:
        """Return each of the actor's outputs by agent, for observations ``[B, O]``."""
        count = len(self.obs_dims)
        padded = torch.cat([seen, seen.new_zeros(len(seen), 1)], 1)[:, self.obs_index]
        rows = torch.cat([padded, self.numbers.expand(len(seen), count, count)], 2).flatten(0, 1)
        answer = self.actors[0](rows)[0]
        parts = [x.unflatten(0, (len(seen), count)).unbind(1) for x in _as_list(answer)]
        return [
            [x[:, :a] if x.dim() == 2 else x[:, :a, :a] for x, a in zip(part, self.act_dims, strict=True)]
            for part in parts
        ]

    def _apart(self, seen: Tensor) -> list[list[Tensor]]:
        """Return each output of the actors by agent, for observations ``[B, O]``."""
        own = seen.split(self.obs_dims, dim=1)
        answers = [_as_list(actor(x.contiguous())[0]) for actor, x in zip(self.actors, own, strict=True)]
        return [list(part) for part in zip(*answers, strict=True)]

    def _blocks(self, factors: list[Tensor]) -> Tensor:
        """Return one factor ``[B, A, A]``: the agents' actions do not depend on each other."""
        size = sum(self.act_dims)
        joint, first = factors[0].new_zeros(len(factors[0]), size, size), 0
        for factor, a in zip(factors, self.act_dims, strict=True):
            joint[:, first : first + a, first : first + a] = factor
            first += a
        return joint


def _as_list(answer: Any) -> list[Tensor]:
    return [answer] if isinstance(answer, Tensor) else list(answer)


def _places(sizes: Sequence[int], *, padding: int) -> Tensor:
    """Return the places ``[N, largest size]`` of each agent's numbers in the joint vector."""
    places = torch.full((len(sizes), max(sizes)), padding)
    first = 0
    for row, size in zip(places, sizes, strict=True):
        row[:size] = torch.arange(first, first + size)
        first += size
    return places
