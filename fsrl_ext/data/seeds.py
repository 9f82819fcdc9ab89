"""The seeds that buffers and collectors derive from others.

The seeds of training runs are in :mod:`fsrl_ext.trainer.seeds`.
"""

from collections.abc import Sequence

import numpy as np


def buffer_seeds(seed: int, num_buffers: int) -> list[int]:
    """Derive the seeds for the sampling of a vector buffer and, after it, of each of its sub-buffers.

    Tianshou seeds all of them alike, which correlates the draws from different sub-buffers.

    :return: ``1 + num_buffers`` seeds.
    """
    return [int(x) for x in np.random.SeedSequence(seed).generate_state(num_buffers + 1)]


def restart_seeds(collect_step: int, last_seeds: Sequence[int | None], num_envs: int) -> list[int]:
    """Derive environment seeds for new episodes, where a resumed collector could not repeat the old ones.

    :param collect_step: environment steps that were collected before.
    :param last_seeds: the environments' last seeds, None for one that was never seeded.
    """
    sequence = np.random.SeedSequence([collect_step, *(x or 0 for x in last_seeds)])
    return (sequence.generate_state(num_envs) >> 1).tolist()
