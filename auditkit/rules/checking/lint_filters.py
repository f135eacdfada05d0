"""What is wrong with one filter, seen by itself."""

from __future__ import annotations

from datetime import date

from auditkit.rules.checking.report import Reporter
from auditkit.rules.documents.filter_documents import FilterDocument
from auditkit.rules.documents.patterns import PatternError, compile_pattern

_NO_REASON = {"", "-", "none", "n/a", "tbd", "todo", "unknown", "?"}


def lint_filter(document: FilterDocument, number: int, reporter: Reporter) -> None:
    """Report everything that is wrong with filter `number` of a file."""
    at = ("filters", number)
    for key in ("reason", "author"):
        if str(getattr(document, key)).strip().lower() in _NO_REASON:
            help = "say why these matches are no findings, and who says so"
            reporter.add("AK093", f"a filter needs {_ARTICLE[key]}", (*at, key), help=help)
    _check_dates(document, number, reporter)
    for index, pattern in enumerate(document.rules):
        if pattern in document.rules[:index]:
            reporter.add("AK027", f"{pattern!r} stands twice", (*at, "rules", index))
    for index, exception in enumerate(document.exceptions):
        if exception.text is not None:
            _check_pattern(exception.text, (*at, "exceptions", index, "text"), reporter)
        if exception in document.exceptions[:index]:
            message = "this exception stands here twice"
            reporter.add("AK038", message, (*at, "exceptions", index))


_ARTICLE = {"reason": "a reason", "author": "an author"}


def _check_pattern(pattern: str, at: tuple[str | int, ...], reporter: Reporter) -> None:
    try:
        finds = compile_pattern(pattern)
    except PatternError as error:
        help = "RE2's syntax: no look-around, no back-references; (?i) ignores case"
        reporter.add("AK020", f"a pattern that cannot be read: {error}", at, help=help)
        return
    if finds(""):
        message = "the pattern is found in every text, so it excuses everything"
        reporter.add("AK038", message, at, help="leave 'text' out, or ask for at least a letter")


def _check_dates(document: FilterDocument, number: int, reporter: Reporter) -> None:
    days: dict[str, date] = {}
    for key in ("date", "expires"):
        text = getattr(document, key)
        if text is None:
            continue
        try:
            days[key] = date.fromisoformat(text)
        except ValueError:
            reporter.add("AK097", f"{text} is no day of the calendar", ("filters", number, key))
    if len(days) == 2 and days["expires"] <= days["date"]:
        message = "the filter ends before it begins"
        reporter.add("AK097", message, ("filters", number, "expires"))
