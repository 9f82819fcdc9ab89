"""Tables as text."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence
from typing import Any


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """Aligned columns, the header over a rule; plain text without colours.

    On a terminal that is too narrow, cells are folded; elsewhere, as in a pipe or a file, every row is one
    line.

    :param left: the columns that are aligned to the left; the others are aligned to the right.
    """
    # Imported here, so that importing the library does not load it.
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rule_below_header = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
    table = Table(box=rule_below_header, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(header):
        table.add_column(Text(name), justify="left" if i in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as Text, brackets are no markup
    file = io.StringIO()
    Console(file=file, width=_width(), color_system=None).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _width() -> int:
    """The widest line that a table may have."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000


def result_table(result: dict[str, Any]) -> str:
    """The closing table of a run, from its ``result.json``."""
    limits = result["config"]["cost_limit"]
    rows = []
    for name, key in (("best feasible policy", "best"), ("last policy", "last")):
        evaluation = result.get(key)
        if evaluation is None:
            continue
        if key == "best" and not evaluation["selected_as_feasible"]:
            name = "least infeasible policy"
        costs = [
            f"{mean:.1f} ± {error:.1f}"
            for mean, error in zip(evaluation["cost_mean"], evaluation["cost_stderr"], strict=True)
        ]
        rows.append(
            [
                name,
                f"{evaluation['env_step']:,}",
                f"{evaluation['return_mean']:.1f} ± {evaluation['return_stderr']:.1f}",
                ", ".join(costs),
                ", ".join(f"{limit:g}" for limit in limits),
                "yes" if evaluation["feasible"] else "no",
            ]
        )
    table = text_table(["policy", "step", "return", "cost", "limit", "feasible"], rows)
    episodes = result["config"]["final_episodes"]
    share = f"{100 * result['share_above_limit']:.0f}%"
    return (
        f"{table}\n({episodes} deterministic episodes each, mean ± standard error; a policy is feasible if "
        f"its cost plus one standard error is within the limit)\n"
        f"training episodes above the limit: {share} of {result['train_episodes']}"
    )
