"""Other tools' files: what they compute is what we compute, and what we write is what they read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from auditkit.core.errors import InvalidInput, NotSupportedYet, WeightsError
from auditkit.core.hook_point import HookPoint
from auditkit.saes import (
    ExportFormat,
    Normalisation,
    SparseAutoencoder,
    export_sae,
    fold_decoder_norm,
    fold_pre_bias,
    load_sae,
)
from tests.unit.saes.random_saes import D_IN, D_SAE, K, activations, random_sae

torch.set_num_threads(1)
GEMMA = "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"
Latents = Callable[[Tensor], Tensor]


def drawn(*shapes: tuple[int, ...], seed: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) * 0.5 for shape in shapes]


def linear() -> dict[str, Tensor]:
    encoder, bias, decoder = drawn((D_SAE, D_IN), (D_SAE,), (D_IN, D_SAE))
    return {"encoder.weight": encoder, "encoder.bias": bias, "decoder.weight": decoder}


def top(pre: Tensor, k: int) -> Tensor:
    values, indices = pre.relu().topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, indices, values)


def assert_latents(sae: SparseAutoencoder, expected: Tensor, x_hat: Tensor) -> None:
    x = activations(200)
    latents = sae.encode(x)
    assert latents.nnz > 0
    torch.testing.assert_close(latents.to_dense(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae.decode(latents), x_hat, atol=1e-5, rtol=1e-5)


# Gemma Scope


def write_gemma(root: Path, name: str = "W_", **changes: np.ndarray) -> Path:
    W_enc, W_dec, b_enc, b_dec, threshold = drawn(
        (D_IN, D_SAE), (D_SAE, D_IN), (D_SAE,), (D_IN,), (D_SAE,)
    )
    arrays = {
        f"{name}enc": W_enc.numpy(),
        f"{name}dec": W_dec.numpy(),
        "b_enc": b_enc.numpy(),
        "b_dec": b_dec.numpy(),
        "threshold": threshold.abs().numpy(),
    } | changes
    folder = root / GEMMA
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **arrays)
    return folder


@pytest.mark.parametrize("name", ["W_", "w_"])
def test_gemma_scope_is_read_as_its_authors_run_it(tmp_path: Path, name: str) -> None:
    folder = write_gemma(tmp_path, name)
    W_enc, W_dec, b_enc, b_dec, threshold = drawn(
        (D_IN, D_SAE), (D_SAE, D_IN), (D_SAE,), (D_IN,), (D_SAE,)
    )
    x = activations(200)
    pre = x @ W_enc + b_enc
    acts = pre.relu() * (pre > threshold.abs())
    for source in (folder, folder / "params.npz"):
        sae = load_sae(source)
        assert_latents(sae, acts, acts @ W_dec + b_dec)
        assert sae.hook_point == HookPoint.parse("blocks.20.hook_resid_post")
        assert sae.config.name == "layer_20/width_16k/average_l0_71"
        assert sae.config.model_name == "google/gemma-2-2b"


def test_a_gemma_file_without_its_path_needs_a_hook_point(tmp_path: Path) -> None:
    write_gemma(tmp_path / "in")
    lone = tmp_path / "x.npz"
    (tmp_path / "in" / GEMMA / "params.npz").rename(lone)
    with pytest.raises(InvalidInput, match="nothing says where in the model this SAE reads"):
        load_sae(lone)
    given = HookPoint.parse("blocks.3.hook_mlp_out")
    assert load_sae(lone, hook_point=given).hook_point == given


@pytest.mark.parametrize(
    ("kind", "message"), [("att", "attention heads"), ("transcoders", "is a transcoder")]
)
def test_gemma_scope_of_other_kinds_is_refused(tmp_path: Path, kind: str, message: str) -> None:
    folder = write_gemma(tmp_path)
    moved = tmp_path / f"gemma-scope-2b-pt-{kind}" / "layer_1"
    moved.parent.mkdir()
    folder.rename(moved)
    with pytest.raises(NotSupportedYet, match=message):
        load_sae(moved)


def test_damaged_gemma_files_are_refused(tmp_path: Path) -> None:
    path = write_gemma(tmp_path) / "params.npz"
    whole = path.read_bytes()
    for kept in (0, 100, len(whole) - 20):
        path.write_bytes(whole[:kept])
        with pytest.raises(WeightsError, match=rf"not a complete .npz file \({kept} bytes"):
            load_sae(path.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": np.zeros(3, np.float32)}, "has unexpected extra"),
        ({"threshold": np.zeros(3, np.float32)}, r"threshold has shape \[3\]"),
        ({"W_enc": np.zeros(3, np.float32)}, r"W_enc has shape \[3\], expected a matrix"),
        ({"b_enc": np.full(D_SAE, np.nan, np.float32)}, "24 of 24 entries of b_enc are NaN"),
        ({"b_enc": np.zeros(D_SAE, np.int64)}, "b_enc is stored as int64"),
    ],
)
def test_gemma_weights_that_cannot_be_run_are_refused(
    tmp_path: Path, change: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        load_sae(write_gemma(tmp_path, **change))


def test_pickled_arrays_are_never_run(tmp_path: Path) -> None:
    folder = write_gemma(tmp_path, b_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(WeightsError, match=r"not a complete \.npz file"):
        load_sae(folder)


# sparsify


def write_sparsify(
    folder: Path, cfg: dict[str, Any] | None = None, **changes: Tensor
) -> dict[str, Tensor]:
    encoder, bias, decoder, b_dec = drawn((D_SAE, D_IN), (D_SAE,), (D_SAE, D_IN), (D_IN,))
    tensors = {"encoder.weight": encoder, "encoder.bias": bias, "W_dec": decoder, "b_dec": b_dec}
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "activation": "topk", "expansion_factor": 32, "normalize_decoder": True,
        "num_latents": D_SAE, "k": K, "multi_topk": False, "skip_connection": False,
        "transcode": False, "d_in": D_IN,
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(values | (cfg or {})))
    save_file(tensors | changes, folder / "sae.safetensors")
    return tensors


@pytest.mark.parametrize(
    ("module", "place"),
    [
        ("layers.10", "blocks.10.hook_resid_post"),
        ("h.3.mlp", "blocks.3.hook_mlp_out"),
        ("layers.4.self_attn", "blocks.4.hook_attn_out"),
        ("gpt_neox.layers.5.attention", "blocks.5.hook_attn_out"),
    ],
)
def test_sparsify_is_read_as_its_authors_run_it(tmp_path: Path, module: str, place: str) -> None:
    t = write_sparsify(tmp_path / "run" / module)
    (tmp_path / "run" / "config.json").write_text('{"model": "org/small", "sae": {}}')
    x = activations(200)
    acts = top((x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"], K)
    sae = load_sae(tmp_path / "run" / module)
    assert_latents(sae, acts, acts @ t["W_dec"] + t["b_dec"])
    assert (sae.hook_point.name, sae.config.model_name) == (place, "org/small")


def test_a_width_from_the_expansion_factor(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "layers.1", {"num_latents": 0, "expansion_factor": 3})
    assert load_sae(tmp_path / "layers.1").config.d_sae == D_SAE


@pytest.mark.parametrize(
    ("cfg", "error", "message"),
    [
        ({"transcode": True}, NotSupportedYet, "transcode is set"),
        ({"skip_connection": True}, NotSupportedYet, "skip_connection is set"),
        ({"signed": True}, NotSupportedYet, "signed is set"),
        ({"activation": "groupmax"}, NotSupportedYet, "'groupmax' is not supported"),
        ({"temperature": 2}, InvalidInput, "unknown key 'temperature'"),
        ({"k": 2.5}, InvalidInput, "k is 2.5, expected a whole number"),
        ({"d_in": None}, InvalidInput, "d_in is None"),
        ({"k": 99}, InvalidInput, "k 99 must be between 1 and d_sae 24"),
        ({"num_latents": 48}, WeightsError, r"expected \[8, 48\]"),
    ],
)
def test_sparsify_configurations_that_cannot_be_run_are_refused(
    tmp_path: Path, cfg: dict[str, Any], error: type[Exception], message: str
) -> None:
    write_sparsify(tmp_path / "layers.1", cfg)
    with pytest.raises(error, match=message):
        load_sae(tmp_path / "layers.1")


def test_sparsify_weights_that_cannot_be_run_are_refused(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "layers.1", W_skip=torch.ones(D_IN, D_IN))
    with pytest.raises(WeightsError, match="has unexpected W_skip"):
        load_sae(tmp_path / "layers.1")
    write_sparsify(tmp_path / "layers.2", W_dec=torch.full((D_SAE, D_IN), torch.nan))
    with pytest.raises(WeightsError, match="192 of 192 entries of W_dec are NaN"):
        load_sae(tmp_path / "layers.2")
    (tmp_path / "layers.2" / "sae.safetensors").unlink()
    with pytest.raises(WeightsError, match="no such file"):
        load_sae(tmp_path / "layers.2")


def test_a_sparsify_folder_of_another_name_needs_a_hook_point(tmp_path: Path) -> None:
    write_sparsify(tmp_path / "mine")
    with pytest.raises(InvalidInput, match="nothing says where"):
        load_sae(tmp_path / "mine")


# dictionary_learning


def write_dict(folder: Path, dict_class: str, state: dict[str, Any], **trainer: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    values = {"dict_class": dict_class, "activation_dim": D_IN, "dict_size": D_SAE} | trainer
    values = {"layer": 4, "lm_name": "org/small", "submodule_name": "mlp_layer_4"} | values
    (folder / "config.json").write_text(json.dumps({"trainer": values, "buffer": {"ctx_len": 64}}))
    torch.save(state, folder / "ae.pt")
    return folder


def test_autoencoder_is_read_as_its_authors_run_it(tmp_path: Path) -> None:
    state = linear() | {"bias": drawn((D_IN,))[0]}
    x = activations(200)
    acts = ((x - state["bias"]) @ state["encoder.weight"].T + state["encoder.bias"]).relu()
    sae = load_sae(write_dict(tmp_path / "a", "AutoEncoder", state))
    assert_latents(sae, acts, acts @ state["decoder.weight"].T + state["bias"])
    assert (sae.hook_point.name, sae.config.model_name) == ("blocks.4.hook_mlp_out", "org/small")


def test_autoencoder_new_does_not_subtract_its_bias(tmp_path: Path) -> None:
    state = linear() | {"decoder.bias": drawn((D_IN,))[0]}
    acts = (activations(200) @ state["encoder.weight"].T + state["encoder.bias"]).relu()
    sae = load_sae(write_dict(tmp_path / "a", "AutoEncoderNew", state))
    assert_latents(sae, acts, acts @ state["decoder.weight"].T + state["decoder.bias"])


def test_gated_is_read_as_its_authors_run_it(tmp_path: Path) -> None:
    state = linear()
    del state["encoder.bias"]
    names = ("decoder_bias", "r_mag", "gate_bias", "mag_bias")
    state |= dict(zip(names, drawn((D_IN,), (D_SAE,), (D_SAE,), (D_SAE,), seed=5), strict=True))
    pre = (activations(200) - state["decoder_bias"]) @ state["encoder.weight"].T
    gate = (pre + state["gate_bias"] > 0).float()
    acts = gate * (state["r_mag"].exp() * pre + state["mag_bias"]).relu()
    sae = load_sae(write_dict(tmp_path / "a", "GatedAutoEncoder", state))
    assert_latents(sae, acts, acts @ state["decoder.weight"].T + state["decoder_bias"])
    assert "dictionary_learning may multiply them" in sae.notes[0]


def test_jumprelu_is_read_as_its_authors_run_it(tmp_path: Path) -> None:
    W_enc, W_dec, b_enc, b_dec, threshold = drawn(
        (D_IN, D_SAE), (D_SAE, D_IN), (D_SAE,), (D_IN,), (D_SAE,)
    )
    state = {"W_enc": W_enc, "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec, "threshold": threshold}
    pre = activations(200) @ W_enc + b_enc
    acts = (pre * (pre > threshold)).relu()
    sae = load_sae(write_dict(tmp_path / "a", "JumpReluAutoEncoder", state))
    assert_latents(sae, acts, acts @ W_dec + b_dec)


def test_topk_takes_the_k_of_the_file(tmp_path: Path) -> None:
    state = linear() | {"b_dec": drawn((D_IN,))[0]}
    state |= {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.3)}
    x = activations(200)
    acts = top((x - state["b_dec"]) @ state["encoder.weight"].T + state["encoder.bias"], K)
    folder = write_dict(tmp_path / "a", "AutoEncoderTopK", state, k=K)
    assert_latents(load_sae(folder), acts, acts @ state["decoder.weight"].T + state["b_dec"])
    write_dict(tmp_path / "a", "AutoEncoderTopK", state, k=K + 1)
    with pytest.raises(InvalidInput, match=r"k is 5 in config.json and 4 in ae.pt"):
        load_sae(folder)


@pytest.mark.parametrize("threshold", [0.4, -1.0])
def test_batch_topk_uses_its_learnt_threshold(tmp_path: Path, threshold: float) -> None:
    state = linear() | {"b_dec": drawn((D_IN,))[0]}
    state |= {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(threshold)}
    pre = (activations(200) - state["b_dec"]) @ state["encoder.weight"].T + state["encoder.bias"]
    acts = pre.relu() * (pre.relu() > threshold)
    sae = load_sae(write_dict(tmp_path / "a", "BatchTopKSAE", state, k=K))
    assert_latents(sae, acts, acts @ state["decoder.weight"].T + state["b_dec"])
    assert any("never learnt" in note for note in sae.notes) == (threshold < 0)


def test_matryoshka_is_read_whole(tmp_path: Path) -> None:
    W_enc, W_dec, b_enc, b_dec = drawn((D_IN, D_SAE), (D_SAE, D_IN), (D_SAE,), (D_IN,))
    state = {"W_enc": W_enc, "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec}
    state |= {"k": torch.tensor(K), "threshold": torch.tensor(0.2)}
    state |= {"group_sizes": torch.tensor([8, 16])}
    pre = (activations(200) - b_dec) @ W_enc + b_enc
    acts = pre.relu() * (pre.relu() > 0.2)
    sae = load_sae(write_dict(tmp_path / "a", "MatryoshkaBatchTopKSAE", state, k=K))
    assert_latents(sae, acts, acts @ W_dec + b_dec)


def test_a_layer_without_a_submodule_is_the_residual_stream_and_says_so(tmp_path: Path) -> None:
    state = linear() | {"bias": drawn((D_IN,))[0]}
    folder = write_dict(tmp_path / "a", "AutoEncoder", state, submodule_name=None)
    sae = load_sae(folder)
    assert sae.hook_point.name == "blocks.4.hook_resid_post"
    assert "no submodule" in sae.notes[0]
    given = HookPoint.parse("blocks.4.hook_resid_pre")
    assert load_sae(folder, hook_point=given).hook_point == given


def test_dictionary_learning_files_that_cannot_be_run_are_refused(tmp_path: Path) -> None:
    state = linear() | {"bias": drawn((D_IN,))[0]}
    folder = write_dict(tmp_path / "a", "CrossCoder", state)
    with pytest.raises(NotSupportedYet, match="'CrossCoder' is not supported yet"):
        load_sae(folder)
    write_dict(folder, "AutoEncoderTopK", state, k=K)
    with pytest.raises(WeightsError, match="lacks b_dec and has unexpected bias"):
        load_sae(folder)
    write_dict(folder, "AutoEncoder", state | {"bias": torch.full((D_IN,), torch.inf)})
    with pytest.raises(WeightsError, match="8 of 8 entries of b_dec are NaN or infinite"):
        load_sae(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(InvalidInput, match="dict_class is missing"):
        load_sae(folder)


class Opened:
    """Something that writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(self.path),))


def test_code_in_a_state_dict_is_never_run(tmp_path: Path) -> None:
    folder = write_dict(tmp_path / "a", "AutoEncoder", {"bias": Opened(str(tmp_path / "ran"))})
    with pytest.raises(WeightsError, match="not a file of tensors"):
        load_sae(folder)
    assert not (tmp_path / "ran").exists()
    (folder / "ae.pt").write_bytes((folder / "ae.pt").read_bytes()[:50])
    with pytest.raises(WeightsError, match="not a file of tensors"):
        load_sae(folder)


# Exporting


def assert_round_trip(sae: SparseAutoencoder, back: SparseAutoencoder) -> None:
    x = activations(300)
    ours, theirs = sae.encode(x), back.encode(x)
    assert ours.nnz > 0
    torch.testing.assert_close(theirs.to_dense(), ours.to_dense(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(back.decode(theirs), sae.decode(ours), atol=1e-5, rtol=1e-5)
    assert back.hook_point == sae.hook_point
    assert back.config.model_name == sae.config.model_name


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("architecture", ["standard", "gated", "topk", "jumprelu"])
@pytest.mark.parametrize("written", [ExportFormat.SAELENS, ExportFormat.DICTIONARY_LEARNING])
def test_what_is_exported_comes_back(
    tmp_path: Path, written: ExportFormat, architecture: str, applied: bool
) -> None:
    sae = random_sae(architecture, model_name="org/tiny", apply_b_dec_to_input=applied)
    folder, _ = export_sae(sae, tmp_path / "out", written)
    assert_round_trip(sae, load_sae(folder))


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("written", [ExportFormat.SPARSIFY, ExportFormat.DICTIONARY_LEARNING])
def test_topk_of_every_kind_comes_back(
    tmp_path: Path, written: ExportFormat, applied: bool, rescaled: bool
) -> None:
    flags = {"apply_b_dec_to_input": applied, "rescale_acts_by_decoder_norm": rescaled}
    sae = random_sae("topk", model_name="org/tiny", **flags)
    folder, _ = export_sae(sae, tmp_path / "out", written)
    assert_round_trip(sae, load_sae(folder))


def test_sparsify_gets_the_folder_and_the_tensors_that_it_looks_for(tmp_path: Path) -> None:
    sae = random_sae("topk", model_name="org/tiny")
    folder, _ = export_sae(sae, tmp_path / "run", ExportFormat.SPARSIFY)
    assert folder == tmp_path / "run" / "layers.1"
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"model": "org/tiny"}
    cfg = json.loads((folder / "cfg.json").read_text())
    assert (cfg["d_in"], cfg["num_latents"], cfg["k"], cfg["transcode"]) == (D_IN, D_SAE, K, False)
    tensors = load_file(folder / "sae.safetensors")
    assert {name: list(t.shape) for name, t in tensors.items()} == {
        "encoder.weight": [D_SAE, D_IN],
        "encoder.bias": [D_SAE],
        "W_dec": [D_SAE, D_IN],
        "b_dec": [D_IN],
    }


def test_rows_of_another_norm_are_said(tmp_path: Path) -> None:
    sae = random_sae("jumprelu")
    _, notes = export_sae(sae, tmp_path / "out", ExportFormat.DICTIONARY_LEARNING)
    assert "decoder rows have norms of" in notes[0]
    _, notes = export_sae(
        fold_decoder_norm(sae), tmp_path / "unit", ExportFormat.DICTIONARY_LEARNING
    )
    assert notes == ()


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu"])
def test_sparsify_refuses_what_is_not_topk(tmp_path: Path, architecture: str) -> None:
    with pytest.raises(NotSupportedYet, match=f"topk SAEs alone, and this is {architecture}"):
        export_sae(random_sae(architecture), tmp_path / "out", ExportFormat.SPARSIFY)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("written", [ExportFormat.SPARSIFY, ExportFormat.DICTIONARY_LEARNING])
def test_normalised_activations_are_refused(tmp_path: Path, written: ExportFormat) -> None:
    sae = random_sae("topk", normalize_activations=Normalisation.LAYER_NORM)
    with pytest.raises(NotSupportedYet, match="cannot say layer_norm"):
        export_sae(sae, tmp_path / "out", written)


def test_a_place_that_is_no_module_is_refused(tmp_path: Path) -> None:
    sae = random_sae("topk", hook_point=HookPoint.parse("blocks.1.hook_resid_mid"))
    with pytest.raises(NotSupportedYet, match="no module's output"):
        export_sae(sae, tmp_path / "out", ExportFormat.SPARSIFY)


def test_what_stands_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    for written in (ExportFormat.SPARSIFY, ExportFormat.DICTIONARY_LEARNING):
        with pytest.raises(InvalidInput, match="there is something already"):
            export_sae(random_sae("topk"), tmp_path / "out", written)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("architecture", ["standard", "gated", "topk", "jumprelu"])
@pytest.mark.parametrize("applied", [False, True])
def test_folding_the_pre_bias_changes_no_latent(architecture: str, applied: bool) -> None:
    sae = random_sae(architecture, apply_b_dec_to_input=applied)
    folded = fold_pre_bias(sae, applied=not applied)
    assert folded.config == replace(sae.config, apply_b_dec_to_input=not applied)
    x = activations(300)
    torch.testing.assert_close(
        folded.encode(x).to_dense(), sae.encode(x).to_dense(), atol=1e-5, rtol=1e-5
    )
