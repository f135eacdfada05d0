"""Against the real sparsify and dictionary_learning: they load ours, we load theirs.

Both are installed without what they train with, so their packages' `__init__` is passed over.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from auditkit.saes import ExportFormat, SparseAutoencoder, export_sae, load_sae
from tests.unit.saes.random_saes import D_IN, D_SAE, K, activations, random_sae

torch.set_num_threads(1)


def package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def bare_package(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make the modules of a package importable without running its `__init__`."""
    folder = package_folder(name)
    for part in [name, *(f"{name}.{p.parent.name}" for p in folder.glob("*/__init__.py"))]:
        module = ModuleType(part)
        module.__path__ = [str(folder.joinpath(*part.split(".")[1:]))]
        monkeypatch.setitem(sys.modules, part, module)


@pytest.fixture
def sparsify(monkeypatch: pytest.MonkeyPatch) -> Any:
    """sparsify.sparse_coder, uncompiled."""
    bare_package(monkeypatch, "sparsify")
    natsort = ModuleType("natsort")
    natsort.natsorted = sorted  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "natsort", natsort)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    pytest.importorskip("simple_parsing")
    module = importlib.import_module("sparsify.sparse_coder")
    yield module
    for name in [n for n in sys.modules if n.startswith("sparsify.")]:
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def learning(monkeypatch: pytest.MonkeyPatch) -> Any:
    """dictionary_learning's classes by name."""
    bare_package(monkeypatch, "dictionary_learning")
    places = {
        "dictionary": ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder"),
        "trainers.top_k": ("AutoEncoderTopK",),
        "trainers.batch_top_k": ("BatchTopKSAE",),
        "trainers.matryoshka_batch_top_k": ("MatryoshkaBatchTopKSAE",),
    }
    found = {
        name: getattr(importlib.import_module(f"dictionary_learning.{module}"), name)
        for module, names in places.items()
        for name in names
    }
    yield found
    for name in [n for n in sys.modules if n.startswith("dictionary_learning.")]:
        monkeypatch.delitem(sys.modules, name, raising=False)


def randomise(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)


def assert_same(ours: SparseAutoencoder, latents: torch.Tensor, x_hat: torch.Tensor) -> None:
    x = activations(200)
    sparse = ours.encode(x)
    assert sparse.nnz > 0
    torch.testing.assert_close(sparse.to_dense(), latents, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.decode(sparse), x_hat, atol=1e-5, rtol=1e-5)


def dense(encoded: Any) -> torch.Tensor:
    acts, indices = encoded.top_acts, encoded.top_indices
    return torch.zeros(len(acts), D_SAE).scatter(1, indices, acts)


@torch.no_grad()
def test_sparsify_loads_ours_and_we_load_theirs(sparsify: Any, tmp_path: Path) -> None:
    x = activations(200)
    sae = random_sae("topk", apply_b_dec_to_input=False)
    folder, _ = export_sae(sae, tmp_path / "run", ExportFormat.SPARSIFY)
    theirs = sparsify.SparseCoder.load_from_disk(folder)
    encoded = theirs.encode(x)
    decoded = theirs.decode(encoded.top_acts, encoded.top_indices)
    assert_same(sae, dense(encoded), decoded)
    config = sparsify.SparseCoderConfig(num_latents=D_SAE, k=K)
    made = sparsify.SparseCoder(D_IN, config)
    randomise(made)
    made.save_to_disk(tmp_path / "layers.3")
    encoded = made.encode(x)
    decoded = made.decode(encoded.top_acts, encoded.top_indices)
    assert_same(load_sae(tmp_path / "layers.3"), dense(encoded), decoded)


@torch.no_grad()
@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("architecture", ["standard", "gated", "topk", "jumprelu"])
def test_dictionary_learning_loads_ours(
    learning: Any, tmp_path: Path, architecture: str, applied: bool
) -> None:
    sae = random_sae(architecture, apply_b_dec_to_input=applied)
    folder, _ = export_sae(sae, tmp_path / "out", ExportFormat.DICTIONARY_LEARNING)
    trainer = json.loads((folder / "config.json").read_text())["trainer"]
    named = trainer["dict_class"]
    as_it_stands = {"normalize_decoder": False} if named == "AutoEncoder" else {}
    theirs = learning[named].from_pretrained(str(folder / "ae.pt"), **as_it_stands)
    latents = theirs.encode(activations(200))
    assert_same(sae, latents, theirs.decode(latents))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("AutoEncoder", {}),
        ("AutoEncoderNew", {}),
        ("GatedAutoEncoder", {}),
        ("JumpReluAutoEncoder", {}),
        ("AutoEncoderTopK", {"k": K}),
        ("BatchTopKSAE", {"k": K}),
        ("MatryoshkaBatchTopKSAE", {"k": K, "group_sizes": [8, 16]}),
    ],
)
def test_we_load_dictionary_learning(
    learning: Any, tmp_path: Path, name: str, arguments: dict[str, Any]
) -> None:
    theirs = learning[name](D_IN, D_SAE, **arguments)
    randomise(theirs)
    if "TopKSAE" in name:
        theirs.threshold.fill_(0.3)
    trainer = {"dict_class": name, "layer": 2, "lm_name": "org/tiny", **arguments}
    (tmp_path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
    torch.save(theirs.state_dict(), tmp_path / "ae.pt")
    latents = theirs.encode(activations(200))
    assert_same(load_sae(tmp_path), latents, theirs.decode(latents))
