"""The seed schemes are disjoint where they must be, and their numbers never change."""

import pytest

from fsrl_ext.trainer.seeds import (
    adaptation_seeds,
    collecting_process_seed,
    meta_iteration_seeds,
    renewed_seeds,
    seed_range,
)


def test_seeds_never_overlap():
    ranges = [seed_range("selection", 1000), seed_range("final", 1000)]
    ranges += [seed_range("train", 1000, run_seed=s) for s in (0, 1, 7)]
    ranges += [meta_iteration_seeds(0, 5, 1000), adaptation_seeds(0, 1000)]
    assert min(ranges[-1]) >= 2**31
    assert max(ranges[-1]) < 2**32
    seeds = [s for r in ranges for s in r]
    assert len(set(seeds)) == len(seeds)


def test_an_unknown_purpose_is_named():
    with pytest.raises(
        ValueError, match=r"purpose must be one of \['final', 'selection', 'train'\], got 'test'"
    ):
        seed_range("test", 3)


def test_published_results_keep_their_seeds():
    """Other numbers here would change every run."""
    assert list(seed_range("train", 2, run_seed=3)) == [3003000, 3003001]
    assert renewed_seeds(3003000, 4, 2) == [865572501, 409656310]
    assert meta_iteration_seeds(3, 7, 2) == [3437495880, 3261058259]
    assert adaptation_seeds(3, 2) == [3936950639, 3277705548]
    assert collecting_process_seed(3) == 457190280
