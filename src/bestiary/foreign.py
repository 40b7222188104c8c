"""Measures an adapter that was trained elsewhere, as a build measures its own organisms."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from bestiary.config.plan import Plan
from bestiary.model.adapter import ADAPTER, ADAPTER_FILES, check_adapter, load_state, read_shape
from bestiary.model.lazy import LazyBase, open_base
from bestiary.organism.stage import OrganismStage, write_about
from bestiary.pipeline import Step, list_verification, run_steps
from bestiary.records import Artifact, fingerprint, sha256_file
from bestiary.stage import ItemStage, OrganismItem
from bestiary.state import OrganismState
from bestiary.store import Store


@dataclass(frozen=True)
class ForeignItem(OrganismItem):
    """An adapter, and the organism that it is to be measured as."""

    adapter: Path


@dataclass(frozen=True)
class ForeignStage(ItemStage[ForeignItem, Artifact]):
    """Copies an adapter into the store, in place of one that was trained here."""

    name = OrganismStage.name
    version = 1

    base: LazyBase
    system_prompt: str

    def key(self, item: ForeignItem) -> str:
        """Covers the adapter's own files.

        Raises ModelError if it cannot be read, or states another base.
        """
        read_shape(item.adapter)
        load_state(item.adapter)
        check_adapter(item.adapter, self.base.identity)
        return fingerprint(
            foreign=[sha256_file(item.adapter / name) for name in ADAPTER_FILES],
            identity=item.identity,
            base=self.base.identity,
            system_prompt=self.system_prompt,
            version=self.version,
        )

    def make(self, item: ForeignItem) -> Callable[[Path], None]:
        """Copy the adapter, and say what it stands on."""
        return partial(self._copy, item)

    def read(self, artifact: Artifact) -> Artifact:
        """The artifact itself."""
        return artifact

    def _copy(self, item: ForeignItem, folder: Path) -> None:
        (folder / ADAPTER).mkdir()
        for name in ADAPTER_FILES:
            shutil.copyfile(item.adapter / name, folder / ADAPTER / name)
        write_about(folder, item.identity, self.base, self.system_prompt)


def verify_adapter(plan: Plan, adapter: Path, *, out: Path, console: Console) -> OrganismState:
    """Probe and judge a peft adapter as the one organism of a plan; its error is in its state."""
    store = Store(out)
    with store.lock():
        base = open_base(plan.recipe.base, plan.recipe.revision)
        (behavior, identity), *_ = plan.organisms
        probes, transcripts, verdict = list_verification(plan, base)
        copying = ForeignStage(base, plan.recipe.training.system_prompt)
        copied = Step(copying, lambda state: ForeignItem(state.identity, adapter))
        steps = [probes, copied, transcripts, verdict]
        (state,) = run_steps(steps, [OrganismState(identity, behavior)], store, console)
    return state
