"""`auditkit confirm`: the causal test of latents that a rule author names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from auditkit.config import AuditDocument, Located, load_audit
from auditkit.confirm import ControlPool, LatentTable, confirm_rule, confirmation_id
from auditkit.confirm import finish_verdicts as finish
from auditkit.core.confirmations import CausalVerdict, Confirmation
from auditkit.core.errors import ExitCode, InvalidInput
from auditkit.core.fingerprint import to_plain
from auditkit.core.locks import LockedRule
from auditkit.core.progress import Progress
from auditkit.core.prompts import Prompt, Split
from auditkit.core.recordings import RecordingState
from auditkit.pipeline.causes import causal_inputs, causal_settings, latent_table
from auditkit.pipeline.latent_rules import parse_latents, rule_on_latents
from auditkit.pipeline.whole_file import write_whole
from auditkit.pipeline.workbench import Workbench
from auditkit.report.confirm_page import confirm_html
from auditkit.store import Store, open_store
from auditkit.suites import load_suite

UNDECIDED = (CausalVerdict.INVALID, CausalVerdict.INCONCLUSIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentQuestion:
    """What is asked of which latents; prompts of `positive` are what they are removed from, and
    the words of `beside` are not to move."""

    latents: str
    lexicon: str
    together: bool = False
    op: str = "steer"
    doses: tuple[float, ...] = (0.5, 1.0, 2.0)
    decrease: bool = False
    q: float = 0.05
    positive: str | None = None
    negative: str | None = None
    beside: tuple[str, ...] = ()
    replies: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentCauses:
    """Verdicts on latents, and on what they stand."""

    model: str
    sae: str
    hook_point: str
    lexicon: str
    results: tuple[tuple[LockedRule, Confirmation], ...]

    def json(self) -> str:
        """One JSON document."""
        plain = {
            "model": self.model,
            "sae": self.sae,
            "hook_point": self.hook_point,
            "lexicon": self.lexicon,
            "confirmations": [to_plain(c) for _, c in self.results],
        }
        return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)

    @property
    def exit_code(self) -> ExitCode:
        """4 where no verdict was reached."""
        if all(c.verdict in UNDECIDED for _, c in self.results):
            return ExitCode.NOTHING_EVALUATED
        return ExitCode.CLEAN


def confirm_latents(
    file: Path, asked: LatentQuestion, *, html: Path | None, progress: Progress
) -> LatentCauses:
    """Test latents with the model, SAE, store and sizes that an audit.yaml names.

    Trials are kept in the store, so that a run goes on where another stopped. Verdicts are
    corrected over the latents of this question alone.
    """
    located = load_audit(file)
    document = located.document
    suites = {
        side: _examples(name, located)
        for side, name in (("positive", asked.positive), ("negative", asked.negative))
    }
    path = located.resolve(document.store)
    if not path.exists():
        raise InvalidInput(
            f"{path}: no store",
            help=f"record first: auditkit audit {file}, or auditkit record; latents are matched "
            "by how they fire on recordings",
        )
    bench = Workbench.load(
        located.resolve_source(document.model.source),
        located.resolve_source(document.sae),
        dtype=document.model.dtype,
        device=document.model.device,
        progress=progress,
    )
    direction = "decrease" if asked.decrease else "increase"
    rules = [
        rule_on_latents(
            named, asked.lexicon, op=asked.op, doses=asked.doses, direction=direction, q=asked.q
        )
        for named in parse_latents(
            asked.latents, d_sae=bench.sae.config.d_sae, together=asked.together
        )
    ]
    with open_store(path) as store:
        table = latent_table(store, _reference(bench, store, path), bench.sae.config.d_sae)
        confirmations = _run(bench, rules, suites, document, table, asked, store, progress)
    found = LatentCauses(
        model=bench.model.identity.name,
        sae=bench.sae.config.name,
        hook_point=str(bench.sae.hook_point),
        lexicon=asked.lexicon,
        results=tuple(zip(rules, confirmations, strict=True)),
    )
    if html is not None:
        page = confirm_html(
            found.results,
            model=found.model,
            sae=found.sae,
            hook_point=found.hook_point,
            lexicon=found.lexicon,
        )
        write_whole(html, page)
    return found


def _run(
    bench: Workbench,
    rules: Sequence[LockedRule],
    suites: Mapping[str, tuple[Prompt, ...]],
    document: AuditDocument,
    table: LatentTable,
    asked: LatentQuestion,
    store: Store,
    progress: Progress,
) -> list[Confirmation]:
    plans = [rule.confirm[0] for rule in rules]
    wish = document.confirm.model_copy(update={"generate": asked.replies})
    settings = causal_settings(wish, plans, seed=document.seed)
    inputs = causal_inputs(
        plans[0],
        positive=suites["positive"],
        negative=suites["negative"],
        document=wish,
        latents=table,
        beside=asked.beside,
    )
    pool = ControlPool()
    progress.begin("test causes", len(rules))
    raws = []
    for rule, plan in zip(rules, plans, strict=True):
        known = confirmation_id(bench.model, bench.sae, rule, plan, inputs, settings)
        raws.append(
            confirm_rule(
                bench.model,
                bench.sae,
                rule,
                plan,
                inputs,
                settings=settings,
                pool=pool,
                progress=progress.note,
                trial_sink=store.write_trials,
                done_trials=store.read_trials(known),
            )
        )
        progress.advance()
    return finish(raws)


def _reference(bench: Workbench, store: Store, path: Path) -> str:
    """Statistics over every recording of this model and SAE."""
    own = [
        r.id
        for r in store.recordings()
        if r.state is RecordingState.COMPLETE
        and r.sae.digest == bench.sae.identity.digest
        and r.model.digest == bench.model.identity.digest
    ]
    if not own:
        raise InvalidInput(
            f"{path} holds no recording of {bench.model.identity.name} with the SAE "
            f"{bench.sae.config.name}",
            help="record first: auditkit audit AUDIT.yaml, or auditkit record",
        )
    return store.measure_latent_stats(sorted(own))


def _examples(name: str | None, located: Located[AuditDocument]) -> tuple[Prompt, ...]:
    """A suite's test part where it has splits, else all of it."""
    if name is None:
        return ()
    prompts = load_suite(name, base=located.folder).prompts
    held_out = tuple(p for p in prompts if p.split is Split.TEST)
    return held_out or prompts
