"""A complete first rule file, written from what its author knows so far."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.core.errors import InvalidInput
from auditkit.core.prompts import Prompt, Role

BUILTIN = "builtin/"
_KEPT = 900
"""Characters of an example's turn that are worth writing into a rule file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Two suites whose difference the rule watches for, with a few prompts of each."""

    positive: str
    negative: str
    should_match: tuple[Prompt, ...] = ()
    should_not_match: tuple[Prompt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """Latents of one SAE, by number; `sae` is the beginning of its fingerprint."""

    latents: tuple[int, ...]
    sae: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a new rule is about. `role`: whose words are watched (None: plain text, outside a
    chat); `lexicon`: the words that a causal test counts."""

    id: str
    title: str
    watches: Contrast | Latents
    role: Role | None = Role.USER
    benign: str = "builtin/benign-chat"
    lexicon: str | None = None


def render_rule(draft: Draft) -> str:
    """The text of a rule file that `rules lint` accepts and whose unit tests pass."""
    parts = [_head(draft), _signals(draft), _condition(draft), _confirm(draft), _tests(draft)]
    return "\n".join(parts) + "\n"


def quoted(text: str) -> str:
    """A YAML scalar in double quotes, on one line, with everything that does not print escaped."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise InvalidInput(f"{text!r} is not text", help="give it in UTF-8")
    return "".join(
        c if c.isprintable() else _escape(c) for c in json.dumps(text, ensure_ascii=False)
    ).replace("#", "\\x23")  # a quoted '#' must not be read as the beginning of a comment


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _head(draft: Draft) -> str:
    return f"""\
# `auditkit rules lint FILE` checks this file, `auditkit rules test FILE` runs its tests;
# `auditkit rules schema` prints the schema that an editor completes it with.
format: auditkit-rules/1
rules:
  - id: {quoted(draft.id)}
    # rev rises with every change of what the rule means; prose and tests do not count.
    rev: 1
    title: {quoted(draft.title)}
    # To fill in: what is watched, whose words, and what it would mean if it fired.
    description: ""
    # experimental until it has a certificate, a held-out score and a confirmation
    status: experimental
    # info, low, medium, high or critical: what a match is worth
    severity: medium
    # such as owasp-llm:2025:LLM01 or atlas:AML.T0051
    tags: []
    references: []
    # To fill in: benign text on which this may fire. "Unknown" says that nobody has looked.
    false_positives: [Unknown]"""


def _signals(draft: Draft) -> str:
    watches = draft.watches
    if isinstance(watches, Latents):
        return f"""\
    signals:
      concept:
        select:
          by: index
          latents: [{", ".join(map(str, watches.latents))}]
          # these numbers mean something in the SAE of this fingerprint alone
          sae: "{watches.sae}"
        pool: max
        unit: fmax"""
    sides = f"""\
          by: contrast
          positive: {{suite: {quoted(watches.positive)}}}
          negative: {{suite: {quoted(watches.negative)}}}"""
    fitted = f"""\
    signals:
      concept:
        select:
{sides}
          # sparse weights over at most top_k latents; below min_score (AUROC on examples held
          # out) the signal is unresolved, and every verdict unknown
          fit: l1
          top_k: 32
          min_score: 0.85
        pool: weighted"""
    if draft.lexicon is None:
        return fitted
    return f"""\
{fitted}
      # the few latents that the causal test steers
      cause:
        select:
{sides}
          fit: auroc
          top_k: 2
          min_score: 0.5
        pool: mean
        unit: fmax"""


def _condition(draft: Draft) -> str:
    scope = "" if draft.role is None else f"\n    scope: {{roles: [{draft.role.value}]}}"
    statistic, why = ("mean", "on the whole") if _fitted(draft) else ("max", "at some token")
    return f"""\
    frame: message{scope}
    # {statistic}: the message {why}. `calibrated` is the threshold that binding certifies on the
    # benign suite: at most target_fpr of its messages fire.
    condition: {statistic}(concept) >= calibrated
    calibrate: {{suite: {quoted(draft.benign)}, target_fpr: 0.01, confidence: 0.95}}"""


def _confirm(draft: Draft) -> str:
    if draft.lexicon is None:
        return """\
    # To fill in: do the latents cause what the title says? Name words that steering them should
    # bring about: a file of format auditkit-lexicon/1, or lexicon/NAME from the library. (`rules
    # new --lexicon REF` writes this part whole, with a signal of its own.)
    # confirm:
    #   - name: dose
    #     intervene: {op: steer, signal: concept, doses: [0.5, 1, 2], unit: fmax}
    #     measure: {metric: lexicon_logodds, target: LEXICON, contrast: LEXICON}
    #     expect: {direction: increase, monotonic: true, q: 0.05}"""
    words, signal = quoted(draft.lexicon), "cause" if _fitted(draft) else "concept"
    return f"""\
    # do the latents cause what the title says? Steering them should bring these words about
    confirm:
      - name: dose
        intervene: {{op: steer, signal: {signal}, doses: [0.5, 1, 2], unit: fmax}}
        measure: {{metric: lexicon_logodds, target: {words}, contrast: {words}}}
        expect: {{direction: increase, monotonic: true, q: 0.05}}"""


def _tests(draft: Draft) -> str:
    key = "concept" if draft.role is None else f"concept@{draft.role.value}"
    given = "given: {calibrated: 0.3}"
    rows = (
        [
            ("fires_at_the_end", "0.5*4", "fires: true, at: 3"),
            ("stays_silent_below", "0.2*4", "fires: false"),
            ("one_high_token_is_not_enough", "0.9 0*5", "fires: false"),
        ]
        if _fitted(draft)
        else [
            ("fires_at_the_first_high_token", "0 0.5 0*2", "fires: true, at: 1"),
            ("stays_silent_below", "0.2*4", "fires: false"),
        ]
    )
    rows.append(("not_recorded_is_unknown", "_*4", "fires: unknown"))
    unit = "\n".join(
        f'        - {{name: {name}, {given}, series: {{{key}: "{series}"}}, {fires}}}'
        for name, series, fires in rows
    )
    tests = f"""\
    tests:
      # series of the signal, token by token: no model needed
      unit:
{unit}
      # prompts on a model: `auditkit rules test --prompts AUDIT.yaml FILE`. One that is known to
      # fail is kept with `todo: why`."""
    watches = draft.watches
    if isinstance(watches, Latents):
        return "\n".join([tests, _hint("should_match"), _hint("should_not_match")])
    match = _examples("should_match", watches.positive, watches.should_match)
    silent = _examples("should_not_match", watches.negative, watches.should_not_match)
    return "\n".join([tests, match, silent])


def _fitted(draft: Draft) -> bool:
    return isinstance(draft.watches, Contrast)


def _examples(key: str, suite: str, prompts: Sequence[Prompt]) -> str:
    """Examples written out; of the library's suites only the names, lest harmful text spread."""
    if not prompts:
        return _hint(key)
    if suite.startswith(BUILTIN):
        named = "\n".join(f"      #   {suite} · {p.id}" for p in prompts)
        return f"""\
{_hint(key)}
      # Prompts to begin from:
{named}"""
    return "\n".join([f"      {key}:", *(f"        - {_example(p)}" for p in prompts)])


def _hint(key: str) -> str:
    return f"      # {key}: [{{turns: [{{user: …}}, {{assistant: …}}]}}]"


def _example(prompt: Prompt) -> str:
    if prompt.messages[0].role is Role.TEXT:
        return f"{{text: {quoted(_cut(prompt.messages[0].content))}}}"
    turns = ", ".join(f"{{{m.role.value}: {quoted(_cut(m.content))}}}" for m in prompt.messages)
    return f"{{turns: [{turns}]}}"


def _cut(text: str) -> str:
    return text if len(text) <= _KEPT else text[:_KEPT]
