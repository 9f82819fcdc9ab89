"""The names of a study's runs, which follow from a run's settings alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import Any

from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.defaults import TUNED
from fsrl_ext.experiment.explained import explained_defaults
from fsrl_ext.experiment.registry import algorithm
from fsrl_ext.experiment.settings import as_text, list_settings

MAX_BYTES = 150
"""The longest name; file systems allow 255 bytes."""
_DIGEST = 8


def own_settings(config: ExperimentConfig, preset: str) -> tuple[tuple[str, str], ...]:
    """What tells a run from others of its policy and task, as names and texts.

    These are the cost limit (of a policy that has one), the preset unless it is ``tuned``, and each setting
    whose value is not the default of the policy, the task and the preset. The seed is left out.
    """
    known = list_settings(config.policy)
    defaults = explained_defaults(config.policy, config.task, preset=preset)
    values = flat_settings(config)
    different = {
        name: values[name]
        for name in known
        if name not in ("policy", "task", "seed", "cost_limit")
        and (name not in defaults or defaults[name].value != values[name])
    }
    first = {} if not algorithm(config.policy).constrained else {"cost_limit": config.cost_limit}
    bundle = {} if preset == TUNED else {"preset": preset}
    return tuple((name, as_text(value, "/")) for name, value in {**first, **bundle, **different}.items())


def flat_settings(config: ExperimentConfig) -> dict[str, Any]:
    """Every setting of a run by name, those of the policy and of the training included."""
    values: dict[str, Any] = {}
    for part in (config, config.policy_config, config.training):
        values |= {x.name: getattr(part, x.name) for x in dataclasses.fields(part)}
    return values


def run_name(config: ExperimentConfig, label: str, own: tuple[tuple[str, str], ...]) -> str:
    """The folder's name of a run: ``<task>-<label>-<setting>=<value>-...-seed<seed>``.

    Numbers of one value are joined by ``+``, and what a folder's name cannot have becomes ``-``. A name of
    more than :data:`MAX_BYTES` bytes loses its last settings, and a digest of all settings stands for them.

    :param label: what the study calls the policy with its settings.
    :param own: of :func:`own_settings`.
    """
    parts = [config.task, label, *(f"{name}={text.replace('/', '+')}" for name, text in own)]
    parts = [re.sub(r"[^\w.=+-]", "-", part) for part in parts]
    seed = f"-seed{config.seed}"
    if len("-".join(parts).encode()) + len(seed) <= MAX_BYTES:
        return "-".join(parts) + seed
    data = {**config.as_dict(), "label": label}
    del data["seed"]
    seed = f"-{hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:_DIGEST]}{seed}"
    room = MAX_BYTES - len(seed)
    while len(parts) > 2 and len("-".join(parts).encode()) > room:
        parts.pop()
    return "-".join(parts).encode()[:room].decode(errors="ignore") + seed
