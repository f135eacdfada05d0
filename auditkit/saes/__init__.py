"""Sparse autoencoders: activations → sparse latents → reconstruction, and their files."""

from auditkit.saes.config import ArchitectureName, Normalisation, SaeConfig
from auditkit.saes.directions import DirectionReader
from auditkit.saes.files import ExportFormat, export_sae, load_sae, write_sae
from auditkit.saes.fit import check_fits
from auditkit.saes.folding import (
    Whitening,
    fold_activation_scale,
    fold_decoder_norm,
    fold_pre_bias,
    fold_whitening,
)
from auditkit.saes.formats.saelens_folder import read_log_sparsity
from auditkit.saes.formats.transcoder_folder import load_transcoder, write_transcoder
from auditkit.saes.sparse_autoencoder import SparseAutoencoder
from auditkit.saes.transcoder import Transcoder, TranscoderConfig, TranscoderName
from auditkit.saes.watched import Operations, Path, WatchedEncoder, WatchedTokens

__all__ = [
    "ArchitectureName",
    "DirectionReader",
    "ExportFormat",
    "Normalisation",
    "Operations",
    "Path",
    "SaeConfig",
    "SparseAutoencoder",
    "Transcoder",
    "TranscoderConfig",
    "TranscoderName",
    "WatchedEncoder",
    "WatchedTokens",
    "Whitening",
    "check_fits",
    "export_sae",
    "fold_activation_scale",
    "fold_decoder_norm",
    "fold_pre_bias",
    "fold_whitening",
    "load_sae",
    "load_transcoder",
    "read_log_sparsity",
    "write_sae",
    "write_transcoder",
]
