"""Where organisms are trained: in this process, or by Ray's workers over the same store."""

from __future__ import annotations

from typing import Literal

from bestiary.errors import OrganismError
from bestiary.organism.train import Executor


def choose_executor(
    name: Literal["local", "ray"], *, workers: int | None = None, address: str | None = None
) -> Executor:
    """The executor of that name; raises OrganismError where it cannot be had."""
    if name == "ray":
        from bestiary.executor.ray import choose_ray

        return choose_ray(workers=workers, address=address)
    if workers is not None or address is not None:
        raise OrganismError(
            f"executor 'local' has neither --workers ({workers}) nor an --address ({address}), "
            "which are Ray's; add --executor ray"
        )
    from bestiary.executor.local import train_here

    return train_here
