"""Between host and accelerator, waiting as seldom as possible."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """The values on a device, as a view where they are there already; the host does not wait.

    float64 becomes float32.
    """
    tensor = torch.as_tensor(values)
    if tensor.dtype == torch.float64:
        tensor = tensor.float()
    if tensor.device == device:
        return tensor
    if device.type == "cuda" and tensor.device.type == "cpu":
        # A copy from pageable memory would wait for the device.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_host(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors on the CPU, in one copy; they share dtype and device."""
    if tensors[0].device.type == "cpu":
        return tensors
    flat = torch.cat([x.reshape(-1) for x in tensors]).cpu()
    parts = flat.split([x.numel() for x in tensors])
    return tuple(part.view(x.shape) for part, x in zip(parts, tensors, strict=True))
