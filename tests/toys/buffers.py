"""Buffers that are filled by hand, so that every stored number is known."""

from __future__ import annotations

import numpy as np
from tianshou.data import Batch

from fsrl_ext.data import CostReplayBuffer, CostVectorReplayBuffer


def numbered_step(i, rows=2, num_costs=1, done=False, **changes):
    """Return transition ``i`` of ``rows`` environments, whose numbers tell environment and step.

    :param changes: entries that replace the transition's own; None leaves an entry out.
    """
    ids = np.arange(rows)
    fields = {
        "obs": np.stack([ids, np.full(rows, i)], 1) + 0.1,
        "act": np.full((rows, 1), 0.01 * i),
        "rew": i + 0.5 * ids,
        "terminated": np.full(rows, done),
        "truncated": np.zeros(rows, dtype=bool),
        "obs_next": np.stack([ids, np.full(rows, i + 1)], 1) + 0.1,
        "cost": 0.1 * i + ids[:, None] + np.arange(num_costs),
        "info": {"x": ids},
        "policy": Batch(),
    } | changes
    return Batch({key: value for key, value in fields.items() if value is not None})


def append_numbered(buffer, i):
    """Add transition ``i`` to every environment's buffer; each third transition ends an episode."""
    rows = getattr(buffer, "buffer_num", 1)
    batch = numbered_step(i, rows, buffer.num_costs, done=i % 3 == 2)
    return buffer.add(batch, buffer_ids=np.arange(rows))


def numbered_buffer(kind, steps=23, num_costs=1, **kwargs):
    """Return a buffer of 8 transitions, or of 2 x 8, that has wrapped around.

    :param kind: the buffer's class.
    """
    if kind is CostVectorReplayBuffer:
        buffer = CostVectorReplayBuffer(16, 2, num_costs, **kwargs)
    else:
        buffer = CostReplayBuffer(8, num_costs, **kwargs)
    for i in range(steps):
        append_numbered(buffer, i)
    return buffer


def add_step(buffer, env, obs, obs_next, *, terminated=False, truncated=False, rew=1.0, cost=0.5):
    """Add one transition with observations of one number and action 0 to an environment's buffer."""
    batch = Batch(
        obs=np.array([[obs]]), obs_next=np.array([[obs_next]]), act=np.zeros((1, 1)), rew=[rew],
        cost=[[cost]], terminated=[terminated], truncated=[truncated], info={},
    )  # fmt: skip
    buffer.add(batch, buffer_ids=[env])
