"""Find latents in recordings: what separates prompts, where a latent fires and with what. No torch,
no model: everything is read from the store."""

from auditkit.features.contexts import Context, ContextToken
from auditkit.features.contrast import Contrast, Separating, contrast
from auditkit.features.decoder import (
    LatentDirections,
    latent_directions,
    read_decoder,
    read_unembedding,
)
from auditkit.features.profile import LatentProfile, profile_latent
from auditkit.features.searching import Found, FoundLatent, search_text
from auditkit.features.selection import RecordedPrompt, Scope, open_scope, select
from auditkit.features.together import Partner, Together, fires_together
from auditkit.features.totals import LatentRow, top_latents

__all__ = [
    "Context",
    "ContextToken",
    "Contrast",
    "Found",
    "FoundLatent",
    "LatentDirections",
    "LatentProfile",
    "LatentRow",
    "Partner",
    "RecordedPrompt",
    "Scope",
    "Separating",
    "Together",
    "contrast",
    "fires_together",
    "latent_directions",
    "open_scope",
    "profile_latent",
    "read_decoder",
    "read_unembedding",
    "search_text",
    "select",
    "top_latents",
]
