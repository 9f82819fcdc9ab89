"""The names of policies, known without importing one: a misspelt name is an error at once."""

from __future__ import annotations

import difflib
import importlib.metadata
import sys
from collections.abc import Sequence

BUILT_IN = (
    *("cvpo", "sac_lag", "ddpg_lag", "td3_lag", "sac", "ddpg", "td3"),
    *("cpo", "trpo_lag", "ppo_lag", "focops", "trpo", "ppo"),
    *("meta_cpo", "maml_lag", "maml_trpo", "multitask_cpo"),
)
"""The policies of this package, in the order of ``fsrl-ext list``."""


def check_policy(arguments: Sequence[str]) -> None:
    """Refuses a policy that neither this package nor an installed one has.

    A process that has imported the registry leaves the check to it, since policies may have been registered.

    :param arguments: what follows ``train``; a policy is looked for in the first place alone.
    :raises UnknownPolicyError: if the name is unknown, suggesting the nearest.
    """
    if not arguments or arguments[0].startswith("-") or "fsrl_ext.experiment.registry" in sys.modules:
        return
    points = importlib.metadata.entry_points(group="fsrl_ext.algorithms")
    known = list(dict.fromkeys([*BUILT_IN, *(point.name for point in points)]))
    if arguments[0] not in known:
        from fsrl_ext.errors import UnknownPolicyError

        near = difflib.get_close_matches(arguments[0].lower(), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UnknownPolicyError(f"unknown policy {arguments[0]!r}; {hint}available: {', '.join(known)}")
