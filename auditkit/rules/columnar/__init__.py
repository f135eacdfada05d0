"""Rules judged column by column, for stores with much to judge: what SQL says, in numpy.

A third evaluator is one more to be wrong. So it knows the plain part of the language alone, on
recordings that are covered whole, and hands everything else back (None) to be said in SQL;
docs/decisions/0012 says why it is there, and the property tests hold it to SQL's every row.
"""

from __future__ import annotations

from auditkit.rules.columnar.judge import ActiveRows, evaluate_columns
from auditkit.rules.columnar.layout import COLUMNS_SQL, COVERED_SQL, ColumnLayout, TokenColumns
from auditkit.rules.columnar.plain import is_plain

__all__ = [
    "COLUMNS_SQL",
    "COVERED_SQL",
    "ActiveRows",
    "ColumnLayout",
    "TokenColumns",
    "evaluate_columns",
    "is_plain",
]
