"""`auditkit sae absorption`: does an SAE absorb the first letters of words? (Chanin et al. 2024)"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from auditkit.config import load_train
from auditkit.core.errors import InvalidInput
from auditkit.core.fingerprint import to_plain
from auditkit.core.hook_point import HookPoint, Site
from auditkit.core.measured import Measure, NotMeasured
from auditkit.core.progress import Progress
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.core.statistics import binomial_rate
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import LanguageModel, Prefix
from auditkit.pipeline.transcoders import require_autoencoder
from auditkit.pipeline.workbench import Workbench
from auditkit.quality.failures.absorption import AbsorptionReport, ClassedWords, measure_absorption
from auditkit.saes import SparseAutoencoder
from auditkit.tensors import SparseLatents

LETTERS = string.ascii_lowercase
QUESTION = " has the first letter:"
EXAMPLES = 10
FRAMES = 4
TEST_SHARE = 0.2
_ROWS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsorptionSummary:
    """The report, how often the model itself names the letter, and on what all was measured."""

    sae: str
    hook_point: str
    report: AbsorptionReport
    model_right: Measure

    def text(self) -> str:
        """A table for the terminal."""
        r = self.report
        lines = [
            f"{self.sae} at {self.hook_point}: {r.words[0]:,} words to fit on, {r.words[1]:,} to "
            f"test on; the model names the first letter of {describe_rate(self.model_right)}",
            f"letter probes' F1  {describe_rate(r.probe_f1)}",
            f"main latents per letter  {describe_rate(r.main_latents)}; "
            f"F1 of their firing  {describe_rate(r.main_f1)}",
            f"absorption rate  {describe_rate(r.absorption)}",
            f"plain missing  {describe_rate(r.plain_missing)}",
            f"floor: latents of other words  {describe_rate(r.chance)}",
            f"excess over plain missing  {describe_rate(r.excess)}",
        ]
        for letter in r.classes:
            lines.append(
                f"  {letter.name}  probe F1 {describe_rate(letter.probe_f1)}; latents "
                f"{', '.join(map(str, letter.main_latents)) or '-'}; absorbed "
                f"{describe_rate(letter.absorption)}"
            )
        return "\n".join(lines)

    def json(self) -> str:
        return json.dumps(to_plain(self), indent=1, ensure_ascii=False)


def describe_rate(measure: Measure) -> str:
    """A value with its interval and n, or why there is none."""
    if isinstance(measure, NotMeasured):
        return f"not measured: {measure.reason}"
    interval = measure.interval
    ends = "" if interval is None else f" [{interval.low:.3f}, {interval.high:.3f}]"
    return f"{measure.value:.3f}{ends} (n = {measure.n})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LetterWords:
    """Activations [word, d_in] at single-token words, their letters, and whether the model's next
    word after the question is the letter."""

    x: Tensor
    labels: Tensor
    right: Tensor


def absorption_from(
    file: Path,
    *,
    sae: Path | None = None,
    words: int = 5000,
    seed: int = 0,
    progress: Progress,
) -> AbsorptionSummary:
    """Run the first-letter absorption test on `words` single-token words of the model.

    `sae` is a folder, by default the one that `file` trains. Raises InvalidInput where the
    tokenizer has too few words of one token.
    """
    located = load_train(file)
    require_autoencoder(located.document, "absorption")
    folder = sae or located.resolve(located.document.output)
    bench = Workbench.load(
        located.resolve_source(located.document.model.source),
        str(folder),
        dtype="float32",
        progress=progress,
    )
    found = read_words(bench.model, bench.sae.hook_point, words=words, seed=seed, progress=progress)
    return measure_words(bench.sae, found)


def measure_words(sae: SparseAutoencoder, words: LetterWords) -> AbsorptionSummary:
    """The test on words that come in random order: the last fifth is tested on."""
    first = round(len(words.x) * (1 - TEST_SHARE))
    train, test = (
        _classed(sae, words.x[rows], words.labels[rows])
        for rows in (slice(0, first), slice(first, None))
    )
    directions = sae.decoder_directions(torch.arange(sae.config.d_sae))
    return AbsorptionSummary(
        sae=sae.config.name,
        hook_point=sae.hook_point.name,
        report=measure_absorption(train, test, directions, list(LETTERS)),
        model_right=binomial_rate(int(words.right.sum()), len(words.right)),
    )


def _classed(sae: SparseAutoencoder, x: Tensor, labels: Tensor) -> ClassedWords:
    silence = SparseLatents.from_dense(torch.zeros(len(x), sae.config.d_sae))
    return ClassedWords(x=x - sae.decode(silence, x), labels=labels, latents=sae.encode(x))


def read_words(
    model: LanguageModel, hook_point: HookPoint, *, words: int, seed: int, progress: Progress
) -> LetterWords:
    """Show the model words after worked examples, and read the word's own token at `hook_point`.

    There are `FRAMES` sets of `EXAMPLES` examples, none of them among the words read; each word
    stands after one of them, in lines of the form "WORD has the first letter: L".
    """
    listed = single_token_words(model)
    random.Random(seed).shuffle(listed)
    shown, read = listed[: FRAMES * EXAMPLES], listed[FRAMES * EXAMPLES :][:words]
    if len(read) < 10 * FRAMES:
        raise InvalidInput(
            f"{model.identity.name} has {len(listed)} lower-case words of one token, too few",
            help="the first-letter test needs a tokenizer with whole words",
        )
    progress.begin("read words", len(read))
    x = torch.empty(len(read), model.d_model)
    right = torch.zeros(len(read), dtype=torch.bool)
    for number in range(FRAMES):
        examples = shown[number * EXAMPLES : (number + 1) * EXAMPLES]
        frame = _Frame(model, hook_point, "".join(_line(word) + "\n" for word in examples))
        rows = list(range(number, len(read), FRAMES))
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            acts, answers = frame.read([read[i] for i in part])
            x[part] = acts
            right[part] = torch.tensor(
                [a.strip().lower() == read[i][0] for a, i in zip(answers, part, strict=True)]
            )
            progress.advance(len(part))
    return LetterWords(
        x=x, labels=torch.tensor([LETTERS.index(word[0]) for word in read]), right=right
    )


def single_token_words(model: LanguageModel) -> list[str]:
    """The lower-case words of two letters and more that are one token after a space, sorted."""
    tokenizer = model.tokenizer
    letters = set(LETTERS)
    candidates = {model.decode([id_]).strip() for id_ in range(len(tokenizer))}
    words = sorted(w for w in candidates if len(w) > 1 and set(w) <= letters)
    ids = tokenizer([f" {w}" for w in words], add_special_tokens=False).input_ids
    unknown = tokenizer.unk_token_id
    return [w for w, i in zip(words, ids, strict=True) if len(i) == 1 and i[0] != unknown]


def _line(word: str) -> str:
    return f" {word}{QUESTION} {word[0].upper()}"


class _Frame:
    """Worked examples in front of a word: run once, and shared by all words that follow them."""

    def __init__(self, model: LanguageModel, hook_point: HookPoint, examples: str) -> None:
        self._model = model
        self._hook_point = hook_point
        self._examples = examples
        self._start = HookPoint(layer=0, site=Site.RESID_PRE)
        self._prefix: Prefix | None = None

    def read(self, words: Sequence[str]) -> tuple[Tensor, list[str]]:
        """Activations [word, d_in] at the words, and the token that the model would write next."""
        prompts = [self._render(word) for word in words]
        batch = self._model.pad(prompts)
        columns = self._word_column(prompts)
        embedded = self._model.capture(batch, [self._start])[self._start]
        if self._prefix is None:
            self._prefix = self._model.share_prefix(
                batch.select([0]), self._start, embedded[:1], columns=columns
            )
        seen: list[Tensor] = []
        with self._model.watch(self._hook_point, lambda x, _: seen.append(x)):
            logits = self._model.resume_after(
                self._prefix, torch.zeros(len(words), dtype=torch.long), embedded[:, columns:]
            )
        answers = [self._model.decode([int(i)]) for i in logits.argmax(1)]
        return seen[0][:, 0].float(), answers

    def _render(self, word: str) -> TokenizedPrompt:
        text = f"{self._examples} {word}{QUESTION}"
        return self._model.render(
            Prompt(id=word, messages=(Message(role=Role.TEXT, content=text),))
        )

    def _word_column(self, prompts: Sequence[TokenizedPrompt]) -> int:
        """The one column in which the prompts may differ: their word's."""
        lengths = {len(p) for p in prompts}
        rest = len(self._model.tokenizer(QUESTION, add_special_tokens=False).input_ids)
        column = len(prompts[0]) - rest - 1
        outside = {p.ids[:column] + p.ids[column + 1 :] for p in prompts}
        if len(lengths) != 1 or len(outside) != 1:
            raise InvalidInput(
                "the tokenizer splits words differently inside the prompt than alone",
                help="the first-letter test needs words that are one token in any context",
            )
        return column
