"""A small harvest of two hook points that several processes can run: for a test that kills it."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from auditkit.core.hook_point import HookPoint
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.training import harvest_activations
from auditkit.training.activations import harvest
from tests.tiny import WORDS, tiny_model

HOOK_POINTS = {
    "mid": HookPoint.parse("blocks.0.hook_resid_mid"),
    "out": HookPoint.parse("blocks.1.hook_mlp_out"),
}
DOCUMENTS = 120
MAX_TOKENS = 2_000


def documents() -> list[Prompt]:
    """Plain texts of very different lengths."""
    generator = random.Random(5)

    def text() -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(1, 40)))

    return [
        Prompt(id=str(n), messages=(Message(role=Role.TEXT, content=text()),), source="words")
        for n in range(DOCUMENTS)
    ]


def run(folder: str) -> None:
    """Harvest into the folder, or go on with it."""
    torch.set_num_threads(1)
    harvest.BLOCK_DOCUMENTS = 8  # many commits, so that kills land between and within them
    folders = {hook_point: Path(folder) / name for name, hook_point in HOOK_POINTS.items()}
    harvest_activations(tiny_model(), documents(), folders, context=16, max_tokens=MAX_TOKENS)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of the harvest, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
