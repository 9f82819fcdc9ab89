"""Lend a random stream to code that draws from the global generators."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np

# `np.random.seed` takes seeds in [0, SEED_END).
SEED_END = 2**32


class LegacyRandom:
    """Holds one stream of the global generators of `random` and NumPy, apart from all other streams.

    A call of the instance returns a context. Inside of it, the global generators continue this stream;
    afterwards they are as they were before. The generators belong to the whole process, so no other thread
    should draw from them inside of the context.

    :param seed: a seed for `random.seed` and `np.random.seed`, in ``[0, SEED_END)``.
    """

    def __init__(self, seed: int) -> None:
        self._lent = False
        self._random = random.Random(seed).getstate()
        self._numpy = np.random.RandomState(seed).get_state(legacy=False)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Let the block draw from this stream; a block inside another block continues the same stream."""
        if self._lent:
            yield
            return
        saved = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002
        random.setstate(self._random)
        np.random.set_state(self._numpy)  # noqa: NPY002
        self._lent = True
        try:
            yield
        finally:
            self._lent = False
            self._random = random.getstate()
            self._numpy = np.random.get_state(legacy=False)  # noqa: NPY002
            random.setstate(saved[0])
            np.random.set_state(saved[1])  # noqa: NPY002
