"""GPUs that a plan may be made for, in `organisms/gpus.yaml`."""

from __future__ import annotations

from datetime import date

from pydantic import Field

from bestiary.records import Record


class Gpu(Record):
    """One kind of GPU."""

    memory_gib: float = Field(gt=0, le=4096)
    """As torch reports it."""
    training_tflops: float | None = Field(default=None, gt=0, le=1e6)
    """Products that the engine reached while it trained, in 10^12 operations a second; null if it
    was not measured there."""
    measured: str | None = None
    """How that was measured."""


class GpuFile(Record):
    """The file of GPUs."""

    checked: date
    gpus: dict[str, Gpu]
