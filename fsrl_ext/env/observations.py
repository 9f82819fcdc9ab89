"""Turn observations into float32, and those of several parts into one vector.

Dimension letters: ``O`` numbers of a flat observation.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard

import numpy as np
from gymnasium import spaces

from fsrl_ext.env.cost_reader import ContractError


def is_image(space: spaces.Space) -> TypeGuard[spaces.Box]:
    """Tell whether a space has images: uint8 with three axes."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def float32_space(space: spaces.Space) -> spaces.Space:
    """Return the space with float32 boxes; images (uint8, three axes) and other spaces stay as they are."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: float32_space(sub) for key, sub in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([float32_space(sub) for sub in space.spaces])
    if not isinstance(space, spaces.Box) or is_image(space) or space.dtype == np.float32:
        return space
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    return spaces.Box(low, high, space.shape, np.float32)


def float32_caster(space: spaces.Space, env_id: str) -> Callable[[Any], Any]:
    """Return the function that casts an observation of `space` into `float32_space(space)`.

    The function can be pickled. It raises a `ContractError` for an image that is not uint8, because a cast
    would not tell which number is white.

    :param env_id: the environment's name in error messages.
    """
    if isinstance(space, spaces.Dict):
        parts = {key: float32_caster(sub, env_id) for key, sub in space.spaces.items()}
        return functools.partial(_cast_dict, parts)
    if isinstance(space, spaces.Tuple):
        return functools.partial(_cast_tuple, [float32_caster(sub, env_id) for sub in space.spaces])
    if is_image(space):
        return functools.partial(_checked_image, space.shape, env_id)
    if not isinstance(space, spaces.Box):
        return _as_it_is
    return functools.partial(np.asarray, dtype=np.float32)


def unflat_part(space: spaces.Space) -> str | None:
    """Describe the first part of a space that does not belong into a vector of numbers; None without one.

    Such parts are images, and spaces of which `gymnasium.spaces.flatten` makes no numbers.
    """
    for name, part in _parts(space, ""):
        where = f"observation part {name}" if name else "observation space"
        if is_image(part):
            return f"the {where} is an image, {part}"
        if not _is_flattenable(part):
            return f"the {where} is no space of numbers, {part}"
    return None


def unflat_fix(space: spaces.Space) -> str:
    """Return the line of code that leaves an `unflat_part` out of observations, and where it belongs."""
    if isinstance(space, spaces.Dict):
        flat = [key for key, part in space.spaces.items() if unflat_part(part) is None]
        return f"env = gymnasium.wrappers.FilterObservation(env, {flat})  # in the task's entry point"
    box = "gymnasium.spaces.Box(-np.inf, np.inf, (n,), np.float32)"
    return f"self.observation_space = {box}  # and return n numbers"


def flat_space(space: spaces.Space) -> spaces.Box:
    """Return the float32 box ``[O]`` of flat observations, for a space without an `unflat_part`."""
    is_flat = isinstance(space, spaces.Box) and len(space.shape) == 1
    flat: Any = float32_space(space if is_flat else spaces.flatten_space(space))
    return flat


def flat_caster(space: spaces.Space, env_id: str) -> Callable[[Any], np.ndarray]:
    """Return the function that casts an observation of `space` into `flat_space(space)`.

    The numbers are those of `gymnasium.spaces.flatten`: parts of a `Dict` in the order of its keys, those of
    a `Tuple` one after the other, and a one-hot vector for a `Discrete` part. The function can be pickled.

    :param space: a space without an `unflat_part`.
    :param env_id: the environment's name in error messages.
    """
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return functools.partial(np.asarray, dtype=np.float32)
    return functools.partial(_flat, space, env_id)


def _flat(space: spaces.Space, env_id: str, observation: Any) -> np.ndarray:
    """Flatten an observation, ``[O]``.

    :raises ContractError: the observation lacks a part, or a part does not fit into its space; the message
        names the part.
    """
    rows = [
        _flat_part(part, value, f"{env_id}: observation part {name}" if name else f"{env_id}: observation")
        for name, part, value in _values(space, observation, "", env_id)
    ]
    return np.concatenate(rows) if rows else np.zeros(0, np.float32)


def _flat_part(part: spaces.Space, value: Any, where: str) -> np.ndarray:
    try:
        row = np.asarray(spaces.flatten(part, value), np.float32)
    except (TypeError, ValueError, IndexError, AttributeError, KeyError) as error:
        raise ContractError(f"{where} must be in {part}, got {value!r} ({error})") from None
    boxes = (spaces.Box, spaces.MultiBinary)
    # Flattening would turn a part of another shape into a vector, whose numbers are in the wrong places.
    if isinstance(part, boxes) and np.shape(value) != part.shape:
        raise ContractError(f"{where} must have shape {list(part.shape)}, got {list(np.shape(value))}")
    return row


def _values(
    space: spaces.Space, observation: Any, name: str, env_id: str
) -> Iterator[tuple[str, spaces.Space, Any]]:
    """Yield name, space and value of each part, in order."""
    parts = _inner(space)
    if parts is None:
        yield name, space, observation
        return
    where = f"{env_id}: observation part {name}" if name else f"{env_id}: observation"
    if isinstance(space, spaces.Dict):
        if not isinstance(observation, Mapping) or observation.keys() != parts.keys():
            got = sorted(map(str, observation)) if isinstance(observation, Mapping) else observation
            raise ContractError(f"{where} must be a dictionary of {', '.join(map(str, parts))}, got {got!r}")
    elif not isinstance(observation, tuple | list) or len(observation) != len(parts):
        raise ContractError(f"{where} must be a tuple of {len(parts)} parts, got {observation!r}")
    for key, part in parts.items():
        yield from _values(part, observation[key], f"{name}[{key!r}]", env_id)


def _parts(space: spaces.Space, name: str) -> Iterator[tuple[str, spaces.Space]]:
    """Yield name and space of each part, in order; the name of the only part is empty."""
    parts = _inner(space)
    if parts is None:
        yield name, space
    else:
        for key, part in parts.items():
            yield from _parts(part, f"{name}[{key!r}]")


def _inner(space: spaces.Space) -> dict[Any, spaces.Space] | None:
    if isinstance(space, spaces.Dict):
        return dict(space.spaces)
    if isinstance(space, spaces.Tuple):
        return dict(enumerate(space.spaces))
    return None


def _is_flattenable(space: spaces.Space) -> bool:
    try:
        return space.is_np_flattenable
    except NotImplementedError:  # a space of a user's own class
        return False


def _cast_dict(casters: Mapping[str, Callable[[Any], Any]], observation: Any) -> dict[str, Any]:
    return {key: cast(observation[key]) for key, cast in casters.items()}


def _cast_tuple(casters: list[Callable[[Any], Any]], observation: Any) -> tuple[Any, ...]:
    return tuple(cast(part) for cast, part in zip(casters, observation, strict=True))


def _checked_image(shape: tuple[int, ...], env_id: str, observation: Any) -> np.ndarray:
    image = np.asarray(observation)
    if image.dtype != np.uint8 or image.shape != shape:
        raise ContractError(
            f"{env_id}: an image must be uint8 {list(shape)}, got {image.dtype} {list(image.shape)}"
        )
    return image


def _as_it_is(observation: Any) -> Any:
    return observation
