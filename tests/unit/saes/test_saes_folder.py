"""The SAELens folder: what is written is what is loaded, and traps are refused."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import auditkit.saes.formats.saelens_folder as folder_module
from auditkit.core.errors import (
    AuditkitError,
    DocumentError,
    InvalidInput,
    MismatchError,
    NotSupportedYet,
    RunFailed,
    WeightsError,
)
from auditkit.core.hook_point import HookPoint
from auditkit.core.identity import ModelIdentity
from auditkit.saes import (
    Normalisation,
    SparseAutoencoder,
    check_fits,
    fold_activation_scale,
    load_sae,
    read_log_sparsity,
    write_sae,
)
from tests.unit.saes.random_saes import D_IN, D_SAE, activations, random_sae

torch.set_num_threads(1)
WEIGHTS = "sae_weights.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good topk SAE on disk."""
    sae = random_sae("topk", model_name="org/tiny", metadata={"prepend_bos": True})
    write_sae(sae, tmp_path / "sae", dtype="float32")
    return tmp_path / "sae"


def edit_cfg(folder: Path, drop: str | None = None, **changes: Any) -> None:
    path = folder / "cfg.json"
    values = json.loads(path.read_text()) | changes
    values.pop(drop, None)
    path.write_text(json.dumps(values))


def edit_metadata(folder: Path, drop: str | None = None, **changes: Any) -> None:
    metadata = json.loads((folder / "cfg.json").read_text())["metadata"] | changes
    metadata.pop(drop, None)
    edit_cfg(folder, metadata=metadata)


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = {k: v for k, v in (load_file(folder / WEIGHTS) | changes).items() if v is not None}
    save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize("architecture", ["standard", "gated", "topk", "jumprelu"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_written_is_what_is_loaded(architecture: str, dtype: str, tmp_path: Path) -> None:
    metadata = {"prepend_bos": False, "context_size": 128, "auditkit": {"tokens": 2_000_000}}
    sae = random_sae(
        architecture,
        model_name="org/model",
        metadata=metadata,
        normalize_activations=Normalisation.LAYER_NORM,
        apply_b_dec_to_input=False,
    )
    stored = write_sae(sae, tmp_path / "out", dtype=dtype)
    loaded = load_sae(tmp_path / "out")
    assert loaded.identity == stored.identity
    assert loaded.config == stored.config == sae.config
    assert (loaded.identity == sae.identity) == (dtype == "float32")
    x = activations()
    assert loaded.encode(x).to_dense().equal(stored.encode(x).to_dense())


def test_the_folder_says_what_saelens_and_saebench_look_for(folder: Path) -> None:
    values = json.loads((folder / "cfg.json").read_text())
    assert values["metadata"] | {"auditkit": None} == {
        "sae_lens_training_version": None,
        "prepend_bos": True,
        "sae_lens_version": "6.54.12",
        "model_name": "org/tiny",
        "hook_name": "blocks.1.hook_resid_post",
        "hook_layer": 1,
        "auditkit": None,
    }
    assert values["metadata"]["auditkit"] == {"name": "test", "stored_dtype": "float32"}
    assert values["k"] == 4
    assert values["rescale_acts_by_decoder_norm"] is False
    assert sorted(p.name for p in folder.iterdir()) == ["cfg.json", WEIGHTS]


def test_a_folder_without_a_stated_name_gives_its_own(folder: Path) -> None:
    edit_metadata(folder, drop="auditkit")
    assert load_sae(folder).config.name == "sae"


def test_metadata_beyond_plain_ascii_survives(tmp_path: Path) -> None:
    metadata = {"auditkit": {"card": "σ ≤ 0.5 🙂 \u202e tab\t"}}
    write_sae(random_sae("standard", metadata=metadata), tmp_path / "s")
    assert load_sae(tmp_path / "s").config.metadata == metadata


def test_metadata_that_is_no_json_is_refused(tmp_path: Path) -> None:
    for value in (float("nan"), Path(".")):
        with pytest.raises(InvalidInput, match="metadata is no JSON"):
            write_sae(random_sae("standard", metadata={"loss": value}), tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_too_large_for_float16_is_refused(tmp_path: Path) -> None:
    sae = random_sae("standard")
    sae.b_dec[0] = 1e5
    with pytest.raises(WeightsError, match=r"b_dec holds 100000, more than float16"):
        write_sae(sae, tmp_path / "s")
    assert write_sae(sae, tmp_path / "s", dtype="bfloat16").b_dec[0] > 9e4


def test_an_unknown_storage_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="stored as 'int8'"):
        write_sae(random_sae("standard"), tmp_path / "s", dtype="int8")


def test_sparsity_is_kept_beside_the_weights(tmp_path: Path) -> None:
    rates = torch.linspace(-5, 0, D_SAE)
    write_sae(random_sae("standard"), tmp_path / "s", log_sparsity=rates)
    kept = read_log_sparsity(tmp_path / "s")
    assert kept is not None
    assert kept.equal(rates)
    write_sae(random_sae("standard"), tmp_path / "s")
    assert read_log_sparsity(tmp_path / "s") is None


def test_rewriting_replaces_the_sae_and_keeps_its_card(folder: Path) -> None:
    (folder / "card.md").write_text("a card")
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 2.0}')
    stored = write_sae(random_sae("jumprelu"), folder)
    assert load_sae(folder).identity == stored.identity
    assert sorted(p.name for p in folder.iterdir()) == ["card.md", "cfg.json", WEIGHTS]
    assert [p.name for p in folder.parent.iterdir()] == ["sae"]


def test_a_folder_with_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="something else than an SAE"):
        write_sae(random_sae("standard"), tmp_path / "notes")
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "mine"


def test_a_failing_write_leaves_the_old_sae_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_sae(folder).identity

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "save_file", full_disk)
    with pytest.raises(RunFailed, match="cannot be written: No space left"):
        write_sae(random_sae("standard"), folder)
    assert load_sae(folder).identity == before
    assert [p.name for p in folder.parent.iterdir()] == ["sae"]


def test_a_failing_swap_puts_the_old_sae_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = load_sae(folder).identity, Path.rename

    def refuse_new(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(RunFailed, match="Permission denied"):
        write_sae(random_sae("standard"), folder)
    assert load_sae(folder).identity == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_read_only_directory_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(RunFailed, match="cannot be written: Permission denied"):
        write_sae(random_sae("standard"), tmp_path / "s")


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match="cannot be written"):
        write_sae(random_sae("standard"), tmp_path / "file" / "s")


CFG_FAULTS: list[tuple[dict[str, Any], type[AuditkitError], str]] = [
    ({"drop": "k"}, InvalidInput, "topk SAE without k"),
    ({"k": D_SAE + 1}, InvalidInput, "k 25 must be between 1 and d_sae 24"),
    ({"k": 4.0}, DocumentError, "AK01"),
    ({"d_ni": 8}, DocumentError, r"unknown key 'd_ni'[\s\S]*did you mean 'd_in'"),
    ({"normalise_activations": "none"}, DocumentError, "unknown key 'normalise_activations'"),
    ({"drop": "d_sae"}, DocumentError, "'d_sae' is missing"),
    ({"drop": "dtype"}, DocumentError, "'dtype' is missing"),
    ({"d_in": "8"}, DocumentError, "d_in"),
    ({"apply_b_dec_to_input": 1}, DocumentError, "apply_b_dec_to_input"),
    ({"normalize_activations": "layernorm"}, DocumentError, "normalize_activations"),
    ({"architecture": "vanilla"}, DocumentError, "architecture"),
    ({"architecture": "jumprelu"}, WeightsError, "lacks threshold"),
    ({"architecture": "gated"}, WeightsError, "lacks b_gate, b_mag, r_mag and has unexpected b"),
    ({"d_in": 7}, WeightsError, r"W_enc has shape \[8, 24\], expected \[7, 24\]"),
    ({"d_sae": 48}, WeightsError, r"expected \[8, 48\]"),
    ({"architecture": "transcoder", "d_out": 8}, NotSupportedYet, "'transcoder' is not supported"),
    ({"architecture": "jumprelu_skip_transcoder"}, NotSupportedYet, "not supported yet"),
    ({"architecture": "matching_pursuit"}, NotSupportedYet, "not supported yet"),
    ({"architecture": "temporal"}, NotSupportedYet, "not supported yet"),
    ({"architecture": "batchtopk"}, NotSupportedYet, "training checkpoint of a batchtopk SAE"),
    ({"architecture": "matryoshka_batchtopk"}, NotSupportedYet, "training checkpoint"),
    ({"reshape_activations": "hook_z"}, NotSupportedYet, "attention heads"),
    ({"normalize_activations": "covariance_whitening"}, WeightsError, "whitening.safetensors is"),
    ({"drop": "metadata"}, NotSupportedYet, "before SAELens 6"),
]


@pytest.mark.parametrize(("change", "error", "message"), CFG_FAULTS)
def test_configurations_that_cannot_be_run_are_refused(
    folder: Path, change: dict[str, Any], error: type[AuditkitError], message: str
) -> None:
    edit_cfg(folder, **change)
    with pytest.raises(error, match=message) as caught:
        load_sae(folder)
    assert caught.value.exit_code == 2


METADATA_FAULTS: list[tuple[dict[str, Any], type[AuditkitError], str]] = [
    ({"sae_lens_version": "5.10.7"}, NotSupportedYet, "'5.10.7': folders from before SAELens 6"),
    ({"hook_head_index": 3}, NotSupportedYet, "attention heads"),
    ({"drop": "hook_name"}, InvalidInput, "hook_name is missing"),
    ({"hook_name": "blocks.3.attn.hook_z"}, NotSupportedYet, "'blocks.3.attn.hook_z' is not supp"),
]


@pytest.mark.parametrize(("change", "error", "message"), METADATA_FAULTS)
def test_metadata_that_cannot_be_used_is_refused(
    folder: Path, change: dict[str, Any], error: type[AuditkitError], message: str
) -> None:
    edit_metadata(folder, **change)
    with pytest.raises(error, match=message) as caught:
        load_sae(folder)
    assert caught.value.exit_code == 2


def test_a_missing_hook_name_can_be_given(folder: Path) -> None:
    edit_metadata(folder, drop="hook_name")
    given = HookPoint.parse("blocks.7.hook_mlp_out")
    assert load_sae(folder, hook_point=given).hook_point == given


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W_enc": torch.full((D_IN, D_SAE), torch.nan)}, "192 of 192 entries of W_enc are NaN"),
        ({"b_enc": torch.tensor([torch.inf] * D_SAE)}, "24 of 24 entries of b_enc are NaN or inf"),
        ({"b_dec": None}, "lacks b_dec"),
        ({"W_dec": torch.ones(D_IN, D_SAE)}, r"W_dec has shape \[8, 24\], expected \[24, 8\]"),
        ({"threshold": torch.ones(D_SAE)}, "unexpected threshold"),
        ({"scaling_factor": torch.full((D_SAE,), 2.0)}, "unexpected scaling_factor"),
        ({"b_enc": torch.ones(D_SAE, dtype=torch.int8)}, "stored as torch.int8"),
    ],
)
def test_weights_that_saelens_would_load_silently_are_refused(
    folder: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    edit_weights(folder, **change)
    with pytest.raises(WeightsError, match=message) as caught:
        load_sae(folder)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kept", [0, 4, 60, 700])
def test_a_truncated_file_is_refused_with_help(folder: Path, kept: int) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:kept])
    with pytest.raises(WeightsError, match=rf"not a complete safetensors file \({kept} bytes"):
        load_sae(folder)


def test_one_missing_byte_is_noticed(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-1])
    with pytest.raises(WeightsError, match="copy or download it again"):
        load_sae(folder)


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(WeightsError, match=r"sae_weights\.safetensors: no such file"):
        load_sae(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"architecture": "topk", ', "not valid JSON"),
        ("[1, 2]", "expected an object"),
        ('{"k": 1, "k": 2}', "duplicate key 'k'"),
    ],
)
def test_a_cfg_that_is_no_json_object_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "cfg.json").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        load_sae(folder)


def test_an_unknown_key_is_shown_at_its_place(folder: Path) -> None:
    text = (folder / "cfg.json").read_text().replace('  "k": 4,', '  "k": 4,\n  "kk": 5,')
    (folder / "cfg.json").write_text(text)
    line = text.splitlines().index('  "kk": 5,') + 1
    with pytest.raises(DocumentError, match=rf"cfg\.json:{line}:3: AK010 unknown key 'kk'"):
        load_sae(folder)


def test_training_keys_of_a_checkpoint_change_nothing(folder: Path) -> None:
    before = load_sae(folder).identity
    edit_cfg(folder, decoder_init_norm=0.1, aux_loss_coefficient=1.0, use_sparse_activations=False)
    assert load_sae(folder).identity == before


def test_left_overs_of_older_versions_are_settled(folder: Path) -> None:
    before = load_sae(folder).identity
    edit_weights(folder, scaling_factor=torch.ones(D_SAE))
    assert load_sae(folder).identity == before


def test_log_thresholds_are_exponentiated(tmp_path: Path) -> None:
    sae = random_sae("jumprelu")
    write_sae(sae, tmp_path / "s", dtype="float32")
    edit_weights(
        tmp_path / "s", threshold=None, log_threshold=sae.tensors["threshold"].log().clone()
    )
    loaded = load_sae(tmp_path / "s")
    torch.testing.assert_close(loaded.tensors["threshold"], sae.tensors["threshold"])


def test_a_checkpoint_factor_beside_the_weights_is_folded(folder: Path) -> None:
    sae = load_sae(folder)
    edit_cfg(folder, normalize_activations="expected_average_only_in")
    unscaled = load_sae(folder)
    assert unscaled.notes
    assert "its factor is in no file" in unscaled.notes[0]
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 0.25}')
    loaded = load_sae(folder)
    assert loaded.identity == fold_activation_scale(sae, 0.25).identity
    assert loaded.notes == ()
    (folder / "activation_scaler.json").write_text('{"factor": 0.25}')
    with pytest.raises(InvalidInput, match="expected an object with the number scaling_factor"):
        load_sae(folder)


def test_a_checkpoint_whitening_beside_the_weights_is_folded(folder: Path) -> None:
    sae, x = load_sae(folder), activations()
    edit_cfg(folder, normalize_activations="covariance_whitening")
    matrix = torch.randn(D_IN, D_IN, generator=torch.Generator().manual_seed(3)).double()
    mean = x.mean(dim=0).double()
    inverse = torch.linalg.inv(matrix).contiguous()
    statistics = {"mean": mean, "matrix": matrix, "inverse_matrix": inverse}
    save_file(statistics, folder / "activation_whitening.safetensors")
    whitened = ((x.double() - mean) @ matrix).float()
    torch.testing.assert_close(
        load_sae(folder).encode(x).to_dense(),
        sae.encode(whitened).to_dense(),
        atol=1e-4,
        rtol=1e-4,
    )


def test_a_whitening_of_another_width_is_refused(folder: Path) -> None:
    edit_cfg(folder, normalize_activations="covariance_whitening")
    statistics = {"mean": torch.zeros(7), "matrix": torch.eye(7), "inverse_matrix": torch.eye(7)}
    save_file(statistics, folder / "activation_whitening.safetensors")
    with pytest.raises(WeightsError, match=r"expected mean \[8\], matrix \[8, 8\]"):
        load_sae(folder)


def test_a_pickle_that_is_nobodys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(NotSupportedYet, match="a pickled checkpoint"):
        load_sae(tmp_path / "model.pt")


def test_missing_folders_are_refused_with_what_stands_near(folder: Path) -> None:
    with pytest.raises(WeightsError, match="no such SAE folder"):
        load_sae(folder.parent / "other")
    with pytest.raises(WeightsError, match="name one of the SAEs inside: sae"):
        load_sae(folder.parent)


def test_a_release_needs_both_names() -> None:
    with pytest.raises(InvalidInput, match="expected release:RELEASE/SAE_ID"):
        load_sae("release:gpt2-small-res-jb")


def test_a_release_without_saelens_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(InvalidInput, match=r"auditkit-sae\[saelens\]"):
        load_sae("release:gpt2-small-res-jb/blocks.8.hook_resid_pre")


def test_other_compute_dtypes_are_refused(folder: Path) -> None:
    with pytest.raises(NotSupportedYet, match="not in bfloat16"):
        load_sae(folder, dtype="bfloat16")


def model(name: str = "org/tiny", d_model: int = D_IN, n_layers: int = 4) -> ModelIdentity:
    return ModelIdentity(
        name=name,
        weights_sha256="0" * 64,
        architecture="llama",
        dtype="float32",
        quantisation=None,
        chat_template_sha256=None,
        n_layers=n_layers,
        d_model=d_model,
        vocabulary=10,
    )


@pytest.mark.parametrize(
    "name", ["org/tiny", "other/Tiny", "package:weights/tiny.Q4_1.gguf", "/home/me/tiny/"]
)
def test_an_sae_of_this_model_fits_without_a_word(folder: Path, name: str) -> None:
    assert check_fits(load_sae(folder), model(name)) == ()


def test_an_sae_of_another_width_names_both(folder: Path) -> None:
    with pytest.raises(MismatchError, match=r"width 8, .*org/tiny has width 16") as caught:
        check_fits(load_sae(folder), model(d_model=16))
    assert caught.value.exit_code == 2


def test_a_layer_that_the_model_lacks_is_refused(folder: Path) -> None:
    with pytest.raises(MismatchError, match=r"blocks\.1\.hook_resid_post, .* layers 0 to 0"):
        check_fits(load_sae(folder), model(n_layers=1))


def test_doubtful_pairs_are_warned_about(folder: Path) -> None:
    sae = load_sae(folder)
    (other,) = check_fits(sae, model("org/gpt"))
    assert "was trained on org/tiny, not on org/gpt" in other
    nameless = SparseAutoencoder(replace(sae.config, model_name=None), sae.tensors, notes=("n",))
    note, warning = check_fits(nameless, model())
    assert note == "n"
    assert "does not say which model" in warning
