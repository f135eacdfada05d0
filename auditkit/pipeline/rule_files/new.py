"""`auditkit rules new`: a first rule file from a contrast of suites, or from latents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from auditkit.core.errors import InvalidInput
from auditkit.core.prompts import Prompt, Role, Suite
from auditkit.rules import parse_rules
from auditkit.rules.documents.fields import RuleId
from auditkit.rules.documents.scaffold import Contrast, Draft, Latents, render_rule
from auditkit.suites import load_lexicon, load_suite

_WATCHED = (Role.USER, Role.ASSISTANT, Role.SYSTEM, Role.THINKING, Role.TOOL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the author gives; empty where a default serves."""

    id: str
    title: str = ""
    contrast: tuple[str, str] | None = None
    latents: tuple[int, ...] = ()
    sae: str | None = None
    role: str | None = None
    benign: str = "builtin/benign-chat"
    lexicon: str | None = None
    examples: int = 2
    out: Path | None = None


def write_new_rule(wish: Wish) -> str:
    """Write the rule's file and say what to do next. Refuses to overwrite."""
    _check(wish)
    out = wish.out or Path(f"{wish.id}.yaml")
    watches, role = _contrast(wish) if wish.contrast else _latents(wish)
    if wish.lexicon is not None:
        load_lexicon(wish.lexicon)
    text = render_rule(
        Draft(
            id=wish.id,
            title=wish.title or f"{wish.id} is watched for",
            watches=watches,
            role=role,
            benign=load_and_name(wish.benign),
            lexicon=wish.lexicon,
        )
    )
    parse_rules(text, str(out))
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        help = "name another file with --out, or delete this one"
        raise InvalidInput(f"{out} exists already", help=help) from None
    except OSError as error:
        raise InvalidInput(f"{out} cannot be written: {error.strerror or error}") from None
    return f"written to {out}\nnext: auditkit rules lint {out} && auditkit rules test {out}"


def load_and_name(suite: str) -> str:
    """The reference of a suite that exists; errors as of `load_suite`."""
    load_suite(suite)
    return suite


def _check(wish: Wish) -> None:
    try:
        TypeAdapter[str](RuleId).validate_python(wish.id)
    except ValidationError:
        raise InvalidInput(
            f"{wish.id!r} is no rule id", help="small letters and digits in parts: harm.request"
        ) from None
    if (wish.contrast is None) == (not wish.latents):
        raise InvalidInput(
            "a rule watches either a contrast or latents",
            help="--contrast POSITIVE NEGATIVE, or --latent N --sae SAE",
        )
    if wish.latents and wish.sae is None:
        raise InvalidInput(
            "latents by number mean nothing without their SAE", help="--latent N --sae SAE"
        )
    if wish.examples < 0:
        raise InvalidInput(f"--examples {wish.examples} is no number of examples")
    if wish.role is not None and wish.role not in [r.value for r in Role]:
        known = ", ".join(r.value for r in Role)
        raise InvalidInput(f"unknown role {wish.role!r}", help=f"one of {known}")


def _contrast(wish: Wish) -> tuple[Contrast, Role | None]:
    assert wish.contrast is not None
    positive, negative = wish.contrast
    suites = [load_suite(positive), load_suite(negative)]
    role = _role_of(wish.role) if wish.role else _last_speaker(suites[0])
    return (
        Contrast(
            positive=positive,
            negative=negative,
            should_match=_few(suites[0], role, wish.examples),
            should_not_match=_few(suites[1], role, wish.examples),
        ),
        role,
    )


def _latents(wish: Wish) -> tuple[Latents, Role | None]:
    from auditkit.saes import load_sae

    assert wish.sae is not None
    identity = load_sae(wish.sae).identity
    outside = [n for n in wish.latents if not 0 <= n < identity.d_sae]
    if outside:
        raise InvalidInput(
            f"{wish.sae} has no latent {outside[0]}",
            help=f"they run from 0 to {identity.d_sae - 1}",
        )
    found = Latents(latents=tuple(dict.fromkeys(wish.latents)), sae=identity.digest[:16])
    return found, _role_of(wish.role) if wish.role else Role.USER


def _role_of(name: str) -> Role | None:
    role = Role(name)
    return None if role is Role.TEXT else role


def _last_speaker(suite: Suite) -> Role | None:
    """Whose words the prompts of a suite end with, most often; None for plain text."""
    last = Counter(p.messages[-1].role for p in suite.prompts)
    role = max(last, key=lambda r: last[r])
    return role if role in _WATCHED else None


def _few(suite: Suite, role: Role | None, most: int) -> tuple[Prompt, ...]:
    """The shortest prompts that the rule would look at."""

    def seen(prompt: Prompt) -> bool:
        return role is None or any(m.role is role for m in prompt.messages)

    kept: Sequence[Prompt] = [p for p in suite.prompts if seen(p)]
    order = sorted(kept, key=lambda p: sum(len(m.content) for m in p.messages))
    return tuple(order[:most])
