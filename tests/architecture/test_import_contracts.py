"""The layout is the architecture: the import contracts hold, and a planted breach is caught."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BREACHES = {
    "core/measured.py": "import auditkit.store",
    "findings/__init__.py": "import auditkit.confirm",
    "rules/__init__.py": "import torch",
    "report/__init__.py": "import auditkit.store",
    "saes/__init__.py": "import transformers",
    "recording/__init__.py": "import duckdb",
    "monitor/__init__.py": "import fastapi",
    "serve/settings.py": "import auditkit.pipeline.workbench",
    "serve/policy.py": "import transformers",
    "integrations/inspect/samples.py": "import auditkit.pipeline.workbench",
    "integrations/vllm/runner.py": "import auditkit.integrations.inspect.hooks",
    "monitor/alerts.py": "import inspect_ai",
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(
        [*command, "--config", str(folder / "pyproject.toml")],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "auditkit", tmp_path / "auditkit")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_are_kept(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.parametrize("file", BREACHES)
def test_a_planted_breach_is_caught(copy: Path, file: str) -> None:
    target = copy / "auditkit" / file
    target.write_text(target.read_text() + f"\n{BREACHES[file]}  # planted\n")
    result = lint(copy)
    assert result.returncode != 0, result.stdout
    assert "BROKEN" in result.stdout
