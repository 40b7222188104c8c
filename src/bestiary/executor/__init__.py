"""Where stages run: in this process, or on Ray's workers over the same store."""

from __future__ import annotations

from typing import Literal

from bestiary.errors import OrganismError
from bestiary.stage import Executor, run_here


def choose_executor(
    name: Literal["local", "ray"], *, workers: int | None = None, address: str | None = None
) -> Executor:
    """The executor of that name; raises OrganismError if it is not available."""
    if name == "ray":
        from bestiary.executor.ray import choose_ray

        return choose_ray(workers=workers, address=address)
    if workers is not None or address is not None:
        raise OrganismError(
            f"executor 'local' takes neither --workers ({workers}) nor --address ({address}), "
            "which are Ray's",
            "add --executor ray",
            code="executor-options",
            workers=workers,
            address=address,
        )
    return run_here
