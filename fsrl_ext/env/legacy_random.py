"""A random stream for code that draws from the global generators."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np


class LegacyRandom:
    """One stream of the global generators of `random` and NumPy, kept apart from all others.

    Calling the instance gives a context that lends the global generators this stream, and gives
    them back afterwards as they were. The generators belong to the whole process, so no other
    thread should draw from them meanwhile.

    :param seed: what `random.seed` and `np.random.seed` would get, in ``[0, 2**32)``.
    """

    def __init__(self, seed: int) -> None:
        self._lent = False
        self._random = random.Random(seed).getstate()
        self._numpy = np.random.RandomState(seed).get_state(legacy=False)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Let the block draw from this stream; a block inside another goes on with it."""
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
