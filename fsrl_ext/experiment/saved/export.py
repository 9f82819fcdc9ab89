"""Writes saved policies as files that act without this package: ONNX and TorchScript.

Dimension letters: ``B`` batch, ``O`` observation, ``A`` action.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import Batch, to_numpy
from tianshou.policy import BasePolicy

import fsrl_ext
from fsrl_ext.errors import checked
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.saved.load import load_saved
from fsrl_ext.experiment.saved.traceable import TraceablePolicy, gives_probabilities
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.report.files import check_new_file, in_json, replacing
from fsrl_ext.report.folder import Which, checkpoint_file

Format = Literal["onnx", "torchscript"]

TOLERANCE = 1e-5
"""Largest difference between the file's actions and the policy's, relative to the action box's size."""

METADATA_FILE = "metadata.json"
"""Name of the metadata inside a TorchScript file."""

_OPSET = 17
# Observations relative to the policy's own statistics: near the middle, usual ones, and outside. Much farther
# out, rounding alone can differ by more than the tolerance where observations are not clipped.
_SPREADS = (0.1, 1.0, 3.0)
_ROWS = 64
_IMAGES = 16
_PACKAGES = ("onnx", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class ExportedPolicy:
    """What was written, and how it was checked.

    :param path: the file.
    :param difference: largest difference between the file's actions or probabilities and the policy's in the
        check. Below 1 in absolute value actions are compared as they are, larger ones relative to the box's
        largest action.
    :param observations: random observations of the check.
    :param metadata: what the file says about the policy.
    """

    path: Path
    difference: float
    observations: int
    metadata: dict[str, Any]


@checked(own=("checkpoint", "format"))
def export_policy(
    run: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    format: Format,
    checkpoint: Which = "best",
    allow_import: bool = False,
) -> ExportedPolicy:
    """Writes a saved policy as one file that maps raw observations to environment actions.

    The file takes observations ``obs`` for any ``B``, float32 ``[B, O]`` or uint8 images ``[B, H, W, K]`` or
    ``[B, K, H, W]`` as the environment returns them, and gives the deterministic actions
    ``action [B, A]`` of an evaluation, in the dtype of the action space: normalised observations, clipped and
    scaled actions are the file's matter. Discrete actions are ``action [B]``, int64. Where evaluations sample
    discrete actions, the file gives ``probabilities [B, n]``, float32, in place of ``action``, and its caller
    samples. Before the file is written, its answers are compared with the policy's on random observations.
    The file computes on a processor, wherever the policy was trained.

    :param run: a run folder, a checkpoint file, or ``zoo:NAME``.
    :param path: a new file; it appears when it is complete.
    :param format: ``"onnx"`` or ``"torchscript"``.
    :param checkpoint: which policy of a run folder, ``"best"`` or ``"last"``.
    :param allow_import: whether the module of networks of the user's may be imported, which runs its code.
    :raises CheckpointError: if there is no usable checkpoint.
    :raises ValueError: if the path cannot be used, or the policy cannot be written in this format: its
        actions are samples of a continuous distribution, depend on earlier observations, or differ by more
        than 1e-5 from the file's.
    :raises ImportError: if a package for ONNX is missing.
    """
    check_format(format)
    path = check_new_file(path)
    file = checkpoint_file(run, checkpoint)
    policy, config, spec = load_saved(file, "cpu", allow_import=allow_import)
    metadata = _metadata(config, spec, read_checkpoint(file)["counters"]["env_step"])
    metadata["output"] = "probabilities" if gives_probabilities(policy) else "action"
    batches = _observations(policy, spec)
    expected = _expected(policy, batches)
    with _refusing(f"this {config.policy} policy cannot be written as {format}"):
        content = _WRITERS[format](TraceablePolicy(policy), torch.as_tensor(batches[-1]), metadata)
        act = _READERS[format](content)
        actions = [act(obs) for obs in batches]
    difference = _difference(actions, expected, policy)
    kind = expected[0].dtype
    allowed = max(TOLERANCE, float(np.finfo(kind).eps)) if kind.kind == "f" else 0.0
    if not difference <= allowed:
        raise ValueError(
            f"actions of the {format} file must be within {allowed:g} of those of the policy, got a "
            f"difference of {difference:.2g}; nothing was written"
        )
    with replacing(path) as out:
        out.write(content)
    return ExportedPolicy(
        path=path, difference=difference, observations=sum(map(len, batches)), metadata=metadata
    )


def check_format(format: str) -> None:
    """Checks that files of a format can be written and checked here.

    :raises ValueError: for an unknown format.
    :raises ImportError: naming the missing packages of ONNX and the command that installs them.
    """
    if format not in get_args(Format):
        raise ValueError(f"format must be one of {get_args(Format)}, got {format!r}")
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if format == "onnx" and missing:
        raise ImportError(
            f"format 'onnx' needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed: pip install 'fsrl_ext[export]' (format 'torchscript' needs nothing more)"
        )


def _metadata(config: ExperimentConfig, spec: TaskSpec, env_step: int) -> dict[str, Any]:
    """What a file says about its policy, in plain JSON."""
    data = {
        "fsrl_ext": fsrl_ext.__version__,
        "task": config.task,
        "policy": config.policy,
        "env_step": env_step,
        "cost_limit": config.cost_limit,
        "limit_unit": config.policy_config.limit_unit,
        "cost_names": config.costs,
        "obs_dim": spec.obs_dim,
        "action_low": spec.action_low,
        "action_high": spec.action_high,
        "action_dtype": spec.action_dtype,
    }
    if config.training.action_repeat > 1:
        data["action_repeat"] = config.training.action_repeat
    if spec.image_shape is not None:
        data["image_shape"] = spec.image_shape
    if spec.num_actions is not None:
        data |= {"num_actions": spec.num_actions, "first_action": spec.first_action}
    return in_json(data)


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turns the many kinds of errors of tracers and runtimes into a ``ValueError`` that says ``what``.

    Warnings are not shown: they say that the tracer is an old one, and that a trace may depend on the batch's
    size, which the comparison of actions finds out.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{what}: {reason[0]}") from error


def _observations(policy: BasePolicy, spec: TaskSpec) -> list[np.ndarray]:
    """Random float32 observations ``[B, O]`` around those that the policy has seen, or images, in batches."""
    random = np.random.default_rng(0)
    if spec.image_shape is not None:
        return [random.integers(0, 256, (rows, *spec.image_shape), np.uint8) for rows in (1, _IMAGES)]
    obs_dim = spec.obs_dim
    shift, size = _statistics(policy, obs_dim)
    spreads = [(rows, spread) for spread in _SPREADS for rows in (1, _ROWS)]
    return [
        (shift + spread * size * random.standard_normal((rows, obs_dim))).astype(np.float32)
        for rows, spread in spreads
    ]


def _statistics(policy: Any, obs_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and size ``[O]`` of the policy's observations; 0 and 1 where the policy has no statistics."""
    shift, size = np.zeros(obs_dim), np.ones(obs_dim)
    normaliser, data = getattr(policy, "normaliser", None), getattr(policy, "data", None)
    if normaliser is not None:
        shift, size = normaliser.mean.numpy(), normaliser.variance.sqrt().numpy()
    elif data is not None and (units := data.units())["shift"] is not None:
        shift, size = np.asarray(units["shift"]), np.asarray(units["deviation"])
    return shift, np.where(size > 0, size, np.maximum(np.abs(shift), 1.0))


@torch.no_grad()
def _actions(policy: BasePolicy, obs: np.ndarray, seed: int) -> np.ndarray:
    """The policy's actions ``[B, A]`` in the environment's units, as the collectors send them there.

    Of a policy that samples discrete actions, the probabilities ``[B, n]``.

    :param seed: of torch, in case the policy samples.
    :raises ValueError: if the policy's actions depend on earlier observations.
    """
    if gives_probabilities(policy):
        # The annotation is `Any` because Tianshou's base class lacks the method.
        acting: Any = policy
        return to_numpy(acting.acting_distribution(obs)[0].probs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        result = policy(Batch(obs=obs, info=Batch()))
    if result.get("state") is not None:
        raise ValueError(
            f"policy must act on one observation at a time, got {type(policy).__name__}, which is recurrent"
        )
    mapped = np.asarray(policy.map_action(to_numpy(result.act)))
    space: Any = policy.action_space
    if isinstance(space, gym.spaces.Discrete):
        return mapped
    return np.clip(mapped, space.low, space.high).astype(space.dtype, copy=False)


def _expected(policy: BasePolicy, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The actions that the file has to give for each batch of observations.

    :raises ValueError: if the policy samples its actions outside of training, too, or gives NaN.
    """
    expected, again = ([_actions(policy, obs, seed) for obs in batches] for seed in (0, 1))
    name = type(policy).__name__
    if not all(np.isfinite(act).all() for act in expected):
        raise ValueError(f"actions must be finite, got NaN from {name}")
    if not all(np.array_equal(*pair) for pair in zip(expected, again, strict=True)):
        raise ValueError(
            f"actions must be deterministic, got samples from {name} (deterministic_eval is off)"
        )
    return expected


def _difference(actions: Sequence[np.ndarray], expected: Sequence[np.ndarray], policy: BasePolicy) -> float:
    """Largest difference of actions ``[B, A]``, relative to the box's largest action where that exceeds 1."""
    space: Any = policy.action_space
    if isinstance(space, gym.spaces.Discrete):  # numbers of actions, or probabilities
        return max(float(np.abs(a - b).max()) for a, b in zip(actions, expected, strict=True))
    size = np.maximum(np.maximum(np.abs(space.low), np.abs(space.high)).astype(np.float64), 1.0)
    pairs = zip(actions, expected, strict=True)
    return max(float((np.abs(a.astype(np.float64) - b) / size).max()) for a, b in pairs)


@torch.no_grad()
def _trace(model: TraceablePolicy, like: torch.Tensor) -> tuple[torch.jit.ScriptModule, torch.Tensor]:
    """The trace of a model, and the observations that it was traced with.

    :param like: some observations.
    """
    example = torch.zeros(2, *like.shape[1:], dtype=like.dtype)
    model(example)  # what is kept between calls becomes a constant of the trace
    return torch.jit.trace(model, example, check_trace=False), example


def _torchscript(model: TraceablePolicy, like: torch.Tensor, metadata: dict[str, Any]) -> bytes:
    trace, _ = _trace(model, like)
    out = io.BytesIO()
    torch.jit.save(trace, out, _extra_files={METADATA_FILE: json.dumps(metadata)})
    return out.getvalue()


def _onnx(model: TraceablePolicy, like: torch.Tensor, metadata: dict[str, Any]) -> bytes:
    import onnx

    trace, example = _trace(model, like)
    out = io.BytesIO()
    # The newer exporter (dynamo=True) needs onnxscript and cannot follow the policies' own normalisers.
    torch.onnx.export(
        trace,
        (example,),
        out,  # type: ignore[arg-type]
        dynamo=False,
        opset_version=_OPSET,
        input_names=["obs"],
        output_names=[metadata["output"]],
        dynamic_axes={"obs": {0: "batch"}, metadata["output"]: {0: "batch"}},
    )
    written = onnx.load_model_from_string(out.getvalue())
    texts = {key: x if isinstance(x, str) else json.dumps(x) for key, x in metadata.items()}
    onnx.helper.set_model_props(written, texts)
    onnx.checker.check_model(written)
    return written.SerializeToString()


def _read_torchscript(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    trace = torch.jit.load(io.BytesIO(content))
    return lambda obs: trace(torch.as_tensor(obs)).numpy()


def _read_onnx(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda obs: session.run(None, {"obs": obs})[0]


_WRITERS: dict[str, Callable[[TraceablePolicy, torch.Tensor, dict[str, Any]], bytes]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
}
_READERS = {"onnx": _read_onnx, "torchscript": _read_torchscript}
