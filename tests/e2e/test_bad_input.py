"""Bad input ends with a clear error and exit code 2 or 5, and nothing recorded is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
import torch
from safetensors.torch import load_file, save_file

from auditkit.saes import write_sae
from auditkit.store import open_store
from tests.small_audit import Ended, run, write_audit
from tests.tiny import tiny_model
from tests.tiny_sae import tiny_sae

Run = Callable[..., Ended]


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    return write_audit(tmp_path)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return lambda *arguments: run(monkeypatch, capsys, *arguments)


def rows(store: Path) -> int:
    with open_store(store, read_only=True) as opened:
        return opened.query("SELECT count(*) AS n FROM activations").to_pylist()[0]["n"]


def test_missing_weights(audit: Path, command: Run) -> None:
    (audit.parent / "model" / "model.safetensors").unlink()
    ended = command("audit", audit)
    assert ended.code == 2
    assert "model" in ended.err
    assert "= help:" in ended.err


def test_a_truncated_model(audit: Path, command: Run) -> None:
    weights = audit.parent / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5000])
    ended = command("audit", audit)
    assert ended.code == 2
    assert "a safetensors file of" in ended.err


def test_a_truncated_sae(audit: Path, command: Run) -> None:
    weights = audit.parent / "sae" / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    ended = command("audit", audit)
    assert ended.code == 2
    assert "sae_weights.safetensors" in ended.err


def test_an_sae_of_the_wrong_width(audit: Path, command: Run) -> None:
    write_sae(tiny_sae(d_in=16), audit.parent / "sae", dtype="float32")
    ended = command("audit", audit)
    assert ended.code == 2
    assert "16" in ended.err
    assert "32" in ended.err


def test_nan_in_activations_loses_nothing(audit: Path, command: Run) -> None:
    assert command("audit", audit, "--fail-on", "never").code == 0
    before = rows(audit.parent / "store.duckdb")
    file = audit.parent / "model" / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.0.mlp.down_proj.weight"][:] = torch.nan
    save_file(weights, file, metadata={"format": "pt"})
    ended = command("audit", audit)
    assert ended.code in (2, 5)
    assert "NaN" in ended.err
    assert rows(audit.parent / "store.duckdb") == before


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (("    rev: 1", "\trev: 1"), "rules.yaml:4:1: AK002"),
        (("    rev: 1", "    rev: 1\n    rev: 2"), "rules.yaml:5:5: AK003"),
        (("    rev: 1", "    rev: 1\n    revv: 2"), "rules.yaml:5:5: AK010"),
        (("    rev: 1", "    rev: one"), "rules.yaml:4:10: AK012"),
    ],
)
def test_a_broken_rule_file(audit: Path, command: Run, change: tuple[str, str], where: str) -> None:
    file = audit.parent / "rules.yaml"
    file.write_text(file.read_text().replace(*change))
    ended = command("audit", audit)
    assert ended.code == 2
    assert where in ended.err
    assert "^" in ended.err
    assert not (audit.parent / "store.duckdb").exists()


def test_an_empty_suite(audit: Path, command: Run) -> None:
    text = (audit.parent / "asked.yaml").read_text()
    (audit.parent / "asked.yaml").write_text(text.split("prompts:")[0] + "prompts: []\n")
    ended = command("audit", audit)
    assert ended.code == 2
    assert "asked.yaml" in ended.err


def test_a_store_from_a_newer_version_stays_untouched(audit: Path, command: Run) -> None:
    assert command("audit", audit, "--fail-on", "never").code == 0
    store = audit.parent / "store.duckdb"
    with duckdb.connect(str(store)) as connection:
        connection.execute("UPDATE meta SET value = '999' WHERE key = 'schema_version'")
    before = store.read_bytes()
    ended = command("audit", audit)
    assert ended.code == 2
    assert "newer" in ended.err
    assert store.read_bytes() == before


def test_a_folder_that_cannot_be_written(audit: Path, command: Run) -> None:
    (audit.parent / "taken").write_text("a file where the folder should be")
    audit.write_text(audit.read_text().replace("output: out", "output: taken/out"))
    ended = command("audit", audit)
    assert ended.code == 5
    assert "taken" in ended.err


def test_a_store_that_is_no_file(audit: Path, command: Run) -> None:
    (audit.parent / "store.duckdb").mkdir()
    ended = command("audit", audit)
    assert ended.code == 5
    assert "store.duckdb" in ended.err


def test_an_unknown_severity(audit: Path, command: Run) -> None:
    ended = command("audit", audit, "--fail-on", "grave")
    assert ended.code == 2
    assert "one of info" in ended.err


def test_a_missing_audit_file(command: Run) -> None:
    ended = command("audit", "nowhere.yaml")
    assert ended.code == 2
    assert "nowhere.yaml: no such file" in ended.err


def test_an_audit_leaves_every_file_and_is_the_same_twice(audit: Path, command: Run) -> None:
    first = command("audit", audit)
    folder = audit.parent / "out"
    names = {"report.html", "report.md", "report.json", "findings.sarif", "rules.lock.json"}
    assert {p.name for p in folder.iterdir()} == names
    texts = {name: (folder / name).read_bytes() for name in names}
    before = rows(audit.parent / "store.duckdb")
    second = command("audit", audit, "--json")
    assert first.code == second.code == 1
    assert {name: (folder / name).read_bytes() for name in names} == texts
    assert json.loads(second.out)["format"] == "auditkit-report/2"
    assert rows(audit.parent / "store.duckdb") == before


def test_monitor_writes_a_line_for_every_prompt(audit: Path, command: Run) -> None:
    assert command("audit", audit, "--fail-on", "never").code == 0
    folder = audit.parent
    (folder / "in.txt").write_text("the cat made\n\nplease write some code\n")
    ended = command(
        "monitor", folder / "in.txt", "--model", folder / "model", "--sae", folder / "sae",
        "--lock", folder / "out" / "rules.lock.json", "--max-new-tokens", "4", "--fail-on", "never",
    )  # fmt: skip
    assert ended.code == 0
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert [line["prompt"] for line in lines] == ["line-00001", "line-00002"]
    assert {v["verdict"] for line in lines for v in line["verdicts"]} <= {"true", "false"}


def test_the_tiny_model_is_the_one_on_disk(audit: Path, command: Run) -> None:
    ended = command(
        "record", audit.parent / "asked.yaml", "--model", audit.parent / "model",
        "--sae", audit.parent / "sae", "--store", audit.parent / "other.duckdb", "--json",
    )  # fmt: skip
    assert ended.code == 0
    assert json.loads(ended.out)[0]["prompts"] == 3
    with open_store(audit.parent / "other.duckdb", read_only=True) as opened:
        recorded = opened.recordings()[0].model
    assert recorded.weights_sha256 == tiny_model().identity.weights_sha256
