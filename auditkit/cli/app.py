"""The `auditkit` command and how its errors end."""

from __future__ import annotations

import sys

import typer

from auditkit.cli import (
    audit,
    confirm,
    features,
    labels,
    monitor,
    query,
    record,
    report,
    rules,
    sae,
    serve,
    suites,
)
from auditkit.core.errors import AuditkitError

EPILOG = (
    "Exit codes: 0 clean · 1 findings at or above --fail-on, or failed tests · 2 invalid input · "
    "3 warnings under --strict · 4 nothing was evaluated, or all was unknown · 5 the run failed · "
    "130 stopped with Ctrl-C."
)

app = typer.Typer(
    name="auditkit",
    help="Audit a language model from the inside: record its latents, match them against "
    "feature-watch rules, test what they cause, report, and monitor.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
app.command("audit")(audit.audit)
app.command("confirm")(confirm.confirm)
app.command("query")(query.query)
app.command("record")(record.record)
app.command("report")(report.report)
app.command("monitor")(monitor.monitor)
app.command("serve")(serve.serve)
app.add_typer(features.app, name="features")
app.add_typer(labels.app, name="labels")
app.add_typer(rules.app, name="rules")
app.add_typer(sae.app, name="sae")
app.add_typer(suites.app, name="suites")


@app.command("version")
def show_version() -> None:
    """Print the version."""
    import auditkit

    print(auditkit.__version__)


def main() -> None:
    """Run the command; errors end with their exit code and a message that says what to do."""
    try:
        app()
    except AuditkitError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(int(error.exit_code)) from None
