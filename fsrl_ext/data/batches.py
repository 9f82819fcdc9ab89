"""Tianshou's ``Batch`` without its conversions."""

from typing import Any

from tianshou.data import Batch


def raw_batch(**entries: Any) -> Batch:
    """A batch of the entries as they are.

    ``Batch(...)`` looks into every entry and converts it, which takes longer than most of what is then done
    with the batch. ``benchmarks/throughput.py collect`` measures the gain for the collector and
    ``benchmarks/gradient_step.py`` (the stage "sample and gather") the one for sampling.
    """
    batch = Batch()
    batch.__dict__.update(entries)
    return batch
