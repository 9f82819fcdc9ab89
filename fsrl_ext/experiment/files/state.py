"""Whether the saved state of a policy and of its optimisers is one of this policy, before it is loaded.

The policy that is to load the state shows the structure: its tensors, and what it keeps beside them. What is
not known before there are data is ``None`` or an empty list, in either of them, and any numbers may be there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from fsrl_ext.report.structure import is_number, short

_ADAM = {"step", "exp_avg", "exp_avg_sq"}
_LARGEST_SETTING = 1e6
"""Of an optimiser's learning rate, momentum and so on."""
_SIGNS = ("step", "exp_avg_sq")
"""Entries of an optimiser's state that are never negative."""
_NEWER = frozenset(("drift", "extra_share", "value_level"))
"""Entries of a policy's state that came in the middle of this version; its earlier files lack them."""
_BOUNDS = ("value_low", "value_high")
"""Bounds of values in a policy's state, which are infinite until rewards and costs were seen."""


def check_tensors(data: Any, part: str = "") -> None:
    """Checks that all tensors are finite.

    :raises ValueError: naming the part that holds NaN or infinity.
    """
    for name, value in _tensors(data, part):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds NaN or infinity")


def _tensors(data: Any, part: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(data, torch.Tensor):
        yield part, data
    elif isinstance(data, dict):
        for name, value in data.items():
            yield from _tensors(value, f"{part}.{name}" if part else str(name))
    elif isinstance(data, list | tuple):
        for i, value in enumerate(data):
            yield from _tensors(value, f"{part}[{i}]")


def check_state(saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Checks what a policy keeps beside its tensors, and the types of the tensors.

    Missing, unexpected and misshapen tensors are left to torch's own check.

    :param own: the state of the policy that is to load it.
    :raises ValueError: naming the part.
    """
    for name, value in own.items():
        there = saved.get(name, value)
        if isinstance(value, torch.Tensor) and getattr(there, "dtype", None) != value.dtype:
            raise ValueError(f"policy.{name} must be a tensor of {value.dtype}, got {short(there)}")
    extra, fresh = saved.get("_extra_state", {}), own.get("_extra_state", {})
    if not isinstance(extra, dict):
        raise ValueError(f"policy._extra_state must be a dictionary, got {short(extra)}")
    # Files of 0.1.0 have no such state, and a run that starts from a saved policy takes the units alone.
    if extra and set(extra) != {"units"} and isinstance(fresh, dict):
        _check_like(extra, fresh, "policy._extra_state")


def _check_like(saved: Any, own: Any, part: str) -> None:
    if isinstance(own, dict) and own:
        if not isinstance(saved, dict) or saved.keys() | _NEWER != own.keys() | _NEWER:
            different = sorted(map(str, own.keys() ^ saved.keys())) if isinstance(saved, dict) else []
            raise ValueError(
                f"{part} must have the entries {', '.join(map(str, own))}, and differs in {different}"
            )
        for name, value in own.items():
            if name in saved:
                _check_like(saved[name], value, f"{part}.{name}")
    elif isinstance(own, list | tuple) and own and saved is not None:
        # A list of numbers has one for each cost or observation; other lists grow with the data.
        numbers = all(is_number(x) for x in own)
        if not isinstance(saved, list | tuple) or (numbers and len(saved) not in (0, len(own))):
            raise ValueError(
                f"{part} must be a list{f' of {len(own)}' if numbers else ''}, got {short(saved)}"
            )
        for i, value in enumerate(saved):
            _check_like(value, own[0], f"{part}[{i}]")
    elif isinstance(own, bool | str):
        if type(saved) is not type(own):
            raise ValueError(f"{part} must be of the type {type(own).__name__}, got {short(saved)}")
    elif isinstance(own, int | float) and saved is not None:
        bound = any(name in part for name in _BOUNDS)
        least = 0.0 if type(own) is int else -math.inf
        _check_number(saved, part, least=least, finite=math.isfinite(own) and not bound)
    else:
        _check_numbers(saved, part)


def _check_numbers(saved: Any, part: str) -> None:
    """Checks what the policy itself does not have yet."""
    if isinstance(saved, dict):
        for name, value in saved.items():
            _check_numbers(value, f"{part}.{name}")
    elif isinstance(saved, list | tuple):
        for i, value in enumerate(saved):
            _check_numbers(value, f"{part}[{i}]")
    elif saved is not None and not isinstance(saved, bool):
        _check_number(saved, part)


def _check_number(
    saved: Any, part: str, *, least: float = -math.inf, most: float = math.inf, finite: bool = True
) -> None:
    if not is_number(saved) or not least <= saved <= most or (finite and not math.isfinite(saved)):
        bounds = [f">= {least:g}"] if least > -math.inf else []
        bounds += [f"<= {most:g}"] if most < math.inf else []
        allowed = " and ".join([f"a {'finite ' if finite else ''}number", *bounds])
        raise ValueError(f"{part} must be {allowed}, got {short(saved)}")


def check_optimiser(saved: Any, own: torch.optim.Optimizer, part: str) -> None:
    """Checks an optimiser's settings and moments against those of a fresh policy.

    :param saved: what its ``state_dict`` returned; ``None`` if it is missing.
    :raises ValueError: naming the part.
    """
    if saved is None:
        raise ValueError(f"{part} is missing")
    groups, fresh = saved["param_groups"], own.state_dict()["param_groups"]
    if len(groups) != len(fresh):
        raise ValueError(f"{part}.param_groups must be {len(fresh)}, got {len(groups)}")
    for i, (group, like) in enumerate(zip(groups, fresh, strict=True)):
        _check_group(group, like, f"{part}.param_groups[{i}]")
    sizes = {
        number: parameter.numel()
        for group, like in zip(own.param_groups, fresh, strict=True)
        for number, parameter in zip(like["params"], group["params"], strict=True)
    }
    for number, moments in saved["state"].items():
        here = f"{part}.state.{number}"
        if number not in sizes or not isinstance(moments, dict):
            raise ValueError(f"{here} belongs to no parameter")
        if isinstance(own, torch.optim.Adam) and not moments.keys() >= _ADAM:
            raise ValueError(
                f"{here} must have the entries {', '.join(sorted(_ADAM))}, got {short(list(moments))}"
            )
        adam = isinstance(own, torch.optim.Adam)
        for name, value in _tensors(moments, here):
            entry = name.rpartition(".")[2]
            if adam and value.numel() != (1 if entry == "step" else sizes[number]):
                raise ValueError(f"{name} must have the shape of its parameter, got {short(value)}")
            if value.numel() > sum(sizes.values()):
                raise ValueError(f"{name} must not be larger than the parameters, got {short(value)}")
            if entry in _SIGNS and bool((value < 0).any()):
                raise ValueError(f"{name} must not be negative")
        if adam and not all(isinstance(moments[name], torch.Tensor) for name in _ADAM):
            raise ValueError(f"{here} must consist of tensors")


def _check_group(group: dict[str, Any], like: dict[str, Any], part: str) -> None:
    # Versions of torch differ in the flags that an optimiser has.
    different = [x for x in group.keys() ^ like.keys() if not isinstance({**like, **group}[x], bool | None)]
    if different or group.get("params") != like["params"]:
        raise ValueError(f"{part} must have the settings and parameters of the policy's optimiser")
    for name, value in like.items():
        saved, here = group.get(name, value), f"{part}.{name}"
        if isinstance(value, bool) or value is None:
            if not isinstance(saved, bool | None):
                raise ValueError(f"{here} must be true, false or none, got {short(saved)}")
        elif isinstance(value, int | float):
            _check_number(saved, here, least=0.0, most=_LARGEST_SETTING)
        elif isinstance(value, tuple):
            if not isinstance(saved, list | tuple) or len(saved) != len(value):
                raise ValueError(f"{here} must be {len(value)} numbers, got {short(saved)}")
            for i, there in enumerate(saved):
                _check_number(there, f"{here}[{i}]", least=0.0, most=_LARGEST_SETTING)
        elif name != "params" and type(saved) is not type(value):
            raise ValueError(f"{here} must be of the type {type(value).__name__}, got {short(saved)}")
