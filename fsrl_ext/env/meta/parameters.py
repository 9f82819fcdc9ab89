"""What a task of a family is made of, and the distributions it is drawn from.

A distribution turns one number of [0, 1) into a value. The numbers come from the bits of NumPy's PCG64,
which NumPy keeps as they are, unlike the methods of its `Generator`, and the arithmetic is Python's: so a
seed means the same parameters everywhere.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

# Booleans and integers too.
Value = float | str


class Parameters(Mapping[str, Any]):
    """The values of a task by name: a mapping that cannot be changed, with a hash.

    :param values: one `Value` per name; the order is kept and does not count for equality.
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
    """One parameter's distribution; a class with these two methods is one."""

    def draw(self, u: float, drawn: Mapping[str, Any]) -> Value:
        """Turn a number into a value.

        :param u: uniform on [0, 1).
        :param drawn: the parameters that stand before this one.
        """
        ...

    def contains(self, value: Any, drawn: Mapping[str, Any]) -> bool:
        """Whether `value` can be drawn after `drawn`."""
        ...


@dataclass(frozen=True)
class Fixed:
    """Always the same value."""

    value: Value

    def draw(self, u: float, drawn: Mapping[str, Any]) -> Value:
        return self.value

    def contains(self, value: Any, drawn: Mapping[str, Any]) -> bool:
        return bool(value == self.value)


@dataclass(frozen=True)
class Uniform:
    """Uniform on the interval [low, high].

    :raises ValueError: the bounds are not finite, or in the wrong order.
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
    """Uniform on the integers low, ..., high, both included.

    :raises ValueError: a bound is no integer, or they are in the wrong order.
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
    """One of some values, each as likely.

    :raises ValueError: there is none.
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
    """A value that follows from parameters before it.

    :param function: takes them in the order of `of`. A lambda cannot be pickled without cloudpickle.
    :param of: their names.
    :raises ValueError: when it is drawn, if one of them is not before it.
    """

    function: Callable[..., Value]
    of: tuple[str, ...]

    def draw(self, u: float, drawn: Mapping[str, Any]) -> Value:
        if not drawn.keys() >= set(self.of):
            raise ValueError(f"of must name parameters that are drawn before, {list(drawn)}, got {self.of}")
        return self.function(*(drawn[name] for name in self.of))

    def contains(self, value: Any, drawn: Mapping[str, Any]) -> bool:
        return bool(value == self.draw(0.0, drawn))


def stream(name: str, *numbers: int) -> np.random.PCG64:
    """The random bits that belong to a name and some numbers of [0, 2**32)."""
    return np.random.PCG64(np.random.SeedSequence([zlib.crc32(name.encode()), *numbers]))


def draw_parameters(distributions: Mapping[str, Distribution], bits: np.random.PCG64) -> Parameters:
    """Draw all parameters in order, each from the upper 53 of the next 64 bits."""
    drawn: dict[str, Value] = {}
    for name, distribution in distributions.items():
        u = (int(bits.random_raw()) >> 11) * 2.0**-53
        drawn[name] = distribution.draw(u, drawn)
    return Parameters(drawn)


def contains(distributions: Mapping[str, Distribution], parameters: Mapping[str, Any]) -> bool:
    """Whether these parameters, and no others, can be drawn."""
    return parameters.keys() == distributions.keys() and all(
        distribution.contains(parameters[name], parameters) for name, distribution in distributions.items()
    )
