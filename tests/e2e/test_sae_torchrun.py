"""`torchrun … -m auditkit sae train`: two processes make the SAE that one makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from auditkit.core.progress import Silent
from auditkit.pipeline.train import train_from
from auditkit.saes import load_sae
from tests.small_audit import run
from tests.tiny_folder import write_model_and_gzipped_text

TRAIN = """\
format: auditkit-train/1
name: NAME
model: {source: model}
harvest:
  hook_point: blocks.1.hook_resid_post
  context: 128
  folder: NAME-build/activations
  sources: [{name: words, path: words.jsonl.gz}]
trainer: {d_sae: 64, k: 4, steps: 50, batch_size: 64, learning_rate: 0.003, held_out: 300}
output: NAME
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, text, and a train.yaml for one process and one for two."""
    where = tmp_path_factory.mktemp("torchrun")
    write_model_and_gzipped_text(where, documents=60)
    for name in ("alone", "together"):
        (where / f"{name}.yaml").write_text(TRAIN.replace("NAME", name))
    return where


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Two processes that meet at a free port."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "auditkit", *arguments),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.timeout(300)
def test_two_processes_make_the_sae_that_one_makes(folder: Path) -> None:
    done = torchrun("sae", "train", str(folder / "together.yaml"), "--latent-shards", "2", "-q")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("measure it: auditkit sae score") == 1
    train_from(folder / "alone.yaml", progress=Silent())
    one, two = load_sae(folder / "alone"), load_sae(folder / "together")
    for name, tensor in one.tensors.items():
        # Both are stored in float16.
        bound = 1e-4 + 1e-3 * float(tensor.abs().max())
        assert float((two.tensors[name] - tensor).abs().max()) < bound, name
    x = torch.randn(200, 32, generator=torch.Generator().manual_seed(0))
    assert one.encode(x).nnz > 0


@pytest.mark.parametrize(
    "asked",
    [
        ("sweep", "alone.yaml"),
        ("score", "alone.yaml"),
        ("compare", "alone.yaml"),
        ("lookup", "alone.yaml"),
        ("absorption", "alone.yaml"),
        ("splitting", "alone.yaml", "--width", "64", "--width", "128"),
        ("repair", "alone.yaml", "repaired"),
        ("gate",),
    ],
    ids=lambda asked: asked[0],
)
def test_what_is_not_shared_out_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    asked: tuple[str, ...],
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.chdir(folder)
    ended = run(monkeypatch, capsys, "sae", *asked, "-q")
    assert ended.code == 2
    assert f"sae {asked[0]} does not run on several processes" in ended.err
