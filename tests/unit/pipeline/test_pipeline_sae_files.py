"""Import, export and inspect: what comes in is checked, read back, and described."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from auditkit.cli.sae_view import inspect_view
from auditkit.core.errors import InvalidInput, NotSupportedYet, RunFailed, WeightsError
from auditkit.pipeline import sae_files
from auditkit.pipeline.inspect_sae import inspect_sae
from auditkit.pipeline.sae_files import export_sae, import_sae
from auditkit.saes import ExportFormat, SparseAutoencoder, load_sae, write_sae
from tests.unit.saes.random_saes import D_IN, D_SAE, activations, random_sae

torch.set_num_threads(1)


def bring(source: Path | str, out: Path, **changes: str | None) -> sae_files.Converted:
    wishes: dict[str, str | None] = {"hook_point": None, "name": None, "dtype": "float32"}
    return import_sae(str(source), out, **(wishes | changes))  # pyright: ignore[reportArgumentType]


@pytest.fixture
def gemma(tmp_path: Path) -> Path:
    """A Gemma Scope file without the path that says where it belongs."""
    g = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D_IN, D_SAE), "W_dec": (D_SAE, D_IN), "b_enc": (D_SAE,), "b_dec": (D_IN,)}
    arrays = {n: torch.randn(s, generator=g).numpy() for n, s in shapes.items()}
    np.savez(tmp_path / "lone.npz", threshold=np.full(D_SAE, 0.1, np.float32), **arrays)
    return tmp_path / "lone.npz"


def test_an_import_is_a_saelens_folder_with_the_same_latents(gemma: Path, tmp_path: Path) -> None:
    made = bring(gemma, tmp_path / "in", hook_point="blocks.3.hook_resid_post", name="mine")
    sae = load_sae(tmp_path / "in")
    assert (sae.config.name, sae.hook_point.name) == ("mine", "blocks.3.hook_resid_post")
    assert sae.identity.digest == made.digest
    assert made.difference.value == 0
    assert made.difference.n == 256
    assert "latents differ by at most 0.0e+00" in made.text()
    assert json.loads(made.json())["hook_point"] == "blocks.3.hook_resid_post"
    assert sae.config.metadata["auditkit"]["source"] == {"format": "Gemma Scope"}


def test_an_import_in_half_precision_says_what_it_cost(gemma: Path, tmp_path: Path) -> None:
    made = bring(gemma, tmp_path / "in", hook_point="blocks.3.hook_resid_post", dtype="float16")
    assert 0 < made.difference.value < 0.01


def test_a_hook_point_that_the_source_overrules_is_said(tmp_path: Path) -> None:
    write_sae(random_sae("topk"), tmp_path / "sae", log_sparsity=torch.zeros(D_SAE))
    made = bring(tmp_path / "sae", tmp_path / "in", hook_point="blocks.9.hook_mlp_out")
    assert "the source names its own hook point, blocks.1.hook_resid_post" in made.notes[0]
    assert (tmp_path / "in" / "sparsity.safetensors").exists()


def test_imports_that_cannot_be_done_leave_nothing(gemma: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nothing says where"):
        bring(gemma, tmp_path / "in")
    with pytest.raises(InvalidInput, match="unknown hook point"):
        bring(gemma, tmp_path / "in", hook_point="layer 3")
    with pytest.raises(WeightsError, match="no such SAE folder"):
        bring(tmp_path / "nowhere", tmp_path / "in")
    assert not (tmp_path / "in").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="there is something already"):
        bring(gemma, tmp_path / "taken", hook_point="blocks.3.hook_resid_post")


@pytest.mark.parametrize("export_format", list(ExportFormat))
def test_an_export_is_read_back(tmp_path: Path, export_format: ExportFormat) -> None:
    write_sae(random_sae("topk", apply_b_dec_to_input=False), tmp_path / "sae", dtype="float32")
    made = export_sae(str(tmp_path / "sae"), tmp_path / "out", export_format=export_format)
    assert made.difference.value < 1e-6
    assert made.folder.is_relative_to(tmp_path / "out")
    x = activations(100)
    ours, theirs = load_sae(tmp_path / "sae"), load_sae(made.folder)
    torch.testing.assert_close(
        theirs.encode(x).to_dense(), ours.encode(x).to_dense(), atol=1e-6, rtol=1e-6
    )


def test_an_export_that_reads_back_differently_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sae(random_sae("topk"), tmp_path / "sae", dtype="float32")

    def wrong(sae: SparseAutoencoder, out: Path, export_format: ExportFormat) -> tuple[Path, tuple]:
        write_sae(random_sae("topk", seed=5), out, dtype="float32")
        return out, ()

    monkeypatch.setattr(sae_files, "write_export", wrong)
    with pytest.raises(RunFailed, match="read back, latents differ by"):
        export_sae(str(tmp_path / "sae"), tmp_path / "out", export_format=ExportFormat.SAELENS)


def test_what_a_format_cannot_say_is_refused(tmp_path: Path) -> None:
    write_sae(random_sae("gated"), tmp_path / "sae")
    with pytest.raises(NotSupportedYet, match="sparsify has topk SAEs alone, and this is gated"):
        export_sae(str(tmp_path / "sae"), tmp_path / "out", export_format=ExportFormat.SPARSIFY)


def shown(source: Path) -> str:
    out = io.StringIO()
    Console(file=out, width=120, color_system=None).print(inspect_view(inspect_sae(str(source))))
    return out.getvalue()


def test_inspect_shows_what_an_sae_is(tmp_path: Path) -> None:
    sae = random_sae("jumprelu", model_name="org/tiny")
    sae.W_dec[2] = 0
    stored = write_sae(sae, tmp_path / "sae", dtype="float32")
    found = inspect_sae(str(tmp_path / "sae"))
    assert found.digest == stored.identity.digest
    assert found.parameters == 2 * D_IN * D_SAE + 2 * D_SAE + D_IN
    assert found.silent_rows == 1
    assert set(found.weights) == {
        "norm of decoder rows", "norm of encoder columns", "b_enc", "threshold"
    }  # fmt: skip
    text = shown(tmp_path / "sae")
    for said in (
        "jumprelu: 24 latents, d_in 8",
        "org/tiny",
        found.digest,
        "1 decoder rows are zero",
    ):
        assert said in text
    document = json.loads(found.json())
    assert document["identity"]["digest"] == found.digest
    assert document["measures"][0]["reason"].startswith("the SAE has no card")


def test_inspect_says_what_is_wrong_with_damaged_weights(tmp_path: Path) -> None:
    folder = tmp_path / "sae"
    write_sae(random_sae("topk"), folder, dtype="float32")
    weights = folder / "sae_weights.safetensors"
    whole, tensors = weights.read_bytes(), load_file(weights)
    weights.write_bytes(whole[:100])
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        inspect_sae(str(folder))
    save_file(tensors | {"b_enc": torch.full((D_SAE,), torch.nan)}, weights)
    with pytest.raises(WeightsError, match="24 of 24 entries of b_enc are NaN or infinite"):
        inspect_sae(str(folder))
    save_file(tensors | {"b_enc": torch.zeros(3)}, weights)
    with pytest.raises(WeightsError, match=r"b_enc has shape \[3\], expected \[24\]"):
        inspect_sae(str(folder))


def test_what_a_file_says_is_never_markup(tmp_path: Path) -> None:
    write_sae(random_sae("topk", name="[red]x\x1b[2J", model_name="[b]m"), tmp_path / "sae")
    text = shown(tmp_path / "sae")
    assert "[red]x" in text
    assert "\x1b" not in text
