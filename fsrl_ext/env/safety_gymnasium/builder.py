"""Build tasks that safety-gymnasium's own table of classes does not have.

Import this module after `import_safety_gymnasium`.
"""

from collections.abc import Callable
from typing import Any

from safety_gymnasium.bases.base_task import BaseTask
from safety_gymnasium.builder import Builder


class TaskBuilder(Builder):
    """Is safety-gymnasium's builder for a task that is not in that package's table of classes.

    :param make_task: builds the task from the configuration.
    :param arguments: the arguments of `Builder`.
    """

    def __init__(self, *, make_task: Callable[[dict[str, Any]], BaseTask], **arguments: Any) -> None:
        self._make_task = make_task
        super().__init__(**arguments)

    def _get_task(self) -> BaseTask:
        task = self._make_task(self.config)
        task.build_observation_space()
        return task
