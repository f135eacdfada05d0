"""A folder with the tiny model and a text for it, as a train.yaml names them."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import torch

from tests.tiny import WORDS, tiny_model


def write_model(folder: Path) -> None:
    """`folder/model`."""
    model = tiny_model()
    model.network.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")


def write_model_and_text(folder: Path, *, documents: int = 300, words: int = 90) -> None:
    """`folder/model`, and `folder/words.jsonl` of so many documents of so many words, drawn from
    the first forty."""
    write_model(folder)
    generator = torch.Generator().manual_seed(0)
    with (folder / "words.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(documents):
            drawn = torch.randint(0, 40, (words,), generator=generator).tolist()
            text = " ".join(WORDS[i] for i in drawn)
            lines.write(json.dumps({"id": str(number), "text": text}) + "\n")


def write_model_and_gzipped_text(folder: Path, *, documents: int, words: int = 50) -> None:
    """`folder/model`, and `folder/words.jsonl.gz` of so many documents of so many words, drawn from
    all of them."""
    write_model(folder)
    draw = random.Random(0)
    with gzip.open(folder / "words.jsonl.gz", "wt", encoding="utf-8") as lines:
        for number in range(documents):
            text = " ".join(draw.choices(WORDS, k=words))
            lines.write(json.dumps({"id": str(number), "text": text}) + "\n")
