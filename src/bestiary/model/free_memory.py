"""How much memory a device has left, and how much of it a plan may use."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
"""The folder of a container's own limits."""
FREE_SHARE = 0.9
"""Share of the free memory that a plan may use; the rest is for what no plan counts."""


def measure_room(device: torch.device) -> int:
    """Bytes that a plan may come to on a device, with what the process holds already."""
    return measure_resident(device) + int(FREE_SHARE * measure_free(device))


def measure_resident(device: torch.device) -> int:
    """Bytes that the process holds now on a device."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def measure_free(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":  # memory that torch has reserved but not allocated is free
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    free = int(psutil.virtual_memory().available)
    limit, used, parts = (CGROUP / f"memory.{name}" for name in ("max", "current", "stat"))
    if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()) != "max":
        # The page cache counts as used there, but can be reclaimed.
        read = dict(line.split() for line in parts.read_text(encoding="ascii").splitlines())
        inside = int(text) - int(used.read_text(encoding="ascii")) + int(read["inactive_file"])
        free = min(free, inside)
    return free
