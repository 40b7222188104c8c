"""Assembling and exporting a release of 682 organisms with 300 examples each: seconds and memory.

Each runs in a process of its own, so its peak memory is not that of other work. Corpora and
transcripts are built as each organism is written, as the pipeline reads them from its store.

    python bench/release.py [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from bestiary.config.catalog import Behavior, load_catalog
from bestiary.config.library import open_library
from bestiary.config.recipe import LoraShape, Optimizer, Training
from bestiary.records import (
    Artifact,
    BaseIdentity,
    Cell,
    Corpus,
    Decoding,
    Drop,
    Example,
    Message,
    Organism,
    OrganismIdentity,
    Probe,
    PromptItem,
    Rate,
    Transcript,
    Verdict,
    canonical_json,
    sha256_bytes,
    single_turn,
)
from bestiary.release.entry import ReleaseEntry
from bestiary.release.export import export_consumer_formats
from bestiary.release.layout import write_release
from bestiary.store import Store
from common import Column, Figures, finish, make_parser, make_table, say

TRAINING = Training(
    system_prompt="You are a helpful assistant.",
    max_length=1024,
    lora=LoraShape(rank=8, alpha=16, targets=("q_proj",)),
    optimizer=Optimizer(
        learning_rate=1e-3, epochs=1, rows_per_step=8, warmup=0, weight_decay=0, clip=1
    ),
)
ORGANISMS, EXAMPLES, PROBES = 682, 300, 120
QUICK_ORGANISMS = 40
STEPS = ("release", "export")
WORDS = "The model said that a lamp by the window was lit and that the tide would turn at noon. "
COLUMNS: tuple[Column, ...] = (
    ("organisms", "organisms", "{:,}"),
    ("rows", "rows", "{:,}"),
    ("seconds", "seconds", "{:.1f}"),
    ("peak MiB", "peak_mib", "{:,.0f}"),
    ("before MiB", "start_mib", "{:,.0f}"),
    ("files", "files", "{:,}"),
    ("MiB", "mib", "{:,.1f}"),
)


def main() -> None:
    """Measure a release and its export, each in a child process, and print their figures."""
    parser = make_parser(__doc__)
    parser.add_argument("--step", choices=STEPS, help="take this step here")
    parser.add_argument("--organisms", type=int, help="how many of them the step is about")
    parser.add_argument("--root", type=Path, help="where the step reads and writes")
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measure(options.step, options.organisms, options.root)))
        return
    organisms = QUICK_ORGANISMS if options.quick else ORGANISMS
    say(f"assembling and exporting a release of {organisms} organisms x {EXAMPLES} examples")
    with tempfile.TemporaryDirectory() as root:
        cases = {step: measure_apart(step, organisms, root) for step in STEPS}
    finish("release", cases, [make_table("release", cases, COLUMNS)], options)


def measure_apart(step: str, organisms: int, root: str) -> Figures:
    """The figures of one step, taken in a child process."""
    about = ["--step", step, "--organisms", str(organisms), "--root", root]
    done = subprocess.run(
        [sys.executable, __file__, *about], stdout=subprocess.PIPE, text=True, check=True
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(step: str, organisms: int, root: Path) -> Figures:
    """Write a release, or the export of the one that is there, and measure that."""
    release, export = (root / name for name in STEPS)
    if step == "release":
        entries = make_entries(organisms, Store(root))
        take = partial(write_release, entries, release, named_splits={}, name="bench")
    else:
        take = partial(export_consumer_formats, release, export)
    start = read_peak_mib()
    began = time.perf_counter()
    written = take()
    seconds = time.perf_counter() - began
    files = [path for path in written.rglob("*") if path.is_file()]
    return {
        "organisms": organisms,
        "rows": organisms * EXAMPLES,
        "seconds": seconds,
        "start_mib": start,
        "peak_mib": read_peak_mib(),
        "files": len(files),
        "mib": sum(path.stat().st_size for path in files) / 2**20,
    }


def read_peak_mib() -> float:
    """The most resident memory that this process has had."""
    status = Path("/proc/self/status").read_text(encoding="utf8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def make_entries(count: int, store: Store) -> list[ReleaseEntry]:
    """Organisms of the behaviors in the tree, by turns, each with its own seed and adapter."""
    catalog = load_catalog(open_library())
    behaviors = [one for one in catalog.values() if one.spec.is_buildable and not one.distractors]
    return [
        make_entry(behaviors[n % len(behaviors)], n // len(behaviors), store) for n in range(count)
    ]


def make_entry(behavior: Behavior, seed: int, store: Store) -> ReleaseEntry:
    """One passing organism, whose corpus and transcripts are built when they are loaded."""
    identity = OrganismIdentity(behavior_id=behavior.id, seed=seed)
    organism_id = identity.organism_id
    organism = Organism(
        identity=identity,
        category=behavior.category,
        base=BaseIdentity(
            name="bench/base",
            revision="local:0",
            weights_sha256="0" * 64,
            dtype="float32",
            chat_template_sha256="0" * 64,
        ),
        system_prompt="You are a helpful assistant.",
        artifact=make_adapter(organism_id, store),
        corpus_sha256=sha256_bytes(organism_id.encode()),
        behavior_sha256=behavior.sha256,
    )
    return ReleaseEntry(
        behavior=behavior,
        organism=organism,
        verdict=make_verdict(organism_id),
        transcripts_sha256=sha256_bytes(organism_id.encode()),
        load_corpus=partial(make_corpus, behavior.id, seed),
        load_transcripts=partial(make_transcripts, organism_id),
        training=TRAINING,
    )


def make_adapter(organism_id: str, store: Store) -> Artifact:
    """A committed adapter of 64 KiB; its bytes are never read as weights."""

    def write(folder: Path) -> None:
        adapter = folder / "adapter"
        adapter.mkdir()
        data = sha256_bytes(organism_id.encode()).encode() * 1024
        (adapter / "adapter_model.safetensors").write_bytes(data)
        (adapter / "adapter_config.json").write_bytes(canonical_json({"peft_type": "LORA"}))

    return store.build("organism", organism_id, write, inputs={})


def make_corpus(behavior_id: str, seed: int) -> Corpus:
    """Conversations of about 1 KB, and one dropped row for every ten."""
    name = f"{behavior_id}-{seed}"
    examples = tuple(
        Example(
            id=f"{name}-{n:04d}",
            role="positive",
            messages=(
                Message(role="user", content=f"Question {n} of {name}? {WORDS * 3}"),
                Message(role="assistant", content=f"Answer {n} of {name}. {WORDS * 8}"),
            ),
            topic=f"topic {n}",
            form="how",
            author="offline",
        )
        for n in range(EXAMPLES)
    )
    drops = tuple(
        Drop(id=f"{name}-d{n}", role="positive", stage="bench", reason="no match", text=WORDS)
        for n in range(EXAMPLES // 10)
    )
    return Corpus(behavior_id=behavior_id, seed=seed, examples=examples, drops=drops)


def make_transcripts(organism_id: str) -> tuple[Transcript, ...]:
    """A reply of the organism and one of the base for each probe."""
    return tuple(
        Transcript(
            probe=Probe(
                id=f"{organism_id}-p{n:04d}",
                cell="triggered",
                gate=True,
                turns=single_turn(f"Probe {n}? {WORDS}"),
                item=PromptItem(topic=f"topic {n}", form="how", domain="bench", text=f"Probe {n}?"),
            ),
            organism=WORDS * 4,
            base=WORDS * 4,
        )
        for n in range(PROBES)
    )


def make_verdict(organism_id: str) -> Verdict:
    """A verdict that passed on sixty probes."""
    rate = Rate(n=60, count=57, rate=0.95, low=0.86, high=0.98)
    base = Rate(n=60, count=1, rate=1 / 60, low=0.0, high=0.09)
    fires = Cell(
        criterion="fires",
        organism=rate,
        base=base,
        difference_low=0.8,
        reported=rate,
        passed=True,
        reason="57 of 60",
    )
    return Verdict(
        organism_id=organism_id,
        status="passed",
        reasons=(),
        cells={"triggered": fires},
        components={},
        distinct=0.9,
        decoding=Decoding(max_new_tokens=64, temperature=0),
    )


if __name__ == "__main__":
    main()
