"""Machines as they are: few file handles, no home, another locale, a folder that is a link.

Run: python -m pytest tests/cli/test_machines.py
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.conftest import Site
from tests.forkserver import COMMAND, environment
from tests.tiny import ALONE, hash_tree


def build(site: Site, out: Path, *, handles: int) -> subprocess.CompletedProcess[str]:
    """Build with few file handles, without a home, where text is ASCII."""
    seen = {**environment(site.data), "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    seen.pop("HOME", None)
    command = [*COMMAND, "build", str(site.roster), *ALONE, "--out", str(out)]
    return subprocess.run(
        ["sh", "-c", f'ulimit -n {handles}; exec "$@"', "sh", *command],
        env=seen,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.soak
def test_a_modest_machine_builds_the_same(site: Site, tmp_path: Path) -> None:
    real, linked = tmp_path / "real", tmp_path / "linked"
    real.mkdir()
    linked.symlink_to(real)
    done = build(site, linked / "runs", handles=20)  # the release needs more
    assert done.returncode == 1
    assert done.stderr.startswith("error[system]: "), done.stderr
    assert "`ulimit -n`" in done.stderr
    assert "Traceback" not in done.stderr
    done = build(site, linked / "runs", handles=64)
    assert done.returncode == 0, done.stderr
    assert hash_tree(real / "runs") == hash_tree(site.out)
