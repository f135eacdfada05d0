"""`auditkit rules`: new, lint, test, bind, explain, list and schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from auditkit.cli.options import Dtype, Json, Quiet, RulePaths, Sae, Store

app = typer.Typer(
    help="Feature-watch rules: new, lint, test, bind, explain, list.", no_args_is_help=True
)


@app.command()
def lint(
    paths: RulePaths = None,
    format: Annotated[str, typer.Option("--format", help="text, json, sarif or github.")] = "text",
    strict: Annotated[bool, typer.Option(help="Exit 3 on warnings.")] = False,
    online: Annotated[
        bool, typer.Option("--online", help="Warn too of what a monitor cannot act on in time.")
    ] = False,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Read again only files that changed.")
    ] = True,
) -> None:
    """Check rule files; needs no model.

    Examples:

      auditkit rules lint

      auditkit rules lint my-rules/ --strict --format github
    """
    from auditkit.pipeline.rule_files.checks import lint_paths

    outcome = lint_paths(paths or [], format=format, strict=strict, online=online, cached=cache)
    print(outcome.text)
    raise typer.Exit(int(outcome.exit_code))


@app.command("test")
def run_tests(
    paths: RulePaths = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="AUDIT",
            help="Run should_match and should_not_match on the model of this audit.yaml.",
        ),
    ] = None,
    lock: Annotated[
        Path | None, typer.Option(help="With --prompts: instead of the audit's own lock.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the results as JUnit XML.")] = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Which comparisons were seen true, and false.")
    ] = False,
    fail_under: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="Exit 1 where coverage is less.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the rules' unit series on both evaluators (no model), or their examples on a model.

    A test that is unresolved (not bound, not calibrated, nothing to look at) has not passed.

    Examples:

      auditkit rules test

      auditkit rules test my-rules/refusal.yaml --coverage --fail-under 100 --junit junit.xml

      auditkit rules test --prompts examples/smollm2/audit.yaml
    """
    from auditkit.cli.console import Bars
    from auditkit.pipeline.rule_files.tests import WhatToTest, run_rule_tests

    wish = WhatToTest(
        paths=tuple(paths or ()),
        prompts=prompts,
        lock=lock,
        junit=junit,
        coverage=coverage,
        fail_under=fail_under,
        json=json,
    )
    if prompts is None:
        outcome = run_rule_tests(wish)
    else:
        with Bars(quiet=quiet) as bars:
            outcome = run_rule_tests(wish, bars)
    print(outcome.text)
    raise typer.Exit(int(outcome.exit_code))


@app.command()
def explain(
    rule: Annotated[str, typer.Argument(help="A rule id, or its end.")],
    lock: Annotated[
        Path | None, typer.Option(help="A rules.lock.json: adds thresholds, latents and SQL.")
    ] = None,
    paths: Annotated[
        list[str] | None, typer.Option("--rules", help="Rule files or folders.")
    ] = None,
    finding: Annotated[
        str | None,
        typer.Option(
            help="Explain a verdict: a finding's fingerprint (fp1:…), PROMPT, or PROMPT:FRAME."
        ),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="With --finding: the DuckDB file of recordings.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="With --finding: the suite that the prompt is of.")
    ] = None,
    match: Annotated[
        int, typer.Option(help="With a fingerprint: which match, the strongest first.")
    ] = 1,
    json: Json = False,
) -> None:
    """Say in plain words what a rule means, with its syntax tree and, given a lock, its SQL.

    With --finding: why it came to a verdict, what its tokens said, and the smallest change that
    would turn it over. Needs no model.

    Examples:

      auditkit rules explain harm.request

      auditkit rules explain harm.request --lock reports/smollm2/rules.lock.json

      auditkit rules explain harm.request --finding everyday-05 --store audit.duckdb
    """
    if finding is None:
        _explain_rule(rule, paths or [], lock, unused=(store, suite), json=json)
        return
    from auditkit.core.errors import InvalidInput
    from auditkit.pipeline.rule_files.finding import explain_finding

    if store is None:
        raise InvalidInput("--finding needs the store it is in", help="--store audit.duckdb")
    found = explain_finding(rule, finding, store=store, lock=lock, suite=suite, number=match)
    if json:
        print(found.json())
        return
    from auditkit.cli.verdict_view import print_finding

    print_finding(found)


def _explain_rule(
    rule: str, paths: list[str], lock: Path | None, *, unused: tuple[object, ...], json: bool
) -> None:
    from auditkit.core.errors import InvalidInput
    from auditkit.pipeline.rule_files.checks import explain_rule

    if json or any(given is not None for given in unused):
        raise InvalidInput("--json, --store and --suite belong to --finding, which is not given")
    print(explain_rule(rule, paths, lock))


@app.command("new")
def new_rule(
    id: Annotated[str, typer.Option("--id", help="The rule's id, such as harm.request.")],
    contrast: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="POS NEG", help="Suites whose difference it watches for (files, or builtin/…)."
        ),
    ] = None,
    latent: Annotated[
        list[int] | None, typer.Option(help="Latents of --sae that it watches, instead.")
    ] = None,
    sae: Annotated[
        str | None, typer.Option(help="With --latent: a SAELens folder, or release:RELEASE/SAE_ID.")
    ] = None,
    title: Annotated[str, typer.Option(help="What it finds, in a sentence.")] = "",
    role: Annotated[
        str | None, typer.Option(help="Whose words it watches; by default the suites' last.")
    ] = None,
    calibrate: Annotated[
        str, typer.Option(help="The benign suite that certifies its threshold.")
    ] = "builtin/benign-chat",
    lexicon: Annotated[
        str | None, typer.Option(help="Words that steering should bring about: a causal test.")
    ] = None,
    examples: Annotated[int, typer.Option(help="Prompts of each suite to write out as tests.")] = 2,
    out: Annotated[Path | None, typer.Option(help="The file; by default ID.yaml.")] = None,
) -> None:
    """Write a complete rule file to fill in: signals, condition, calibration, tests.

    Never overwrites. Prompts of shipped suites are named, not copied.

    Examples:

      auditkit rules new --id support.refund --contrast asks.yaml others.yaml

      auditkit rules new --id test.peak --latent 812 --sae examples/smollm2/sae
    """
    from auditkit.pipeline.rule_files.new import Wish, write_new_rule

    wish = Wish(
        id=id,
        title=title,
        contrast=contrast,
        latents=tuple(latent or ()),
        sae=sae,
        role=role,
        benign=calibrate,
        lexicon=lexicon,
        examples=examples,
        out=out,
    )
    print(write_new_rule(wish))


@app.command()
def bind(
    sae: Sae,
    store: Store,
    paths: RulePaths = None,
    out: Annotated[Path, typer.Option(help="Where to write the lock.")] = Path("rules.lock.json"),
    model: Annotated[
        str | None,
        typer.Option(
            help="The recorded model: needed for rules that select a direction, and for variants."
        ),
    ] = None,
    dtype: Dtype = "float32",
    joint_fpr: Annotated[
        float | None,
        typer.Option(
            "--joint-fpr",
            metavar="SHARE",
            help="At most this share of benign prompts may make any of the rules fire.",
        ),
    ] = None,
    variants: Annotated[
        bool,
        typer.Option("--variants", help="Measure recall on altered examples too (--model)."),
    ] = False,
    variant_examples: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Examples per rule to alter.")
    ] = 30,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make rules concrete for one SAE from recorded examples: pick latents, calibrate, score.

    The suites that the rules name must be in the store (`auditkit record`).

    Examples:

      auditkit rules bind --sae examples/smollm2/sae --store audit.duckdb

      auditkit rules bind my-rules/ --sae SAE --store audit.duckdb --joint-fpr 0.05

      auditkit rules bind my-rules/ --sae SAE --store audit.duckdb --model MODEL --variants
    """
    from auditkit.cli.console import Bars
    from auditkit.pipeline.bind import bind_paths

    with Bars(quiet=quiet) as bars:
        outcome = bind_paths(
            paths or [],
            sae=sae,
            store=store,
            out=out,
            model=model,
            dtype=dtype,
            joint_fpr=joint_fpr,
            variant_examples=variant_examples if variants else 0,
            progress=bars,
        )
    print(outcome.json() if json else outcome.text())


@app.command("list")
def list_rules(
    paths: RulePaths = None,
    lock: Annotated[Path | None, typer.Option(help="A rules.lock.json: adds its scores.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="A report.json: adds causal verdicts; by default the one beside --lock."),
    ] = None,
    json: Json = False,
) -> None:
    """List rules: status, severity, tests; with a lock what they detect, and what is confirmed.

    With a lock: whether the latents are resolved, the certified rate of false positives, AUROC on
    held-out examples beside the best plain baseline, recall, the variant of the examples on which
    fewest are found, and the verdicts of the causal tests. --json has all numbers.

    Examples:

      auditkit rules list

      auditkit rules list --lock reports/smollm2/rules.lock.json --json
    """
    from auditkit.pipeline.rule_files.listing import list_paths

    print(list_paths(paths or [], lock, json=json, report=report))


@app.command()
def schema() -> None:
    """Print the JSON Schema of rule files, for editors.

    Examples:

      auditkit rules schema > rules.v1.json
    """
    from auditkit.pipeline.rule_files.checks import schema_text

    print(schema_text(), end="")
