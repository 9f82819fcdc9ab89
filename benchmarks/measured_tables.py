"""Prints a table of measurements, as Markdown, from its file in ``benchmarks/results``.

    python benchmarks/measured_tables.py environments

``benchmarks/docs_results.py`` puts these tables into the pages of the documentation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fsrl_ext.report.files import read_json

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", choices=TABLES)
    file, lines = TABLES[parser.parse_args().table]
    print("\n".join(lines(read_json(RESULTS / file))))


def _row(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _head(names: Sequence[str], rules: Sequence[str]) -> list[str]:
    return [_row(names), f"|{'|'.join(rules)}|"]


def environments(rows: list[dict[str, Any]]) -> list[str]:
    """Speed of the tasks of safety-gymnasium, from ``environments.py``."""
    names = ["task", "stock steps/s", "steps/s", "ratio (bar)", "resets/s (stock)", "of raw physics", "MB"]
    lines = _head([*names, "equal"], ["---", *["---:"] * 6, "---"])
    for r in rows:
        digits = 1 if r["ratio"] >= 2.0 else 2
        bar = f" ({r['bar']:g})" if r["bar"] else ""
        cells = [
            r["task"],
            f"{r['stock_steps_per_second']:.0f}",
            f"{r['steps_per_second']:.0f}",
            f"{r['ratio']:.{digits}f}{bar}",
            f"{r['resets_per_second']:.0f} ({r['stock_resets_per_second']:.1f})",
            f"{r['share_of_raw']:.0%} of {r['raw_steps_per_second']:.0f}",
            f"{r['memory_mb']:.0f}",
            "yes" if r["difference"] is None else "NO",
        ]
        lines.append(_row(cells))
    return lines


def meta_tasks(rows: list[dict[str, Any]]) -> list[str]:
    """Speed of the families' tasks, from ``meta_tasks.py``."""
    names = ["task", "stock steps/s", "steps/s", "ratio", "ratio without resets", "resets/s", "equal"]
    lines = _head(names, ["---", *["---:"] * 5, "---"])
    for r in rows:
        inner = r["steps_per_second_without_resets"] / r["stock_steps_per_second_without_resets"]
        cells = [
            r["task"],
            f"{r['stock_steps_per_second']:.0f}",
            f"{r['steps_per_second']:.0f}",
            f"{r['steps_per_second'] / r['stock_steps_per_second']:.1f}",
            f"{inner:.1f}",
            f"{r['resets_per_second']:.0f}",
            "yes" if r["equal"] else "NO",
        ]
        lines.append(_row(cells))
    return lines


_COMPARED = {"CVPO": "compare", "SAC-Lag": "compare_sac_lag", "DDPG-Lag": "compare_ddpg_lag"}


def trainings(data: dict[str, Any]) -> list[str]:
    """Whole trainings against FSRL's, from ``throughput.py compare``."""
    lines = _head(["", "fsrl_ext, one process", "fsrl_ext, two cores", "FSRL 0.1.0"], ["---"] * 4)
    for name, key in _COMPARED.items():
        speeds = {k: v["steps_per_second"] for k, v in data[key]["medians"].items()}
        ours = [
            f"{speeds[k] / speeds['FSRL']:.2f} ({speeds[k]:,.0f} steps/s)"
            for k in ("one process", "two cores")
        ]
        lines.append(_row([name, *ours, f"1 ({speeds['FSRL']:,.0f} steps/s)"]))
    return lines


def gradient_steps(data: dict[str, Any]) -> list[str]:
    """A gradient step against FSRL's, from ``throughput.py compare``."""
    lines = _head(["", "fsrl_ext, ms", "FSRL, ms", "ratio"], ["---"] * 4)
    for name, key in _COMPARED.items():
        times = {k: v["ms_per_gradient_step"] for k, v in data[key]["medians"].items()}
        ours, theirs = times["one process"], times["FSRL"]
        lines.append(_row([name, f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.2f}"]))
    return lines


def omnisafe(data: dict[str, Any]) -> list[str]:
    """An update of CPO against OmniSafe's, from ``onpolicy_throughput.py``."""
    lines = _head(["seconds per update", "fsrl_ext", "OmniSafe 0.5.0", "ratio"], ["---"] * 4)
    sides = [data["sides"][name]["medians"] for name in ("fsrl_ext", "OmniSafe")]
    for name, key in (
        ("all", "all"),
        ("collect", "collect"),
        ("actor", "actor"),
        ("critics and the rest", "critic"),
    ):
        cells = [f"{side[key][0]:.3g}" for side in sides]
        if key == "all":
            cells = [f"{x} ({s['steps_per_second']:,.0f} steps/s)" for x, s in zip(cells, sides, strict=True)]
        lines.append(_row([name, *cells, f"{data['ratios'][key][0]:.3g}"]))
    return lines


def accelerator(data: dict[str, Any]) -> list[str]:
    """A gradient step on an accelerator, from ``gradient_step.py --cuda``."""
    lines = _head(["sizes", "one thread, ms", "accelerator, ms", "ratio"], ["---"] * 4)
    for sizes, ms in data["accelerator"]["ms"].items():
        numbers = [f"{x:.{1 if x < 100 else 0}f}" for x in (ms["cpu"], ms["cuda"])]
        lines.append(_row([sizes, *numbers, f"{ms['cpu'] / ms['cuda']:.2g}"]))
    return lines


def early_selection(data: dict[str, Any]) -> list[str]:
    """What the rule that ends selections early changes, from ``early_selection.py``."""
    lines = _head(["noise", "spread", "same policy selected", "test episodes played"], ["---"] * 4)
    for r in data["rows"]:
        lines.append(
            _row([r["noise"], f"{r['spread']:g}", f"{1 - r['other_policy']:.1%}", f"{r['episodes']:.0%}"])
        )
    return lines


TABLES: dict[str, tuple[str, Callable[[Any], list[str]]]] = {
    "environments": ("environments.json", environments),
    "meta_tasks": ("meta_tasks.json", meta_tasks),
    "trainings": ("throughput.json", trainings),
    "gradient_steps": ("throughput.json", gradient_steps),
    "omnisafe": ("onpolicy_throughput.json", omnisafe),
    "accelerator": ("accelerator.json", accelerator),
    "early_selection": ("early_selection.json", early_selection),
}

if __name__ == "__main__":
    main()
