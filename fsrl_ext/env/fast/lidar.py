"""The lidar of many objects in one pass.

Dimension letters: ``O`` objects, ``B`` bins.
"""

import numpy as np

_CIRCLE = np.pi * 2


class Lidar:
    """What each of some objects writes into a lidar, and where.

    Replaces the loop of `BaseTask._obs_lidar_pseudo` over objects. Exact: the elementwise functions
    are those of the stock code, and each row meets the matrix as a vector of its own, which is the
    product that the stock code takes (a product of two matrices may round otherwise).

    NumPy's `arctan2` and complex `abs` are not the same function, bit for bit, when input and output
    touch in memory: so their results have places of their own, apart from each other.

    :param count: the number of objects ``O``.
    :param bins: the number of bins ``B``.
    :param alias: whether an object also shows in the neighbouring bins.
    """

    def __init__(self, count: int, bins: int, alias: bool) -> None:
        self.count, self.bins, self.alias = count, bins, alias
        self._world, self._ego = np.zeros((count, 1, 3)), np.zeros((count, 1, 3))
        self._complex = np.zeros(count, np.complex128)
        self._pairs = self._complex.view(np.float64).reshape(count, 2)
        apart = np.zeros((4, count + 8))[:, :count]
        self._distance, self._angle, self._turn, self._share = apart
        shown = 3 if alias else 1
        self._places, self._closeness = np.zeros((shown, count), np.intp), np.zeros((shown, count))
        numbers = np.arange(bins)
        self._plus, self._minus = (numbers + 1) % bins, (numbers - 1) % bins

    def look(
        self, positions: np.ndarray, agent_pos: np.ndarray, agent_mat: np.ndarray, reach: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bins and closeness, each ``[1 or 3, O]``; overwritten by the next call.

        :param positions: in the world, ``[O, 3]``; their height counts as 0, as in the package.
        :param agent_pos: ``[3]``.
        :param agent_mat: ``[3, 3]``.
        :param reach: distance from which on an object is not seen.
        """
        positions[:, 2] = 0.0
        np.subtract(positions, agent_pos, out=self._world[:, 0])
        np.matmul(self._world, agent_mat, out=self._ego)
        self._pairs[:] = self._ego[:, 0, :2]
        # A complex number's absolute value is not NumPy's hypot, bit for bit.
        distance = np.abs(self._complex, out=self._distance)
        angle = np.arctan2(self._pairs[:, 1], self._pairs[:, 0], out=self._angle)
        # The remainder of an angle in [-pi, pi] adds the circle to what is below zero.
        angle += np.multiply(angle < 0, _CIRCLE, out=self._turn)
        size = _CIRCLE / self.bins
        bins = np.divide(angle, size, out=self._turn).astype(np.intp)
        closeness = np.maximum(np.subtract(reach, distance, out=distance), 0.0, out=distance)
        np.divide(closeness, reach, out=self._closeness[0])
        self._places[0] = bins
        if self.alias:
            share = np.multiply(size, bins, out=self._share)
            np.divide(np.subtract(angle, share, out=share), size, out=share)
            np.multiply(share, self._closeness[0], out=self._closeness[1])
            np.multiply(1 - share, self._closeness[0], out=self._closeness[2])
            self._plus.take(bins, out=self._places[1])
            self._minus.take(bins, out=self._places[2])
        return self._places, self._closeness
