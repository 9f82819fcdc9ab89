"""Damages and edits saved files in thousands of ways, and counts how each of them ends.

    python benchmarks/mutations.py --edits 1000 --stride 13 --json benchmarks/results/mutations.json

A tiny run is trained. Of its checkpoint and of its snapshot

- random bytes are changed, ``--bytes`` times;
- every bit of the zip directory (central directory and end records) is flipped, and every ``--stride``-th one
  in a file without digest, as earlier versions wrote it, which tries the checks behind the digest;
- parts of the content are removed, or replaced by values of other types, NaN and absurd numbers, ``--edits``
  times, and the file is written anew with a right digest.

Parts of ``config.json`` and ``result.json`` are removed and replaced, too. A case ends in one of these ways:

========== ========================================================================================
refused    the error has one line, which names the file or what does not fit
equal      the content is that of the undamaged file
harmless   an edited part has a value that it could have, and the file is used as it says
silent     damage was not noticed and another content was loaded
traceback  an error of another kind, or of several lines
slow       the case took longer than :data:`SLOW` seconds
========== ========================================================================================

The exit code is 0 if there is none of the last three.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from fsrl_ext.errors import CheckpointError, RunFolderError
from fsrl_ext.experiment import ExperimentConfig, make_config, run
from fsrl_ext.experiment.files.archive import Archive, write_archive
from fsrl_ext.experiment.files.content import read_content
from fsrl_ext.experiment.saved.load import load_experiment
from fsrl_ext.experiment.training import build
from fsrl_ext.experiment.training.checkpoint import Kind, in_this_version
from fsrl_ext.experiment.training.snapshot import load_policy_state, load_run_state, read_snapshot
from fsrl_ext.report.files import in_json, read_json, write_json
from fsrl_ext.report.records import NOTED, RESULT, read_record
from fsrl_ext.trainer import seed_range

SLOW = 60.0
"""Seconds that one case may take; an edit can ask for a process, which imports everything anew."""
TRAILER = len(b"\nfsrl_ext sha256 ") + 64 + 1
OLD_FORMATS = {"checkpoint": 1, "snapshot": 2}
SETTINGS: dict[str, Any] = {
    "steps": 240, "selections": 3, "step_per_collect": 24, "num_envs": 2, "hidden_sizes": (4,),
    "batch_size": 8, "buffer_size": 400, "selection_episodes": 2, "final_episodes": 2, "warmup_steps": 0,
}  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None, True, -1, 0.5, math.nan, math.inf, 10**15, 10**40, "text", b"bytes", [], {}, [[1]], {"a": 1},
    torch.zeros(3), torch.full((2, 2), math.nan),
)  # fmt: skip
FAILURES = ("silent", "traceback", "slow")


class _KeepSnapshot:
    """Keeps the newest snapshot, because a run removes it at its end."""

    content = b""

    def on_selection(self, view: Any) -> None:
        if view.folder.snapshot.is_file():
            self.content = view.folder.snapshot.read_bytes()


def small_run(out: Path) -> Path:
    """The folder of a tiny run, with its last snapshot."""
    keeper = _KeepSnapshot()
    config = make_config("ddpg_lag", "KnownOptimum-v0", **SETTINGS)
    done = run(config, out=out, run_name="run", show_progress=False, callbacks=[keeper])
    (done.folder / "checkpoints" / "resume.pt").write_bytes(keeper.content)
    return done.folder


def content_of(path: Path) -> Any:
    """The content of a file, without checks of its structure."""
    with path.open("rb") as file:
        return read_content(Archive(file))


def equal(one: Any, other: Any) -> bool:
    """Whether two contents are the same, bit for bit."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(equal(one[key], other[key]) for key in one)
        )
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and (one == other or one != one)


def use_checkpoint(path: Path) -> None:
    """Loads a policy as ``evaluate`` does."""
    with torch.random.fork_rng(devices=[]):
        load_experiment(path)


def use_snapshot(path: Path) -> None:
    """Goes on from a snapshot as ``resume`` does, but for the training."""
    saved = read_snapshot(path)
    config = in_this_version(ExperimentConfig.from_dict, saved["run"]["config"], saved, path)
    policy, _ = build.build_policy(config)
    load_policy_state(policy, saved)
    collector = build.train_collector(policy, config)
    try:
        trainer = config.training.trainer(
            policy, collector, task=config.task, seed=config.seed, steps=config.steps, selections=3,
            warm_start=False, test_collector=None, selection_seeds=seed_range("selection", 2),
            show_progress=False,
        )  # fmt: skip
        load_run_state(trainer, saved)
    finally:
        collector.close()


def judge(path: Path, use: Callable[[Path], None], same: Callable[[], bool] | None) -> tuple[str, str]:
    """How a case ends, and the message or the error.

    :param same: whether the content is that of the undamaged file; ``None`` if the file was edited.
    """
    begun = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use(path)
    except (CheckpointError, RunFolderError, ValueError) as error:
        text = str(error)
        end = "refused" if len(text.splitlines()) == 1 and len(text) < 600 else "traceback"
        if not isinstance(error, CheckpointError | RunFolderError):
            end, text = "traceback", f"{type(error).__name__}: {text}"
    except Exception as error:
        end, text = "traceback", f"{type(error).__name__}: {error}"
    else:
        end, text = ("harmless", "") if same is None else ("equal", "") if same() else ("silent", "")
    text = text.replace(f"{path.parent}/", "")  # the folder is a temporary one
    return ("slow" if time.monotonic() - begun > SLOW else end), text


def changed_bytes(whole: bytes, count: int, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Files with one other byte each."""
    for _ in range(count):
        place, change = draw.randrange(len(whole)), draw.randrange(1, 256)
        yield f"byte {place} ^ {change}", _with_byte(whole, place, change)


def directory_bits(whole: bytes, stride: int, *, digest: bool) -> Iterator[tuple[str, bytes]]:
    """Files with one other bit each in the zip directory, the end records included."""
    end = len(whole) - (TRAILER if digest else 0)
    start = int.from_bytes(whole[end - 6 : end - 2], "little")
    for number in range(0, 8 * (end - start), stride):
        place, bit = divmod(number, 8)
        yield f"bit {bit} of byte {place} of the directory", _with_byte(whole, start + place, 1 << bit)


def _with_byte(whole: bytes, place: int, change: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :]


def parts_of(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all parts; of long lists the first and the last one."""
    if isinstance(content, dict):
        places = list(content)
    elif isinstance(content, list | tuple):
        places = [i for i in range(len(content)) if i in (0, len(content) - 1)]
    else:
        return
    for place in places:
        yield (*path, place)
        yield from parts_of(content[place], (*path, place))


def edited(content: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """A copy of the content in which one part is changed."""
    if len(path) == 1:
        inner = copy.copy(content) if isinstance(content, dict) else list(content)
        change(inner, path[0])
    else:
        inner = copy.copy(content) if isinstance(content, dict) else list(content)
        inner[path[0]] = edited(inner[path[0]], path[1:], change)
    return tuple(inner) if isinstance(content, tuple) else inner


def edits(
    content: Any, others: tuple[Any, ...], count: int, draw: random.Random
) -> Iterator[tuple[str, Any]]:
    """Contents with one part removed, replaced or added each: a sample of all of them."""
    parts = list(parts_of(content))
    cases: list[tuple[str, tuple[Any, ...], Any]] = [("without", part, None) for part in parts]
    cases += [("other", part, value) for part in parts for value in others]
    cases += [("more", part, 1) for part in parts if isinstance(part[-1], str)]
    for kind, part, value in draw.sample(cases, min(count, len(cases))):
        where = ".".join(map(str, part))
        if kind == "without":
            yield f"without {where}", edited(content, part, lambda inner, name: inner.__delitem__(name))
        elif kind == "more":
            yield f"beside {where}", edited(content, part, lambda x, name: x.update({f"{name}_": 1}))
        else:
            yield (
                f"{where} = {str(value)[:30]}",
                edited(content, part, lambda x, name, v=value: x.__setitem__(name, v)),
            )


class Report:
    """Counts how the cases end, and keeps some of each kind."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.examples: dict[str, dict[str, str]] = {}
        self.slowest = 0.0

    def add(self, group: str, case: str, end: str, text: str) -> None:
        self.counts.setdefault(group, Counter())[end] += 1
        kept = self.examples.setdefault(f"{group}: {end}", {})
        if len(kept) < (40 if end in FAILURES else 60 if end == "harmless" else 5):
            kept[case] = text

    @property
    def failed(self) -> int:
        """How many cases ended as none may."""
        return sum(counts[end] for counts in self.counts.values() for end in FAILURES)


def try_archive(
    kind: Kind, path: Path, use: Callable[[Path], None], options: argparse.Namespace, report: Report
) -> None:
    """Damages and edits a checkpoint or a snapshot."""
    draw = random.Random(options.seed)
    whole, content = path.read_bytes(), content_of(path)
    other = path.with_name("mutated.pt")

    def damage(group: str, cases: Iterator[tuple[str, bytes]], good: Any) -> None:
        for case, data in cases:
            other.write_bytes(data)
            report.add(f"{kind}: {group}", case, *judge(other, use, lambda: equal(content_of(other), good)))

    damage("random bytes", changed_bytes(whole, options.bytes, draw), content)
    damage("bits of the directory", directory_bits(whole, 1, digest=True), content)
    old = {**content, f"fsrl_ext_{kind}": OLD_FORMATS[kind]}
    torch.save(old, other)
    bare = other.read_bytes()
    damage("random bytes, no digest", changed_bytes(bare, options.bytes // 4, draw), old)
    damage("bits of the directory, no digest", directory_bits(bare, options.stride, digest=False), old)
    for case, data in edits(content, OTHERS, options.edits, draw):
        with other.open("wb") as file:
            write_archive(file, data)
        report.add(f"{kind}: edits", case, *judge(other, use, None))
    other.unlink()


def try_record(path: Path, rule: Any, options: argparse.Namespace, report: Report) -> None:
    """Edits a JSON file."""
    draw = random.Random(options.seed)
    good, other = read_json(path), path.with_name("mutated.json")

    def use(file: Path) -> None:
        data = read_record(file, rule)
        if rule is NOTED:
            settings = {name: data[name] for name in data if name not in ("command", "init_from")}
            try:
                ExperimentConfig.from_dict(settings)
            except ValueError as error:
                raise RunFolderError(f"{file} is damaged or edited: {error}") from error

    plain = tuple(x for x in OTHERS if not isinstance(x, bytes | torch.Tensor))
    for case, data in edits(good, plain, options.edits, draw):
        write_json(other, in_json(data))
        report.add(f"{path.name}: edits", case, *judge(other, use, None))
    other.unlink()


def main() -> int:
    """Runs all cases; returns 1 if one of them is silent, slow or a traceback."""
    parser = argparse.ArgumentParser(description="Damage and edit saved files.")
    parser.add_argument("--bytes", type=int, default=2000, help="random bytes to change in each file")
    parser.add_argument("--edits", type=int, default=600, help="edits of each file")
    parser.add_argument("--stride", type=int, default=1, help="of bits, in files without digest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write counts and examples to this file")
    options = parser.parse_args()
    report, begun = Report(), time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        folder = small_run(Path(out))
        try_archive("checkpoint", folder / "checkpoints" / "best.pt", use_checkpoint, options, report)
        try_archive("snapshot", folder / "checkpoints" / "resume.pt", use_snapshot, options, report)
        try_record(folder / "config.json", NOTED, options, report)
        try_record(folder / "result.json", RESULT, options, report)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for group, counts in report.counts.items():
        print(f"{group:45} {', '.join(f'{name} {n}' for name, n in sorted(counts.items()))}")
    print(f"{time.monotonic() - begun:.0f} s, at most {memory:.0f} MB")
    for group, cases in report.examples.items():
        if group.rpartition(" ")[2] in FAILURES:
            for case, text in cases.items():
                print(f"{group}: {case}: {text[:200]}")
    if options.json is not None:
        write_json(
            options.json,
            {
                "command": f"python benchmarks/mutations.py --bytes {options.bytes} --edits {options.edits} "
                f"--stride {options.stride} --json benchmarks/results/mutations.json",
                "seed": options.seed,
                "cases": sum(sum(x.values()) for x in report.counts.values()),
                "counts": {group: dict(counts) for group, counts in report.counts.items()},
                "memory_mb": round(memory),
                "examples": report.examples,
            },
        )
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
