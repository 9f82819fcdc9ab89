"""What ``config.json`` and ``result.json`` consist of, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsrl_ext.errors import RunFolderError
from fsrl_ext.report.files import read_json
from fsrl_ext.report.structure import (
    ANY,
    BOOL,
    COUNT,
    NOT_NEGATIVE,
    NUMBER,
    SHARE,
    TEXT,
    Choice,
    Each,
    Maybe,
    Value,
    check,
    whole,
)

_AT_LEAST_ONE = whole(1, 10**15)

CONFIG: dict[str, Any] = {
    "policy": TEXT,
    "task": TEXT,
    "costs?": Maybe([TEXT]),
    "cost_limit": [NOT_NEGATIVE],
    "cost_limit_start": Maybe([NOT_NEGATIVE]),
    "cost_limit_decay_steps": NUMBER,
    "steps": NUMBER,
    "seed": NUMBER,
    "selections": NUMBER,
    "selection_episodes": NUMBER,
    "selection_min_episodes?": NUMBER,
    "final_episodes": NUMBER,
    "device": TEXT,
    "threads": NUMBER,
    "policy_config": Each(ANY),
    "training": Each(ANY),
}
"""The settings of a run; their classes check the values."""

SELECTION: dict[str, Any] = {
    "env_step": COUNT,
    "episodes": _AT_LEAST_ONE,
    "return_mean": NUMBER,
    "return_stderr": NOT_NEGATIVE,
    "cost_mean": [NUMBER],
    "cost_stderr": [NOT_NEGATIVE],
    "feasible": BOOL,
    "share_above_limit": SHARE,
    "other_cost_mean?": [NUMBER],
}
"""What is noted of a selection; files of earlier versions have the costs in the unit of the limits alone."""

JUDGED: dict[str, Any] = {**SELECTION, "returns?": [NUMBER], "costs?": [[NUMBER]], "other_costs?": [[NUMBER]]}
"""What is noted of a final evaluation; files of version 0.2.0 and before have no episodes."""

_ENDED: dict[str, Any] = {
    "command": TEXT,
    "init_from?": Each(ANY),
    "resumed?": [{"env_step": COUNT, "exact": BOOL}],
    "config": CONFIG,
    "config_digest": TEXT,
    "versions": Each(TEXT),
    "env_step": COUNT,
    "gradient_step": COUNT,
    "train_episodes": COUNT,
    "share_above_limit": SHARE,
    "seconds": NOT_NEGATIVE,
    "cores": Maybe(_AT_LEAST_ONE),
    "selections": [SELECTION],
}


def _status(allowed: str) -> Value:
    return Value(repr(allowed), lambda x: x == allowed)


_FINISHED = {
    "status": _status("finished"),
    **_ENDED,
    "best": {**JUDGED, "selected_as_feasible": BOOL},
    "last": JUDGED,
}
_INTERRUPTED = {"status": _status("interrupted"), **_ENDED}

RESULT = Choice(lambda result: _INTERRUPTED if result.get("status") == "interrupted" else _FINISHED)
"""The outcome of a run."""

NOTED = {"command": TEXT, "init_from?": Maybe(Each(ANY)), **CONFIG}
"""The settings of a run with what ``config.json`` notes beside them."""


def read_record(path: Path, rule: Any) -> Any:
    """Reads a JSON file of a run folder.

    :param rule: what the file must consist of, as in :mod:`fsrl_ext.report.structure`.
    :raises RunFolderError: naming the file and the part that is missing, unknown or wrong.
    """
    try:
        data = read_json(path)
        check(data, rule)
    except RecursionError:
        raise RunFolderError(f"{path} is damaged or edited: it is nested beyond all measure") from None
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise RunFolderError(f"{path} is damaged or edited: {reason}") from error
    return data
