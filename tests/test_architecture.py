"""The import rule, what importing costs, and constructs that may not stand in the source.

Run: python -m pytest tests/test_architecture.py
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from bestiary.config.categories import SHIPPED, NullSpec

SOURCE = Path(__file__).resolve().parents[1] / "src" / "bestiary"

LAYERS = (
    *("errors", "records", "text", "files", "progress", "store"),
    *("llm", "config", "model", "training", "author", "dataset", "stage"),
)
"""From the lowest up: each imports only layers below it."""
STAGES = ("corpus", "leakage", "organism", "verification", "release", "introspection")
LINE = (
    *("executor", "sample", "estimate", "validate"),
    *("state", "stage_items", "pipeline", "foreign", "pilot"),
)
"""Above the stages, which know none of them."""
TOPS = ("__main__", "cli", "report", "bestiary")
HEAVY = (
    *("torch", "transformers", "datasets", "peft", "huggingface_hub", "safetensors", "pyarrow"),
    *("ray", "anthropic", "openai", "httpx2", "aiohttp"),
)

COMPUTING = {
    "bestiary.introspection.answering",
    "bestiary.introspection.memory",
    "bestiary.introspection.train",
    "bestiary.introspection.weights",
    "bestiary.model.attention",
    "bestiary.model.cache",
    "bestiary.model.free_memory",
    "bestiary.model.lora_bank",
    "bestiary.model.norms",
    "bestiary.model.packing",
    "bestiary.model.repeated",
    "bestiary.model.routing",
    "bestiary.training.engine",
    "bestiary.training.first_weights",
    "bestiary.training.forecast",
    "bestiary.training.inputs",
    "bestiary.training.learner",
    "bestiary.training.passes",
    "bestiary.training.memory",
    "bestiary.training.optimizer",
    "bestiary.training.repeated_passes",
    "bestiary.training.slot",
}
"""Modules of tensors alone, which others import where they begin to compute."""
ASKING = {"bestiary.llm.anthropic", "bestiary.llm.openai", "bestiary.llm.sdk"}
"""Modules of one provider's SDK each, which others import where they begin to ask."""

YAML_CALLS = {
    "bestiary.config.source": {"yaml.CBaseLoader"},
    "bestiary.release.cards": {"yaml.safe_dump"},
    "bestiary.release.push": set(),  # it catches what the Hub's client raises
}
"""What each module that imports `yaml` may call of it: nothing that constructs objects."""


def list_modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    modules = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ["bestiary", *path.relative_to(SOURCE).with_suffix("").parts]
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


MODULES = list_modules()


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf8"))


@cache
def imports_of(module: str) -> frozenset[str]:
    """The project's modules that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import hides what it names"
            source = node.module or ""
            named = {f"{source}.{name.name}" for name in node.names}
            found |= {name if name in MODULES else source for name in named}
    return frozenset(name for name in found if name in MODULES)


def part_of(module: str) -> str:
    """The layer, stage or top that a module belongs to."""
    return module.split(".")[1] if "." in module else module


def parts_imported(module: str) -> set[str]:
    return {part_of(name) for name in imports_of(module)} - {part_of(module)}


def modules_of(*parts: str) -> list[str]:
    return [module for module in MODULES if part_of(module) in parts]


def test_every_part_has_its_place() -> None:
    assert {part_of(module) for module in MODULES} == {*LAYERS, *STAGES, *LINE, *TOPS}


def test_a_layer_imports_only_lower_layers() -> None:
    for module in modules_of(*LAYERS):
        assert parts_imported(module) <= set(LAYERS[: LAYERS.index(part_of(module))]), module


def test_the_language_model_client_knows_nothing_of_behaviors() -> None:
    for module in modules_of("llm"):
        assert parts_imported(module) <= {"errors", "records", "text", "progress"}, module


def test_a_stage_imports_layers_and_never_another_stage() -> None:
    for module in modules_of(*STAGES):
        assert parts_imported(module) <= set(LAYERS), module


def test_only_the_pipeline_and_samples_import_several_stages() -> None:
    several = [name for name in MODULES if len(parts_imported(name) & set(STAGES)) > 1]
    assert several == ["bestiary.pipeline", "bestiary.sample", "bestiary.stage_items"]


def test_an_executor_knows_no_stage() -> None:
    for module in modules_of("executor"):
        assert not parts_imported(module) & {*STAGES, *LINE}, module


OPENING = {"open_library", "load_catalog", "read_catalog", "read_recipe", "load_model"}
OPENING |= {"read_messages", "read_items", "read_options", "read_lexicon", "read_wordings"}
OPENING |= {"parse_yaml", "open_plan", "shipped_root", "DataFolders", "Templates"}
"""What opens settings files."""


def test_only_configuration_opens_settings_files() -> None:
    for module in modules_of(*{*LAYERS, *STAGES, *LINE, "report"} - {"config", "validate"}):
        called = {name.rpartition(".")[2] for name in calls_of(module)}
        assert called.isdisjoint(OPENING), module


def test_nothing_below_imports_the_top() -> None:
    for module in modules_of(*LAYERS, *STAGES, *LINE):
        assert not parts_imported(module) & set(TOPS), module


def test_no_modules_import_each_other_in_a_circle() -> None:
    order = list(TopologicalSorter({name: imports_of(name) for name in MODULES}).static_order())
    assert order.index("bestiary.records") < order.index("bestiary.pipeline")


SPECS: tuple[type, ...] = (*SHIPPED.values(), NullSpec)
CATEGORY_CLASSES = {kind.__name__ for kind in SPECS}


def test_no_category_is_told_apart_outside_its_class() -> None:
    for module in sorted(set(MODULES) - {"bestiary.config.categories"}):
        text = MODULES[module].read_text(encoding="utf8")
        assert "is_null" not in text, module
        for call in ast.walk(tree_of(module)):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "isinstance":
                named = re.findall(r"\w+", ast.unparse(call.args[1]))
                assert CATEGORY_CLASSES.isdisjoint(named), module


def test_a_module_opens_by_saying_what_it_owns() -> None:
    for module in MODULES:
        text = ast.get_docstring(tree_of(module)) or ""
        assert re.match(r"[A-Z`].{10,}", text), f"{module} has no docstring"


def names_imported(nodes: Iterable[ast.AST]) -> set[str]:
    """The modules that some statements import."""
    names = set[str]()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@cache
def calls_of(module: str) -> set[str]:
    return {
        ast.unparse(node.func) for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)
    }


def test_no_module_runs_what_it_reads() -> None:
    for module in MODULES:
        text = MODULES[module].read_text(encoding="utf8")
        assert "trust_remote_code=True" not in text, module
        for call in re.findall(r"\bAuto\w+\.from_pretrained\((.*?)\)", text, flags=re.DOTALL):
            assert "NO_CODE" in call or "gguf" in call, f"{module}: {call} may ask to run code"
        packages = {name.split(".")[0] for name in names_imported(ast.walk(tree_of(module)))}
        assert packages.isdisjoint({"pickle", "marshal", "shelve", "dill", "joblib"}), module
        forbidden = {"torch.load", "eval", "exec", "os.system", "__import__"}
        assert calls_of(module).isdisjoint(forbidden), module
        yaml_calls = {call for call in calls_of(module) if call.startswith("yaml.")}
        assert ("yaml" in packages) == (module in YAML_CALLS), module
        assert yaml_calls <= YAML_CALLS.get(module, set()), module


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    for module in sorted(set(MODULES) - COMPUTING - ASKING):
        names = names_imported(tree_of(module).body)
        assert {name.split(".")[0] for name in names}.isdisjoint(HEAVY), module
        assert names.isdisjoint(COMPUTING), f"{module} would load torch as it is imported"
        assert names.isdisjoint(ASKING), f"{module} would load an SDK as it is imported"


def modules_loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded when the statement ends it."""
    program = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        f"{statement}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SOURCE.parent), "PATH": ""},
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import bestiary",
        "import bestiary.pipeline",
        "import bestiary.cli.app",
        "sys.argv = ['bestiary', '--help']; from bestiary.cli.app import main; main()",
        "sys.argv = ['bestiary', 'validate']; from bestiary.cli.app import main; main()",
    ],
)
def test_starting_loads_no_heavy_library(statement: str) -> None:
    loaded = modules_loaded_by(statement)
    assert "bestiary" in loaded
    assert loaded.isdisjoint({*HEAVY, "polars"})


def test_help_loads_the_command_line_only() -> None:
    loaded = modules_loaded_by(
        "sys.argv = ['bestiary', '--help']; from bestiary.cli.app import main; main()"
    )
    ours = {name for name in loaded if name.split(".")[0] == "bestiary"}
    modules = ("app", "authoring", "introspect", "options", "output")
    parts = ("", ".cli", *(f".cli.{name}" for name in modules), ".errors", ".files", ".text")
    assert ours == {f"bestiary{part}" for part in parts}
    assert loaded.isdisjoint({"rich", "pydantic", "jinja2", "yaml", "regex"})
