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
    :param reach: distance from which on an object is not seen.
    :param alias: whether an object also shows in the neighbouring bins.
    """

    def __init__(self, count: int, bins: int, reach: float, alias: bool) -> None:
        self.conf = bins, reach, alias
        self._agent = np.zeros((count, 3))
        self._world, self._ego = np.zeros((count, 1, 3)), np.zeros((count, 1, 3))
        self._world_rows, self._ego_xy = self._world[:, 0], self._ego[:, 0, :2]
        self._complex = np.zeros(count, np.complex128)
        self._pairs = self._complex.view(np.float64).reshape(count, 2)
        self._x, self._y = self._pairs.T
        self._rows = list(np.zeros((10, count + 8))[:, :count])
        shown = 3 if alias else 1
        self._places, self._closeness = np.zeros((shown, count), np.intp), np.zeros((shown, count))
        self._place_rows, self._close_rows = list(self._places), list(self._closeness)
        numbers = np.arange(bins)
        self._plus, self._minus = (numbers + 1) % bins, (numbers - 1) % bins
        # One number per object: NumPy takes longer to spread one number than to compute with it.
        constants = 0.0, 1.0, reach, _CIRCLE, _CIRCLE / bins
        rows = np.repeat(np.array(constants)[:, None], count, axis=1)
        self._zero, self._one, self._reach, self._circle, self._size = rows

    def look(
        self, positions: np.ndarray, agent_pos: np.ndarray, agent_mat: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bins and closeness, each ``[1 or 3, O]``; overwritten by the next call.

        :param positions: in the world, ``[O, 3]``; their height counts as 0, as in the package.
        :param agent_pos: ``[3]``.
        :param agent_mat: ``[3, 3]``.
        """
        positions[:, 2] = 0.0
        self._agent[:] = agent_pos
        np.subtract(positions, self._agent, out=self._world_rows)
        np.matmul(self._world, agent_mat, out=self._ego)
        self._pairs[:] = self._ego_xy
        # A row for each result: NumPy is also slower where output and input are the same.
        distance, angle, turn, quotient, number, start, past, share, rest, near = self._rows
        # A complex number's absolute value is not NumPy's hypot, bit for bit.
        np.abs(self._complex, out=distance)
        np.arctan2(self._y, self._x, out=angle)
        np.remainder(angle, self._circle, out=turn)
        np.trunc(np.divide(turn, self._size, out=quotient), out=number)
        np.subtract(self._reach, distance, out=near)
        closeness = np.divide(np.maximum(near, self._zero, out=rest), self._reach, out=self._close_rows[0])
        bins = number.astype(np.intp)
        self._place_rows[0][:] = bins
        if len(self._place_rows) == 3:
            np.subtract(turn, np.multiply(self._size, number, out=start), out=past)
            np.divide(past, self._size, out=share)
            np.multiply(share, closeness, out=self._close_rows[1])
            np.multiply(np.subtract(self._one, share, out=rest), closeness, out=self._close_rows[2])
            self._place_rows[1][:] = self._plus.take(bins)
            self._place_rows[2][:] = self._minus.take(bins)
        return self._places, self._closeness
