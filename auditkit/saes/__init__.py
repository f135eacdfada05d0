"""Sparse autoencoders: activations → sparse latents → reconstruction, and their files."""

from auditkit.saes.config import ArchitectureName, Normalisation, SaeConfig
from auditkit.saes.directions import DirectionReader
from auditkit.saes.files import load_sae, write_sae
from auditkit.saes.fit import check_fits
from auditkit.saes.folding import (
    Whitening,
    fold_activation_scale,
    fold_decoder_norm,
    fold_whitening,
)
from auditkit.saes.formats.saelens_folder import read_log_sparsity
from auditkit.saes.sparse_autoencoder import SparseAutoencoder
from auditkit.saes.watched import Operations, Path, WatchedEncoder, WatchedTokens

__all__ = [
    "ArchitectureName",
    "DirectionReader",
    "Normalisation",
    "Operations",
    "Path",
    "SaeConfig",
    "SparseAutoencoder",
    "WatchedEncoder",
    "WatchedTokens",
    "Whitening",
    "check_fits",
    "fold_activation_scale",
    "fold_decoder_norm",
    "fold_whitening",
    "load_sae",
    "read_log_sparsity",
    "write_sae",
]
