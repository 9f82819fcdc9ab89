"""Define the parameters of a task, and the distributions from which they are drawn.

A distribution turns one number in [0, 1) into a value. The numbers come from the bits of NumPy's PCG64, and
the arithmetic is Python's. NumPy guarantees these bits, unlike the methods of its `Generator`, so that a seed
gives the same parameters everywhere.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

# A value may also be a boolean or an integer, which type checkers accept as a float.
Value = float | str


class Parameters(Mapping[str, Any]):
    """Holds the values of a task by name; the mapping cannot be changed and has a hash.

    :param values: one `Value` per name. The mapping keeps the order, which does not count for equality.
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return f"Parameters({', '.join(f'{name}={value!r}' for name, value in self._values.items())})"


@runtime_checkable
class Distribution(Protocol):
    """Is the distribution of one parameter: any class that has these two methods."""

    def draw(self, u: float, drawn: Mapping[str, Any]) -> Value:
        """Turn a number into a value.

        :param u: uniform on [0, 1).
        :param drawn: the parameters that were drawn before this one.
        """
        ...

    def contains(self, value: Any, drawn: Mapping[str, Any]) -> bool:
        """Tell whether `value` can be drawn after `drawn`."""
        ...


@dataclass(frozen=True)
class Fixed:
    """Gives always the same value."""

    value: Value

    def draw(self, u: float, drawn: Mapping[str, Any]) -> Value:
        return self.value

    def contains(self, value: Any, drawn: Mapping[str, Any]) -> bool:
        return bool(value == self.value)


@dataclass(frozen=True)
class Uniform:
    """Is uniform on the interval [low, high].

    :raises ValueError: a bound is not finite, or `low` is above `high`.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"low and high must be finite and low <= high, got {self.low} and {self.high}")

    def draw(self, u: float, drawn: Mapping[str, Any]) -> float:
        return self.low + (self.high - self.low) * u

    def contains(self, value: Any, drawn: Mapping[str, Any]) -> bool:
        return bool(self.low <= value <= self.high)


@dataclass(frozen=True)
class Integers:
    """Is uniform on the integers from `low` to `high`, both included.

    :raises ValueError: a bound is no integer, or `low` is above `high`.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if not (isinstance(self.low, int) and isinstance(self.high, int) and self.low <= self.high):
            raise ValueError(
                f"low and high must be integers and low <= high, got {self.low!r} and {self.high!r}"
            )

    def draw(self, u: float, drawn: Mapping[str, Any]) -> int:
        return self.low + int(u * (self.high - self.low + 1))

    def contains(self, value: Any, drawn: Mapping[str, Any]) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """Gives one of some values, each with the same probability.

    :raises ValueError: there are no values.
    """

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"values must not be empty, got {self.values!r}")

    def draw(self, u: float, drawn: Mapping[str, Any]) -> Value:
        return self.values[int(u * len(self.values))]

    def contains(self, value: Any, drawn: Mapping[str, Any]) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Computed:
    """Computes a value from parameters that were drawn before.

    :param function: takes the parameters in the order of `of`. Only cloudpickle can pickle a lambda.
    :param of: the names of the parameters.
    :raises ValueError: `draw` raises it where one of the parameters was not drawn before.
    """

    function: Callable[..., Value]
    of: tuple[str, ...]

    def draw(self, u: float, drawn: Mapping[str, Any]) -> Value:
        if not drawn.keys() >= set(self.of):
            raise ValueError(f"of must name parameters that are drawn before, {list(drawn)}, got {self.of}")
        return self.function(*(drawn[name] for name in self.of))

    def contains(self, value: Any, drawn: Mapping[str, Any]) -> bool:
        return bool(value == self.draw(0.0, drawn))


# PCG64 gives 64 bits at a time, of which a float's mantissa holds 53.
_RAW_BITS, _FLOAT_BITS = 64, 53


def stream(name: str, *numbers: int) -> np.random.PCG64:
    """Return the random bits that belong to a name and some numbers in [0, 2**32)."""
    return np.random.PCG64(np.random.SeedSequence([zlib.crc32(name.encode()), *numbers]))


def draw_parameters(distributions: Mapping[str, Distribution], bits: np.random.PCG64) -> Parameters:
    """Draw all parameters in order, each from the upper 53 bits of the next 64."""
    drawn: dict[str, Value] = {}
    for name, distribution in distributions.items():
        u = (int(bits.random_raw()) >> (_RAW_BITS - _FLOAT_BITS)) * 2.0**-_FLOAT_BITS
        drawn[name] = distribution.draw(u, drawn)
    return Parameters(drawn)


def contains(distributions: Mapping[str, Distribution], parameters: Mapping[str, Any]) -> bool:
    """Tell whether exactly these parameters can be drawn."""
    return parameters.keys() == distributions.keys() and all(
        distribution.contains(parameters[name], parameters) for name, distribution in distributions.items()
    )
