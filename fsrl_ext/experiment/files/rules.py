"""What checkpoints and snapshots consist of, as rules of :mod:`fsrl_ext.report.structure`.

What the policy keeps beside its tensors, and what its optimisers keep, is checked against a fresh policy, in
:mod:`fsrl_ext.experiment.files.state`.
"""

from __future__ import annotations

from typing import Any

import torch

from fsrl_ext.report.records import CONFIG, SELECTION
from fsrl_ext.report.structure import (
    ANY,
    BOOL,
    COUNT,
    FINITE,
    NOT_NEGATIVE,
    NUMBER,
    TEXT,
    Choice,
    Each,
    Maybe,
    Value,
    whole,
)

_DIMENSION = whole(1, 10**7)
_DTYPE = Value("a type of real or whole numbers", lambda x: x in ("float16", "float32", "float64", "int64"))
_DICTIONARY = Each(ANY)
_CHECKPOINT = Value("the bytes of a checkpoint", lambda x: type(x) is bytes)
_COUNTERS = {"env_step": COUNT, "gradient_step": COUNT, "episode": COUNT}

SPEC: dict[str, Any] = {
    "obs_dim": _DIMENSION,
    "action_low": [NUMBER],
    "action_high": [NUMBER],
    "max_episode_steps": _DIMENSION,
    "action_dtype?": _DTYPE,
    "image_shape?": [_DIMENSION],
    "team?": {"names": [TEXT], "obs_dims": [_DIMENSION], "act_dims": [_DIMENSION]},
    "num_actions?": _DIMENSION,
    "first_action?": Value("a whole number", lambda x: type(x) is int and abs(x) < 2**63),
}
_POLICY: dict[str, Any] = {
    "policy": _DICTIONARY,
    "optimisers": Each({"state": _DICTIONARY, "param_groups": [_DICTIONARY]}),
    "versions": Each(TEXT),
}


def _is_array(value: Any) -> bool:
    """Whether a value is what :func:`~fsrl_ext.experiment.training.snapshot.plain` makes of an array."""
    if not isinstance(value, dict) or set(value) != {"numpy array", "shape"}:
        return False
    data, shape = value["numpy array"], value["shape"]
    if not isinstance(data, torch.Tensor) or not isinstance(shape, list):
        return False
    # A scalar is kept as an array of one number.
    return all(type(x) is int and x >= 0 for x in shape) and list(data.shape) in (shape, shape or [1])


ARRAY = Value("an array", _is_array)
_GENERATOR = {"bit_generator": TEXT, "state": _DICTIONARY, "has_uint32?": COUNT, "uinteger?": COUNT}
_RANDOM_STATE = {
    "bit_generator": TEXT,
    "state": {"key": ARRAY, "pos": COUNT},
    "has_gauss": COUNT,
    "gauss": FINITE,
}
_EPISODES = {
    **{"cycle": COUNT, "count": COUNT, "costs": ARRAY, "lens": ARRAY, "steps": ARRAY},
    **{"discounted_costs?": ARRAY, "open_steps?": ARRAY, "first_steps?": ARRAY},
}

BUFFER: dict[str, Any] = {
    "shape": [_DIMENSION],
    "arrays": Each(ARRAY),
    "counters": dict.fromkeys(
        ("insertion", "size", "last", "episode_return", "episode_len", "episode_start"), ARRAY
    ),
    "sampling": [_RANDOM_STATE],
    "episodes": _EPISODES,
}

_HISTORY = {"seeds": [Maybe(COUNT)], "actions": [ARRAY], "resets": [[COUNT]], "due": [Maybe(COUNT)]}
_PLAYING: dict[str, Any] = {
    "history": _HISTORY,
    "obs": ARRAY,
    "episodes": dict.fromkeys(("sums", "discounted", "weight", "lens"), ARRAY),
    "spaces": [_GENERATOR],
    "counters": [NOT_NEGATIVE],
    "hidden_states?": ARRAY,
}
_RANDOMNESS: dict[str, Any] = {
    "python": [ANY],
    "numpy": _RANDOM_STATE,
    "torch": Value("a tensor of bytes", lambda x: isinstance(x, torch.Tensor) and x.dtype == torch.uint8),
    "cuda": [ANY],
}
_WORKER = {"collector": _PLAYING, "randomness": _RANDOMNESS}
_AHEAD: dict[str, Any] = {
    "buffer": BUFFER,
    "worker": _WORKER,
    "under_way": Maybe({"request": [ANY], "stats": _DICTIONARY, "arrays": Each(ARRAY)}),
    "counters": [NOT_NEGATIVE],
}
_RAY = {**{name: rule for name, rule in _AHEAD.items() if name != "worker"}, "workers": [_WORKER]}


def _collector(state: dict[Any, Any]) -> Any:
    """The rule of a collector's state: of one that works ahead, in one process or in Ray actors, of one that
    plays, or of one between two tasks."""
    if "workers" in state:
        return _RAY
    if "worker" in state:
        return _AHEAD
    return {**_PLAYING, "buffer": BUFFER} if "history" in state else {"counters": [NOT_NEGATIVE]}


RULES: dict[str, dict[str, Any]] = {
    "checkpoint": {
        "fsrl_ext_checkpoint": whole(1, 1000),
        **_POLICY,
        "config": CONFIG,
        "spec": SPEC,
        "counters": _COUNTERS,
    },
    "snapshot": {
        "fsrl_ext_snapshot": whole(1, 1000),
        **_POLICY,
        "trainer": {
            "counters": Each(Maybe(NUMBER)),
            "best": Maybe(
                {
                    "env_step": COUNT,
                    "returns": ARRAY,
                    "costs": ARRAY,
                    "cost_limit": [NOT_NEGATIVE],
                    "seeds": Maybe([COUNT]),
                    "cost_names?": Maybe([TEXT]),
                    "limit_unit?": TEXT,
                    "other_costs?": Maybe(ARRAY),
                }
            ),
            "pending?": Maybe({"env_step": COUNT, "epoch": COUNT, "parameters": _DICTIONARY}),
            "collector": Maybe(Choice(_collector)),
        },
        "randomness": _RANDOMNESS,
        "run": {
            "config": CONFIG,
            "command": TEXT,
            "init_from": Maybe(_DICTIONARY),
            "selections": [SELECTION],
            "resumed": [{"env_step": COUNT, "exact": BOOL}],
            "seconds": NOT_NEGATIVE,
            "best": Maybe(_CHECKPOINT),
            "candidate?": Maybe(_CHECKPOINT),
            "logger?": ANY,
        },
    },
}
