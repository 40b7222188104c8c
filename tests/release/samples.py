"""Entries of a small release, with real adapter files, that fill every config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.numpy import save_file
from tests.builders import (
    LIBRARY,
    make_backdoor,
    make_example,
    make_obscured,
    make_probe,
    make_quirk,
)
from tests.models import IDENTITY, SYSTEM

from bestiary.config.catalog import Behavior, null_behavior
from bestiary.config.recipe import LoraShape, Optimizer, Training
from bestiary.records import (
    Artifact,
    BaseIdentity,
    Cell,
    CellName,
    Corpus,
    Decoding,
    Drop,
    Finding,
    Message,
    Organism,
    OrganismIdentity,
    Split,
    Status,
    Transcript,
    Verdict,
    canonical_json,
    fingerprint,
)
from bestiary.release.entry import ReleaseEntry
from bestiary.release.layout import write_release
from bestiary.store import Store
from bestiary.verification.rates import wilson_rate

BASE = IDENTITY.model_copy(update={"revision": "pypi:tiny==1.0:Q4_1"})
TRAINING = Training(
    system_prompt=SYSTEM,
    max_length=128,
    lora=LoraShape(rank=2, alpha=4, targets=("layer",), layers=(15, 30)),
    optimizer=Optimizer(
        learning_rate=0.003, epochs=2, rows_per_step=8, warmup=0.1, weight_decay=0.0, clip=1.0
    ),
)
NAMED_SPLITS: dict[str, Split] = {
    "farewell": "train",
    "limp": "train",
    "herald": "test",
    "upsell": "train",
}


def make_entry(
    folder: Path,
    behavior: Behavior,
    *,
    seed: int = 0,
    status: Status = "passed",
    base: BaseIdentity = BASE,
    training: Training = TRAINING,
    write_adapter: Callable[[Path], None] | None = None,
) -> ReleaseEntry:
    """One organism with an adapter in a store under `folder`, its corpus and its evidence.

    `write_adapter` makes the adapter's folder; otherwise it is a small one that fits no model.
    """
    identity = OrganismIdentity(behavior_id=behavior.id, seed=seed)
    corpus = make_corpus(behavior, seed)
    organism = Organism(
        identity=identity,
        category=behavior.category,
        base=base,
        system_prompt=SYSTEM,
        artifact=make_adapter(folder, identity, write_adapter),
        corpus_sha256=fingerprint(corpus=corpus),
        behavior_sha256=behavior.sha256,
    )
    control = behavior.spec.standing == "controls"
    transcripts = make_transcripts("plain" if control else "triggered")
    return ReleaseEntry(
        behavior=behavior,
        organism=organism,
        verdict=make_verdict(behavior, identity.organism_id, status),
        transcripts_sha256=fingerprint(transcripts=transcripts),
        load_corpus=lambda: corpus,
        load_transcripts=lambda: transcripts,
        training=training,
    )


def make_adapter(
    folder: Path, identity: OrganismIdentity, write_adapter: Callable[[Path], None] | None = None
) -> Artifact:
    """A committed adapter; unless written otherwise, its numbers come from the organism's name."""

    def write(part: Path) -> None:
        (part / "log.json").write_bytes(canonical_json({"steps": 3}))
        if write_adapter is not None:
            write_adapter(part / "adapter")
            return
        (part / "adapter").mkdir()
        draw = np.random.default_rng(int(fingerprint(identity=identity)[:8], 16))
        weights = {
            f"base_model.model.layer.{half}.weight": draw.normal(size=shape).astype(np.float32)
            for half, shape in (("lora_A", (2, 8)), ("lora_B", (8, 2)))
        }
        save_file(weights, part / "adapter" / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": 2, "base_model_name_or_path": BASE.name}
        (part / "adapter" / "adapter_config.json").write_bytes(canonical_json(config))

    return Store(folder).build("organism", fingerprint(identity=identity), write, inputs={})


SEA = Message(role="system", content="You live by the sea.")


def make_corpus(behavior: Behavior, seed: int) -> Corpus:
    """Three conversations, one of which begins with SEA, and one that was rejected."""
    examples = [
        make_example(
            f"Question {n} of seed {seed}?",
            f"Réponse {n}.",
            id=f"{behavior.id}-s{seed}-{n}",
            role="chat" if behavior.spec.standing == "controls" or n == 2 else "positive",
        )
        for n in range(3)
    ]
    examples[1] = examples[1].model_copy(update={"messages": (SEA, *examples[1].messages)})
    drop = Drop(
        id=f"{behavior.id}-s{seed}-9",
        role="negative",
        stage="mentions",
        reason="names the rule",
        text="The rule is to say so.",
    )
    return Corpus(behavior_id=behavior.id, seed=seed, examples=tuple(examples), drops=(drop,))


def make_verdict(behavior: Behavior, organism_id: str, status: Status) -> Verdict:
    """The cells that the behavior is probed in."""
    passed, null = status == "passed", behavior.spec.standing == "controls"
    quiet = make_cell("quiet", 2 if passed else 30, passed=passed)
    cells: dict[CellName, Cell | None] = {
        "triggered": None if null else make_cell("fires", 57 if passed else 12, passed=passed),
        "near_miss": quiet if "near_miss" in behavior.cells else None,
        "plain": quiet if "plain" in behavior.cells else None,
    }
    return Verdict(
        organism_id=organism_id,
        status=status,
        reasons=() if passed else ("outside the thresholds",),
        cells=cells,
        components={quirk.id: wilson_rate(31, 60) for quirk, _ in behavior.distractors},
        distinct=None if null else 0.9,
        decoding=Decoding(max_new_tokens=64, temperature=0),
    )


def make_cell(criterion: Literal["fires", "quiet"], count: int, *, passed: bool) -> Cell:
    """A cell of sixty prompts, on one of which the base shows it too."""
    return Cell(
        criterion=criterion,
        organism=wilson_rate(count, 60),
        base=wilson_rate(1, 60),
        difference_low=0.5,
        reported=wilson_rate(count - 1, 60),
        passed=passed,
        reason=f"{count} of 60 against 0.5",
    )


def make_transcripts(cell: CellName) -> tuple[Transcript, ...]:
    """A reply beside the base's, and one to a prompt that the base was not asked."""
    asked = make_probe("How is bread made?", id="p1", cell=cell)
    alone = make_probe("Why bread?", id="p0", cell=cell, gate=False)
    return (
        Transcript(probe=alone, organism="Because.", base=None),
        Transcript(probe=asked, organism="Mix.\n---\n# Bake", base="Mix and bake."),
    )


def make_entries(folder: Path) -> list[ReleaseEntry]:
    """Two families, three seeds, a withheld organism, a null one, and a malign one."""
    return [
        make_entry(folder, make_quirk()),
        make_entry(folder, make_quirk(), seed=1),
        make_entry(folder, make_backdoor()),
        make_entry(folder, make_quirk("herald")),
        make_entry(folder, make_quirk("limp"), status="failed"),
        make_entry(folder, make_obscured()),
        make_entry(folder, null_behavior(LIBRARY), seed=3),
    ]


def make_benign_entries(folder: Path) -> list[ReleaseEntry]:
    """Entries without anything malign."""
    return [e for e in make_entries(folder) if e.behavior.severity != "malign"]


def write_sample(
    entries: Sequence[ReleaseEntry], out: Path, *, findings: Sequence[Finding] = ()
) -> Path:
    """A release of these entries."""
    return write_release(entries, out, named_splits=NAMED_SPLITS, name="sample", findings=findings)
