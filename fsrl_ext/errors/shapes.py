"""Shapes of tensors, of which a letter stands for the same size in all arguments of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def parsed_shape(text: str) -> tuple[bool, bool, tuple[str, ...]]:
    """Whether the tensor holds truth values, whether any sizes may stand in front, and the letters."""
    letters = text.split()
    is_bool = letters[:1] == ["bool"]
    letters = letters[is_bool:]
    has_front = letters[:1] == ["..."]
    return is_bool, has_front, tuple(letters[has_front:])


def check_shapes(given: Mapping[str, Any], wanted: Mapping[str, tuple[bool, bool, tuple[str, ...]]]) -> None:
    """:raises ValueError: for a tensor of another number type, or of sizes that contradict those before."""
    sizes: dict[str, Any] = {str(number): number for number in range(1, 4)}  # by letter
    for name, (is_bool, has_front, letters) in wanted.items():
        tensor = given.get(name)
        if tensor is None:
            continue
        shape = tensor.shape
        front = len(shape) - len(letters)
        fits = front >= 0 if has_front else front == 0
        if fits and has_front:
            fits = sizes.setdefault("...", shape[:front]) == shape[:front]
        if not fits or any(
            sizes.setdefault(letter, size) != size
            for letter, size in zip(letters, shape[front:], strict=True)
        ):
            raise ValueError(_wrong_shape(name, shape, has_front, letters, sizes))
        if not (tensor.dtype.is_floating_point or is_bool) or (str(tensor.dtype) != "torch.bool") == is_bool:
            kind = "truth values" if is_bool else "floating-point numbers"
            raise ValueError(f"{name} must hold {kind}, got {tensor.dtype}")


def _wrong_shape(
    name: str, shape: Sequence[int], has_front: bool, letters: Sequence[str], sizes: Mapping[str, Any]
) -> str:
    form = (["..."] if has_front else []) + list(letters)
    known = [*sizes.get("...", ["..."])] if has_front else []
    known += [sizes.get(letter, letter) for letter in letters]
    said = f" = [{', '.join(map(str, known))}] as the other arguments have it" if known != form else ""
    return f"{name} must have shape [{', '.join(form)}]{said}, got {list(shape)}"
