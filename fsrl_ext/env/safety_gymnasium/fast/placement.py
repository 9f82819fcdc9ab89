"""Place objects by rejection as safety-gymnasium does, with the same random draws and less Python per draw.

The package's sampler builds three arrays per comparison of two objects. A crowded task (Button) rejects
thousands of candidates per reset, which takes 240 ms. The sampler of this module takes the same numbers from
the stream.

Dimension letters: ``K`` candidates, ``O`` objects that were placed before.
"""

import functools
import math

import numpy as np
from safety_gymnasium.utils.common_utils import ResamplingError
from safety_gymnasium.utils.random_generator import RandomGenerator

Rectangle = tuple[float, float, float, float]
# Centre of a placed object (x, y), and the distance that a new object has to keep from it.
Neighbour = tuple[float, float, float]

# Candidates per object and layouts per reset before the search fails, as in the package.
_TRIES, _LAYOUTS = 100, 10_000
# Candidates that are compared one by one, before the remaining ones are compared at once.
_ALONE = 12
# Numbers that a `UniformStream` draws first; each further block is twice as large.
_FIRST_BLOCK = 256


@functools.cache
def uniform_rounds_twice() -> bool:
    """Tell whether NumPy's `uniform(a, b)` is `a + (b - a) * u` with both roundings on this machine.

    A build of NumPy that fuses multiplication and addition rounds only once.
    """
    low, high = -1.3, 1.7000000001
    numbers = np.random.RandomState(0).uniform(low, high, 1000)
    return np.array_equal(numbers, low + (high - low) * np.random.RandomState(0).random_sample(1000))


def distances(
    places: dict[str, tuple[float, float]], keepouts: dict[str, float], margin: float, keepout: float
) -> list[Neighbour]:
    """Return what a new object with a `keepout` must keep clear of, summed in the package's order."""
    return [(x, y, keepouts[name] + margin + keepout) for name, (x, y) in places.items()]


def keeps_clear(x: float, y: float, neighbours: list[Neighbour]) -> bool:
    """Tell whether a point keeps its distance from all neighbours.

    The function replaces `np.sqrt(np.sum(np.square(a - b)))` per pair. It is exact, because the sum of two
    squares has only one order, and `math.sqrt` rounds correctly as `np.sqrt` does.
    """
    for other_x, other_y, distance in neighbours:
        dx, dy = x - other_x, y - other_y
        if math.sqrt(dx * dx + dy * dy) < distance:
            return False
    return True


def first_clear(candidates: np.ndarray, neighbours: list[Neighbour]) -> int | None:
    """Return the first of the candidates ``[K, 2]`` that `keeps_clear` accepts, by the same operations."""
    x, y, distance = np.array(neighbours).reshape(-1, 3).T
    dx, dy = candidates[:, :1] - x, candidates[:, 1:] - y  # [K, O]
    clear = ~(np.sqrt(dx * dx + dy * dy) < distance).any(axis=1)
    return int(clear.argmax()) if clear.any() else None


class UniformStream:
    """Draws in blocks the numbers in [0, 1) that a generator would give one by one.

    :param generator: the generator, which nothing else may use before `close`; `close` sets it to the state
        after the numbers that were used.
    """

    def __init__(self, generator: np.random.RandomState) -> None:
        self._generator = generator
        self._before = generator.get_state(legacy=False)
        self._block = _FIRST_BLOCK
        self.array = np.empty(0)
        self.numbers: list[float] = []
        self.used = 0

    def reserve(self, count: int) -> None:
        """Draw blocks until at least `count` numbers are unused."""
        while len(self.numbers) - self.used < count:
            self.array = np.append(self.array, self._generator.random_sample(self._block))
            self.numbers = self.array.tolist()
            self._block *= 2

    def close(self) -> None:
        """Set the generator to the state in which single draws of the used numbers leave it."""
        self._generator.set_state(self._before)
        self._generator.random_sample(self.used)


class QuickRandomGenerator(RandomGenerator):
    """Draws the layouts that the package's generator draws from the same stream."""

    def _areas(self) -> dict[str, Rectangle] | None:
        """Return the rectangle of each object's centre; None where the package's sampler does more."""
        areas = {}
        for name, (rectangles, keepout) in self.placements.items():
            if rectangles is not None and len(rectangles) != 1:
                return None
            area = self.placements_extents if rectangles is None else rectangles[0]
            x_min, y_min, x_max, y_max = areas[name] = self.constrain_placement(area, keepout)
            if x_min > x_max or y_min > y_max:
                return None
        return areas

    def build_layout(self) -> dict[str, np.ndarray]:
        """Draw places ``[2]`` for all objects.

        The method replaces the package's where every object has one rectangle. It is exact, because the same
        candidates meet the same comparisons in the same order, and as many numbers are taken.

        :raises ResamplingError: the search for a layout failed, as in the package.
        """
        areas = self._areas()
        if areas is None or not uniform_rounds_twice():
            return super().build_layout()
        stream = UniformStream(self.random_generator)
        try:
            for _ in range(_LAYOUTS):
                layout = self._try_layout(areas, stream)
                if layout is not None:
                    self.layout = {name: np.array(place) for name, place in layout.items()}
                    return self.layout
        finally:
            stream.close()
        raise ResamplingError("Failed to sample layout of objects")

    def _try_layout(
        self, areas: dict[str, Rectangle], stream: UniformStream
    ) -> dict[str, tuple[float, float]] | None:
        places: dict[str, tuple[float, float]] = {}
        keepouts = self._keepouts()
        for name, area in areas.items():
            neighbours = distances(places, keepouts, self.placements_margin, keepouts[name])
            place = self._place(area, neighbours, stream)
            if place is None:
                return None
            places[name] = place
        return places

    def _keepouts(self) -> dict[str, float]:
        return {name: keepout for name, (_, keepout) in self.placements.items()}

    def _place(
        self, area: Rectangle, neighbours: list[Neighbour], stream: UniformStream
    ) -> tuple[float, float] | None:
        """Return the first candidate for one object that keeps clear; None if all fail."""
        x_min, y_min, x_max, y_max = area
        width, height = x_max - x_min, y_max - y_min
        stream.reserve(2 * _TRIES)
        numbers, used = stream.numbers, stream.used
        for at in range(used, used + 2 * _ALONE, 2):
            x, y = x_min + width * numbers[at], y_min + height * numbers[at + 1]
            if keeps_clear(x, y, neighbours):
                stream.used = at + 2
                return x, y
        others = stream.array[used + 2 * _ALONE : used + 2 * _TRIES].reshape(-1, 2)
        candidates = np.array([x_min, y_min]) + np.array([width, height]) * others
        first = first_clear(candidates, neighbours)
        stream.used += 2 * (_TRIES if first is None else _ALONE + first + 1)
        if first is None:
            return None
        x, y = candidates[first].tolist()
        return x, y

    def sample_goal_position(self) -> bool:
        """Draw a place for the goal into `layout`; return False if the place is too near to an object.

        The method makes the package's draw and comparisons on floats.
        """
        rectangles, keepout = self.placements["goal"]
        x, y = self.draw_placement(rectangles, keepout).tolist()
        others = {name: tuple(xy.tolist()) for name, xy in self.layout.items()}
        neighbours = distances(others, self._keepouts(), self.placements_margin, keepout)
        if not keeps_clear(x, y, neighbours):
            return False
        self.layout["goal"] = np.array([x, y])
        return True
