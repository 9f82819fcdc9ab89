"""Tunes settings: a sweep whose runs a search algorithm proposes and a scheduler may stop early."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsrl_ext.errors import checked
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.sweeps.drive import (
    Search,
    StudyOutcome,
    outcome_of,
    run_search,
    saying_how_to_go_on,
    taken,
)
from fsrl_ext.experiment.sweeps.folder import StudyFolder
from fsrl_ext.experiment.sweeps.plan import Resources
from fsrl_ext.experiment.training.folder import has_finished


@dataclass(frozen=True)
class TuningOutcome(StudyOutcome):
    """How the runs of :func:`sweep` have ended.

    :param objectives: the newest objective of each run that has reported one, by the run's name.
    """

    objectives: Mapping[str, float] = field(default_factory=dict)

    @property
    def best(self) -> str | None:
        """The name of the run with the highest objective; ``None`` if no run has reported one."""
        return max(self.objectives, key=lambda name: self.objectives[name], default=None)


@checked(at_least_one=("samples",), own=("search_alg", "scheduler"))
def sweep(
    settings: Mapping[str, Any],
    *,
    out: str | os.PathLike[str],
    samples: int = 1,
    search_alg: Any = None,
    scheduler: Any = None,
    resources: Resources | None = None,
    show_progress: bool = True,
) -> TuningOutcome:
    """Trains runs whose settings Ray Tune proposes, several side by side, each in a process of its own.

    .. code-block:: python

        sweep(
            {
                "policy": "cvpo", "task": "SafetyBallCircle-v0", "steps": 100_000,
                "kl_bound": tune.loguniform(0.01, 1.0), "seed": tune.grid_search([0, 1, 2]),
            },
            out="tuning", samples=20, scheduler=ASHAScheduler(time_attr="env_step", max_t=100_000),
        )

    Each run reports ``env_step`` and ``objective`` after every selection and at its end. The objective, which
    is maximised, is the mean return of the best feasible policy so far, or ``-1e9`` if that is higher. As
    long as no policy was feasible, it is ``-1e9 (1 + v / (1 + v))``, where ``v`` is the least violation so
    far (:class:`~fsrl_ext.trainer.Evaluation`). A run that fails ends with ``-2e9``.

    The name of a run follows from its settings. Called again with the same folder, a run that has finished
    reports what it reported before and is not trained again, and other runs are continued. A search algorithm
    proposes the same settings again only if it has a seed.

    :param settings: of :func:`~fsrl_ext.experiment.make_config`, by name. Values may be search spaces of Ray
        Tune, such as ``tune.choice([...])``.
    :param out: the study's folder, which has a run folder for each run, and what the runs print in ``logs``.
    :param samples: how many runs are proposed; with a grid, how often each of its points is.
    :param search_alg: a search algorithm of Ray Tune; random search if not given. It needs neither metric nor
        mode.
    :param scheduler: a scheduler of Ray Tune, which may stop runs early; the folder of a run that was stopped
        can be continued. It needs neither metric nor mode; its ``time_attr`` should be ``"env_step"``.
    :param resources: what the runs may use; all cores of this machine, one for each run, if not given.
    :param show_progress: whether to show on stderr how far the sweep is.
    :raises ValueError: for settings that the policy does not have, and resources that are not there.
    :raises RunFolderError: if another sweep uses the folder.
    :raises ImportError: Ray Tune is not installed.
    """
    from fsrl_ext.experiment.sweeps.overview import Overview  # takes imports

    _check_names(settings)
    resources = Resources() if resources is None else resources
    study = StudyFolder(Path(out).absolute())
    with taken(study), saying_how_to_go_on("call sweep again with the same arguments"):
        name_of = _names()
        search = Search(
            job_of=_sampled_jobs(name_of),
            name_of=name_of,
            space=settings,
            samples=samples,
            search_alg=search_alg,
            scheduler=scheduler,
            resources=resources,
            command=None,
        )
        overview = Overview(study, {}, total=None, finished=0, show=show_progress)
        watch = run_search(study, search, overview)
        outcome = outcome_of({name: has_finished(study.run(name)) for name in watch.ends}, watch.ends)
        return TuningOutcome(**vars(outcome), objectives=dict(watch.objectives))


def _check_names(settings: Mapping[str, Any]) -> None:
    """:raises ValueError: if the policy or the task is missing, or the policy does not have a setting."""
    for name in ("policy", "task"):
        if name not in settings:
            raise ValueError(f"settings must have {name!r}, got {', '.join(settings) or 'none'}")
    if isinstance(settings["policy"], str):
        known = {*list_settings(settings["policy"]), "preset"}
        for name in settings:
            if name not in known:
                raise ValueError(f"{settings['policy']} has no setting {name!r}")


def _names() -> Callable[[Mapping[str, Any]], str]:
    """The function from sampled settings to the name of their run; equal settings have equal names.

    Ray pickles it by value, see :func:`~fsrl_ext.experiment.sweeps.trial.make_trial`.
    """

    def name_of(settings: Mapping[str, Any]) -> str:
        import hashlib
        import json
        import re

        text = json.dumps(dict(settings), sort_keys=True, default=lambda value: value.item())
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        stem = f"{settings['task']}-{settings['policy']}-seed{settings.get('seed', 0)}-{digest}"
        return re.sub(r"[^\w.=+-]", "-", stem)

    return name_of


def _sampled_jobs(
    name_of: Callable[[Mapping[str, Any]], str],
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def job_of(settings: Mapping[str, Any]) -> dict[str, Any]:
        plain = {name: value.item() if hasattr(value, "item") else value for name, value in settings.items()}
        return {"name": name_of(plain), "settings": plain}

    return job_of
