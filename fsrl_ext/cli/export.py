"""``fsrl-ext export``: a saved policy as a file that acts without this package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fsrl_ext.cli.options import add_allow_import, check_checkpoint, check_new_files

_EXAMPLE = """examples:
  fsrl-ext export zoo:cvpo-ball-circle --format torchscript
  fsrl-ext export runs/SafetyBallCircle-v0-cvpo-seed0-1 --format onnx --out ball.onnx
"""
_SUFFIXES = {"onnx": ".onnx", "torchscript": ".torchscript"}


def add_command(commands: Any) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "export",
        help="write a saved policy as a file that acts without this package",
        description="Write a saved policy as one ONNX or TorchScript file, from raw observations to the\n"
        "deterministic actions that the environment takes. The file's actions are compared with those\n"
        "of the policy on random observations before it is written.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file or zoo:NAME")
    parser.add_argument("--format", choices=tuple(_SUFFIXES), required=True, help="of the file")
    parser.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="which policy of a run folder (default: best)",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="a new file (default: the run's name in the current folder)"
    )
    add_allow_import(parser)
    parser.set_defaults(command=_export)


def _export(options: argparse.Namespace, command: str) -> int:
    out = options.out
    if out is None:
        path = Path(options.run.removeprefix("zoo:"))
        name = path.stem if path.suffix == ".pt" else path.resolve().name
        out = name + _SUFFIXES[options.format]
    check_new_files(out)
    check_checkpoint(options.run, options.checkpoint)
    from fsrl_ext.experiment.saved.export import TOLERANCE, export_policy

    exported = export_policy(
        options.run,
        out,
        format=options.format,
        checkpoint=options.checkpoint,
        allow_import=options.allow_import,
    )
    data = exported.metadata
    sizes = ", ".join(str(x) for x in ("B", *data.get("image_shape", [data["obs_dim"]])))
    if data["output"] == "probabilities":
        actions = f"probabilities [B, {data['num_actions']}]"
    else:
        actions = "actions [B]" if "num_actions" in data else f"actions [B, {len(data['action_low'])}]"
    print(
        f"{exported.path}: {data['policy']} of {data['task']} after {data['env_step']:,} steps, from "
        f"observations [{sizes}] to {actions}"
    )
    if "action_repeat" in data:
        print(f"each action is for {data['action_repeat']} environment steps, as in training")
    what = "probabilities" if data["output"] == "probabilities" else "actions"
    print(
        f"largest difference from the policy's {what} on {exported.observations} random observations: "
        f"{exported.difference:.1e} (allowed: {TOLERANCE:g})"
    )
    return 0
