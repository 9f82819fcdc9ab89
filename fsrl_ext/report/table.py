"""Tables as text."""

from __future__ import annotations

import io
import math
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from fsrl_ext.cost_names import LimitUnit, cost_word, labelled, limit_unit_of, names_of, other_cost_word


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


def error_text(mean: float, error: float, count: int, digits: int = 1) -> str:
    """The mean ± its standard error, or the mean alone of a single value, which has no error."""
    return f"{mean:.{digits}f}" if count < 2 else f"{mean:.{digits}f} ± {error:.{digits}f}"


def result_table(result: dict[str, Any]) -> str:
    """The closing table of a run, from its ``result.json``.

    It gives two verdicts on the best policy, which can differ: that of the selection, which chose it, and
    that of the final evaluation on other seeds.
    """
    limits = result["config"]["cost_limit"]
    constrained = any(math.isfinite(limit) for limit in limits)
    episodes = result["config"]["final_episodes"]
    rows = []
    names, unit = names_of(result["config"]), limit_unit_of(result["config"])
    for key in ("best", "last"):
        evaluation = result[key]
        costs = zip(evaluation["cost_mean"], evaluation["cost_stderr"], strict=True)
        rows.append(
            [
                f"{key} policy",
                f"{evaluation['env_step']:,}",
                error_text(evaluation["return_mean"], evaluation["return_stderr"], episodes),
                ", ".join(labelled([error_text(mean, error, episodes) for mean, error in costs], names)),
                ", ".join(labelled([f"{limit:g}" for limit in limits], names)),
                *_other_costs(evaluation, unit, names),
                _yes(evaluation["selected_as_feasible"]) if constrained and key == "best" else "-",
                _yes(evaluation["feasible"]) if constrained else "-",
            ]
        )
    other = [] if unit == "episode" else [other_cost_word(unit)]
    header = ["policy", "step", "return", cost_word(unit), "limit", *other]
    header += ["selected as feasible", "feasible now"]
    table = text_table(header, rows)
    note = f"({episodes} test episodes each, mean ± standard error; "
    if not constrained:
        return f"{table}\n{note}no cost is limited)"
    rule = (
        "the highest return of the policies that were feasible in a selection"
        if result["best"]["selected_as_feasible"]
        else "no policy was feasible in a selection; this one had the least violation"
    )
    return (
        f"{table}\n{note}feasible: cost plus one standard error within the limit)\nbest policy: {rule}\n"
        f"training episodes above the limit: {_share_above(result)}"
    )


def _other_costs(evaluation: dict[str, Any], unit: LimitUnit, names: Sequence[str] | None) -> list[str]:
    """The episode costs beside limits on discounted costs; no cell beside other limits."""
    if unit == "episode":
        return []
    return [", ".join(labelled([f"{x:.1f}" for x in evaluation["other_cost_mean"]], names))]


def _yes(verdict: bool) -> str:
    return "yes" if verdict else "no"


def _share_above(result: dict[str, Any]) -> str:
    """The share of the training episodes above the limit, if any episode ended."""
    episodes = result["train_episodes"]
    return f"{result['share_above_limit']:.0%} of {episodes:,}" if episodes else "unknown, no episode ended"
