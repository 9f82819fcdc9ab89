"""Compute the lidar of many objects in one pass.

Dimension letters: ``O`` objects, ``B`` bins.
"""

import numpy as np

_CIRCLE = np.pi * 2
# Rows of intermediate results in `Lidar.look`, and unused numbers that keep two rows apart in memory.
_ROWS, _GAP = 10, 8


class Lidar:
    """Computes what each of some objects writes into a lidar, and into which bins.

    The class replaces the loop over objects in `BaseTask._obs_lidar_pseudo`. It is exact, because the
    elementwise functions are those of the package, and each row is multiplied with the matrix as a separate
    vector, as in the package (a product of two matrices may round differently).

    The last bits of NumPy's `arctan2` and complex `abs` depend on whether input and output are adjacent in
    memory. Each result therefore has a row of its own, apart from the other rows.

    :param count: the number of objects ``O``.
    :param bins: the number of bins ``B``.
    :param reach: distance beyond which an object is not seen.
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
        self._rows = list(np.zeros((_ROWS, count + _GAP))[:, :count])
        shown = 3 if alias else 1
        self._places, self._closeness = np.zeros((shown, count), np.intp), np.zeros((shown, count))
        self._place_rows, self._close_rows = list(self._places), list(self._closeness)
        numbers = np.arange(bins)
        self._plus, self._minus = (numbers + 1) % bins, (numbers - 1) % bins
        # Constants stand once per object, because broadcasting one number takes NumPy longer than the
        # arithmetic itself.
        constants = 0.0, 1.0, reach, _CIRCLE, _CIRCLE / bins
        rows = np.repeat(np.array(constants)[:, None], count, axis=1)
        self._zero, self._one, self._reach, self._circle, self._size = rows

    def look(
        self, positions: np.ndarray, agent_pos: np.ndarray, agent_mat: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return bins and closeness, each ``[1 or 3, O]``; the next call overwrites both arrays.

        :param positions: in the world, ``[O, 3]``; their heights are set to 0, as in the package.
        :param agent_pos: the agent's position ``[3]``.
        :param agent_mat: the agent's rotation matrix ``[3, 3]``.
        """
        positions[:, 2] = 0.0
        self._agent[:] = agent_pos
        np.subtract(positions, self._agent, out=self._world_rows)
        np.matmul(self._world, agent_mat, out=self._ego)
        self._pairs[:] = self._ego_xy
        # Each result has its own row; NumPy is also slower where output and input are the same array.
        distance, angle, turn, quotient, number, start, past, share, rest, near = self._rows
        # The package takes the absolute value of a complex number, whose last bits differ from np.hypot.
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
