"""Tianshou's ``Batch`` without its conversions."""

from typing import Any

from tianshou.data import Batch


def raw_batch(**entries: Any) -> Batch:
    """Make a batch of the entries as they are.

    ``Batch(...)`` looks into every entry and converts it, which often takes longer than the use of the batch.
    ``benchmarks/throughput.py collect`` measures the gain for the collector and
    ``benchmarks/gradient_step.py`` (the stage "sample and gather") the one for sampling.
    """
    batch = Batch()
    batch.__dict__.update(entries)
    return batch
