"""A folder with the tiny model and a text for it, as a train.yaml names them."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.tiny import WORDS, tiny_model


def write_model_and_text(folder: Path) -> None:
    """`folder/model` and `folder/words.jsonl`, 300 documents of 90 words."""
    model = tiny_model()
    model.network.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    generator = torch.Generator().manual_seed(0)
    with (folder / "words.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(300):
            drawn = torch.randint(0, 40, (90,), generator=generator).tolist()
            text = " ".join(WORDS[i] for i in drawn)
            lines.write(json.dumps({"id": str(number), "text": text}) + "\n")
