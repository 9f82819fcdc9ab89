"""Settings that only some machines can use, or are fast with, checked before a run writes anything."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import torch

from fsrl_ext.experiment.config import ExperimentConfig

CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux lists the instructions of the processor."""
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux calls the instructions that multiply bfloat16 numbers: two of x86, and that of ARM."""


def check_machine(config: ExperimentConfig, *, resumed: bool = False) -> None:
    """Checks that the settings can be used here, and that none makes the run slower than without it.

    :param resumed: whether the run began before; its settings are fixed, so a warning replaces the error.
    :raises ValueError: for ``estep_precision="bfloat16"`` on a processor without bfloat16 instructions, where
        a gradient step takes several times as long as in float32 (``docs/throughput.md``).
    :raises ImportError: for Ray workers without Ray.
    """
    if config.training.uses_ray and importlib.util.find_spec("ray") is None:
        raise ImportError("worker_type='ray' needs Ray, which is not installed: pip install 'fsrl_ext[ray]'")
    precision = getattr(config.policy_config, "estep_precision", None)
    if precision != "bfloat16" or torch.device(config.device).type != "cpu" or multiplies_bfloat16():
        return
    if resumed:
        warnings.warn(
            "the run goes on slowly here: its estep_precision is 'bfloat16', and this processor has no "
            "bfloat16 instructions",
            stacklevel=3,
        )
        return
    raise ValueError(
        "estep_precision must be 'float32' on this processor, which has no bfloat16 instructions and would "
        "train several times slower, or 'forced-bfloat16' to train all the same, got 'bfloat16'"
    )


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions that multiply bfloat16 numbers, as far as can be told."""
    # Private functions that newer versions of torch have; Linux says the same, other systems say nothing.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    if any(getattr(torch.cpu, name, lambda: False)() for name in names):
        return True
    if not CPU_INFO.is_file():
        return False
    for line in CPU_INFO.read_text().splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):  # on x86 and on ARM
            return not BFLOAT16_FLAGS.isdisjoint(flags.split())
    return False
