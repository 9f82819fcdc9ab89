"""Small text tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """Aligned columns: those in ``left`` to the left, the others to the right."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "-" * (sum(widths) + 2 * (len(widths) - 1)), *map(line, rows)])


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
        f"{table}\n({episodes} deterministic episodes each, mean ± standard error; feasible: cost plus one "
        f"standard error within the limit)\ntraining episodes above the limit: {share} of "
        f"{result['train_episodes']}"
    )
