"""Every scheme by which the seed of a run becomes the seeds of its environments and processes.

The ranges of :func:`seed_range` and the seeds from ``2**31`` onwards never overlap, so no policy is judged on
the episodes that its training began with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fsrl_ext.errors import checked


@checked(at_least_zero=("count", "run_seed"))
def seed_range(purpose: str, count: int, *, run_seed: int = 0) -> Sequence[int]:
    """Return ``count`` environment seeds for a purpose.

    Selection and final seeds are the same for every run, so policies are compared on the same episodes.

    :param purpose: ``"train"`` (the first episodes of the training environments), ``"selection"`` or
        ``"final"``.
    :param run_seed: the run's seed; of the three purposes only ``"train"`` depends on it, and seeds that
        differ by two million have the same ones.
    :raises ValueError: ``purpose`` is none of the three.
    """
    # Simulators take seeds below 2**32, and those from 2**31 on are of other schemes.
    first = 3_000_000 + 1_000 * (run_seed % 2_000_000)
    starts = {"selection": 1_000_000, "final": 2_000_000, "train": first}
    if purpose not in starts:
        raise ValueError(f"purpose must be one of {sorted(starts)}, got {purpose!r}")
    start = starts[purpose]
    return range(start, start + count)


@checked(at_least_zero=("first_seed", "epoch", "count"))
def renewed_seeds(first_seed: int, epoch: int, count: int) -> list[int]:
    """Return the seeds that training environments are seeded anew with after an epoch.

    :param first_seed: the first environment's first seed.
    """
    return (np.random.SeedSequence([first_seed, epoch]).generate_state(count) >> 1).tolist()


@checked(at_least_zero=("run_seed", "iteration", "count"))
def meta_iteration_seeds(run_seed: int, iteration: int, count: int) -> list[int]:
    """Return the seeds of the first episodes of all ``count`` environments of a meta-iteration.

    They are at least ``2**31``, beyond the seeds of selections and final evaluations.
    """
    return _beyond_ranges([run_seed, iteration], count)


@checked(at_least_zero=("seed", "count"))
def adaptation_seeds(seed: int, count: int) -> list[int]:
    """Return the seeds of the first episodes of the environments that a saved policy adapts in.

    They are at least ``2**31``, beyond the seeds of selections and final evaluations.
    """
    return _beyond_ranges([seed, 0, 1], count)


@checked(at_least_zero=("run_seed",))
def collecting_process_seed(run_seed: int) -> int:
    """Return the seed of the random numbers of a process that collects ahead of the learner.

    It differs from the seeds of the learner and of the environments.
    """
    return int(np.random.SeedSequence([run_seed, 1]).generate_state(1)[0])


def _beyond_ranges(entropy: list[int], count: int) -> list[int]:
    return [2**31 + int(x) // 2 for x in np.random.SeedSequence(entropy).generate_state(count)]
