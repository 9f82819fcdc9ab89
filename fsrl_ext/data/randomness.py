"""The global random number generators of this process."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch


def seed_globals(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch, on all devices.

    :param seed: >= 0; NumPy's generator gets its remainder by ``2**32``.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - Tianshou and simulators draw from it
    torch.manual_seed(seed)


@contextlib.contextmanager
def private_randomness(seed: int) -> Iterator[None]:
    """Let the block draw from global generators that are seeded for it; afterwards they are as before.

    What the block draws then depends on the seed alone, and what is drawn after it does not depend on the
    block.
    """
    before = GlobalRandomness().state_dict()
    seed_globals(seed)
    try:
        yield
    finally:
        GlobalRandomness().load_state_dict(before)


class GlobalRandomness:
    """The state of the global generators of Python, NumPy and torch, on all devices."""

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the generators."""
        return {
            "python": random.getstate(),
            "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 - Tianshou and simulators draw from it
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned.

        The generators of CUDA devices stay as they are if there is another number of devices now.
        """
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])  # noqa: NPY002 - Tianshou and simulators draw from it
        torch.set_rng_state(state["torch"])
        if len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
