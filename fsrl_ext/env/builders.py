"""Building environments elsewhere: the arguments of `make_joint` as an object that can be pickled."""

import copy
import dataclasses
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from fsrl_ext.env.registry import make_joint
from fsrl_ext.env.suite_tasks import SUITE_TASKS, TaskInfo, canonical_id
from fsrl_ext.env.tasks import USER_TASKS
from fsrl_ext.errors import checked


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvFn:
    """Holds the arguments of calls of `make_joint`, for a vector environment's workers; see `env_fn`.

    Each environment gets copies of the arguments, wherever it runs.
    """

    id: str
    kwargs: dict[str, Any]
    registered: EnvSpec | None
    task: TaskInfo | None

    def __call__(self) -> gymnasium.Env:
        """Build the environment in the calling process."""
        if self.registered is not None and self.registered.id not in gymnasium.registry:
            gymnasium.registry[self.registered.id] = self.registered
        if self.task is not None:
            USER_TASKS.setdefault(self.task.id, self.task)
        return make_joint(self.id, **copy.deepcopy(self.kwargs))


@checked()
def env_fn(id: str, render_mode: str | None = None, **kwargs: Any) -> EnvFn:
    """Return a function without arguments that calls `make_joint`, in this process or in another one.

    A worker process that was spawned, not forked, has not run the user's registrations. The returned object
    therefore carries the registration of `id`, as "module:Class" or as a callable that can be pickled. For
    forked workers and for the suites' tasks, `lambda: make_joint(id)` does the same.

    :param id: an id as for `make`; the other arguments are those of `make_joint` too.
    """
    id = canonical_id(id)
    name = id.rpartition(":")[2]
    return EnvFn(
        id=id,
        kwargs={"render_mode": render_mode, **kwargs},
        registered=None if name in SUITE_TASKS else gymnasium.registry.get(name),
        task=USER_TASKS.get(name),
    )
