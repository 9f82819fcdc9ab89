"""Colours, sizes and files of figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from fsrl_ext.report.files import replacing

# Okabe and Ito's colours, which people with any kind of colour blindness can tell apart, with a darker yellow
# that can be seen on white.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#B5A000", "#000000"
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, YELLOW, BLACK)

_OF_POLICY = {
    "cvpo": BLUE,
    "sac_lag": VERMILION,
    "cpo": GREEN,
    "ddpg_lag": ORANGE,
    "trpo_lag": SKY,
    "td3_lag": PURPLE,
    "ppo_lag": YELLOW,
    "focops": BLACK,
    "meta_cpo": BLUE,
    "maml_trpo": VERMILION,
    "multitask_cpo": GREEN,
    "maml_lag": ORANGE,
}

MARKERS = "osD^vPX*"

COLUMN = 3.3
"""Width of a figure with one panel, in inches: that of a column of a paper."""

_FONTS: Any = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "fsrl_ext",  # the same figure is the same file
}


def colours(policies: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """A colour for each name.

    A known policy has the same colour in every figure. Where several names are settings of one policy, the
    first one has its colour; the others, and unknown policies, have colours that no policy of the figure has,
    as long as there are any; then colours come again, see :func:`lines`.

    :param policies: the policies of each name's runs.
    """
    chosen: dict[str, str] = {}
    for name, of_name in policies.items():
        owners = set(of_name)
        colour = _OF_POLICY.get(next(iter(owners))) if len(owners) == 1 else None
        if colour is not None and colour not in chosen.values():
            chosen[name] = colour
    free = [x for x in PALETTE if x not in chosen.values()] or list(PALETTE)
    others = (name for name in policies if name not in chosen)
    chosen |= {name: free[i % len(free)] for i, name in enumerate(others)}
    return chosen


def lines(colours: Mapping[str, str]) -> dict[str, Any]:
    """A style of line for each name: solid, and another one where a name before has the same colour."""
    styles = ("-", (0, (5, 1, 1, 1)), (0, (1, 0.8)))
    used: dict[str, int] = {}
    chosen = {}
    for name, colour in colours.items():
        chosen[name] = styles[used.get(colour, 0) % len(styles)]
        used[colour] = used.get(colour, 0) + 1
    return chosen


def markers(names: Sequence[str]) -> dict[str, str]:
    """A marker for each name, so that figures in grey can be read, too."""
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names)}


@contextmanager
def new_figure(rows: int, columns: int, *, height: float) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes ``[rows, columns]``, at a size at which a paper can show it.

    :param height: of one row of panels, in inches.
    """
    # Without pyplot there is no global state and no display is looked for.
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_FONTS):
        width = COLUMN if columns == 1 else 2.4 * columns
        figure = Figure(figsize=(width, height * rows + 0.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.grid(alpha=0.25, linewidth=0.5)
            axis.spines[["top", "right"]].set_visible(False)
        yield figure, axes


def add_legend(figure: Any, axes: Iterable[Any]) -> None:
    """One legend for all axes, below them, where it hides nothing; it wraps at the width of the figure."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, line)
    if not entries:
        return
    widths = [3.9 * len(label) + 28 for label in entries]  # of an entry in points, at the legend's size
    fitting = [n for n in range(1, len(entries) + 1) if _width(widths, n) <= 72 * figure.get_figwidth()]
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=max(fitting, default=1),
        frameon=False,
        handlelength=2.0,
        columnspacing=1.0,
    )


def _width(widths: Sequence[float], columns: int) -> float:
    """The width of a legend, which fills one column after another; the first ones may have one entry more."""
    rows, longer = divmod(len(widths), columns)
    ends = [0, *(rows * (i + 1) + min(i + 1, longer) for i in range(columns))]
    return sum(max(widths[start:end]) for start, end in pairwise(ends))


def save(figure: Any, path: Path) -> None:
    """Writes a PNG, PDF or SVG in one move, by the suffix of the path; without a date, it repeats itself."""
    form = path.suffix.lower().removeprefix(".")
    metadata: dict[str, Any] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[form]
    with replacing(path) as file:
        figure.savefig(file, dpi=300, format=form, metadata=metadata)
