"""The document `auditkit-rules/1`, as it stands in a rule file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from auditkit.core.documents import Document
from auditkit.core.locks import Frame, Pool, Severity, Status
from auditkit.core.prompts import Role
from auditkit.rules.documents.correlation_documents import CorrelationDocument
from auditkit.rules.documents.fields import Name, RuleId, Share, Text
from auditkit.rules.documents.filter_documents import FilterDocument

FORMAT = "auditkit-rules/1"

SuiteRef = Annotated[str, Field(min_length=1)]
PercentileName = Annotated[
    str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,59}\.p[0-9]{1,3}(\.[0-9]{1,6})?$")
]
LexiconRef = Annotated[str, Field(min_length=1)]
Speaker = Literal["system", "user", "assistant", "thinking", "tool"]
Turn = Annotated[dict[Speaker, str], Field(min_length=1, max_length=1)]

_ONE_PROMPT: dict[str, Any] = {"oneOf": [{"required": ["turns"]}, {"required": ["text"]}]}
_SOME_PART: dict[str, Any] = {
    "anyOf": [{"required": [part]} for part in ("rules", "filters", "correlations")]
}
_ONE_SOURCE: dict[str, Any] = {"oneOf": [{"required": ["suite"]}, {"required": ["examples"]}]}


def _just_one(model: Document, first: str, second: str) -> None:
    if len(model.model_fields_set & {first, second}) != 1:
        raise PydanticCustomError(
            "just_one", "give either '{first}' or '{second}'", {"first": first, "second": second}
        )


class PromptExample(Document, json_schema_extra=_ONE_PROMPT):
    """One prompt written out: a chat (`turns`) or plain text (`text`)."""

    turns: Annotated[tuple[Turn, ...], Field(min_length=1)] | None = None
    text: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> PromptExample:
        _just_one(self, "turns", "text")
        return self


class Example(PromptExample, json_schema_extra=_ONE_PROMPT):
    """A prompt that a rule should, or should not, match; `todo` marks a known failure."""

    name: Text | None = None
    todo: Text | None = None


class ExampleSet(Document, json_schema_extra=_ONE_SOURCE):
    """Examples on one side of a contrast: a suite, or prompts written out."""

    suite: SuiteRef | None = None
    examples: Annotated[tuple[PromptExample, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> ExampleSet:
        _just_one(self, "suite", "examples")
        return self


class IndexSelect(Document):
    """Latents by number, of the one SAE whose fingerprint is given."""

    by: Literal["index"]
    latents: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    sae: Annotated[str, Field(pattern=r"^[0-9a-f]{12,64}$")] | None = None
    weights: Annotated[tuple[float, ...], Field(min_length=1)] | None = None


class ContrastSelect(Document):
    """Latents that tell two sets of examples apart.

    `fit: l1` fits sparse logistic weights, at most `top_k`; `auroc` takes the `top_k` best single
    latents with equal weights. Below `min_score` on the held-out share the signal is unresolved.
    """

    by: Literal["contrast"]
    positive: ExampleSet
    negative: ExampleSet
    fit: Literal["l1", "auroc"] = "l1"
    top_k: Annotated[int, Field(ge=1, le=4096)] = 32
    min_score: Annotated[float, Field(ge=0.5, le=1)] = 0.85
    holdout: Share = 0.5
    max_density: Annotated[float, Field(gt=0, le=1)] = 0.05


class LabelledExamples(Document):
    """Examples that score a signal which was chosen without any."""

    positive: ExampleSet
    negative: ExampleSet
    holdout: Share = 0.5


class LabelSelect(Document):
    """Latents by what a label table says of them: at most `top_k`, the best scored first.

    `label` is looked for as a part of each label (`contains`, in any case), as all of it (`exact`)
    or as a pattern (`pattern`, RE2). `min_score` is on the scale of the table's own scores.
    `snapshot` pins the table's content. A label is no evidence: `examples` score the signal.
    """

    by: Literal["label"]
    table: Text
    snapshot: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    label: Annotated[str, Field(min_length=1, max_length=1000)]
    match: Literal["contains", "exact", "pattern"] = "contains"
    top_k: Annotated[int, Field(ge=1, le=4096)] = 8
    min_score: float | None = None
    examples: LabelledExamples | None = None


class DirectionSelect(Document):
    """A plain linear direction that tells two sets of examples apart, beside the SAE's latents.

    `diff_of_means`: from the mean of the negative examples to that of the positive; `probe`: the
    weights of a logistic regression. Below `min_score` on the held-out share the signal is
    unresolved. Values are 0 halfway between the classes and ±1 at their means.
    """

    by: Literal["direction"]
    positive: ExampleSet
    negative: ExampleSet
    fit: Literal["diff_of_means", "probe"] = "diff_of_means"
    min_score: Annotated[float, Field(ge=0.5, le=1)] = 0.85
    holdout: Share = 0.5


Select = Annotated[
    IndexSelect | ContrastSelect | LabelSelect | DirectionSelect, Field(discriminator="by")
]


class SignalDocument(Document):
    """One watched value per token: which latents, how they are pooled, in which unit."""

    select: Select
    pool: Pool = Pool.WEIGHTED
    unit: Literal["raw", "fmax", "z"] = "fmax"


class ScopeDocument(Document):
    """Which tokens are looked at: their roles (empty: all), and how many to skip at the start."""

    roles: tuple[Role, ...] = ()
    skip_first: Annotated[int, Field(ge=0)] = 0


class CalibrateDocument(Document):
    """On which benign suite `calibrated` is certified, and to which rate of false positives."""

    suite: SuiteRef
    target_fpr: Share
    confidence: Share = 0.95
    stratify: tuple[Literal["length"], ...] = ()


class ScoreDocument(Document):
    """Examples of other data sets than those that choose the rule, to score it on."""

    positive: ExampleSet
    negative: ExampleSet


class InterveneDocument(Document):
    """What is done to a signal's latents.

    Doses are multiples of the 99th percentile of their active values, or with `raw` amounts in the
    SAE's own units; below 0 a steering push is turned round, which is shown and not tested.
    """

    op: Literal["ablate", "clamp", "steer"]
    signal: Name
    doses: Annotated[tuple[float, ...], Field(min_length=1)] = (1.0,)
    unit: Literal["raw", "fmax"] = "fmax"


class MeasureDocument(Document):
    """Which outcome is measured, on which words."""

    metric: Literal["lexicon_logodds"] = "lexicon_logodds"
    target: LexiconRef
    contrast: LexiconRef


class ExpectDocument(Document):
    """What the rule claims will happen to the outcome."""

    direction: Literal["increase", "decrease"] = "increase"
    monotonic: bool = True
    q: Share = 0.05


class ConfirmDocument(Document):
    """One causal test of the rule's claim."""

    name: Name
    intervene: InterveneDocument
    measure: MeasureDocument
    expect: ExpectDocument = ExpectDocument()


class GivenDocument(Document):
    """What a unit test assumes: the calibrated threshold, percentiles by name (`refuse.p99`)."""

    calibrated: float | None = None
    percentiles: dict[PercentileName, float] = Field(default_factory=dict[str, float])


class UnitTest(Document):
    """A synthetic series and the verdict it must give; `at` counts the series' tokens from 0."""

    name: Name
    given: GivenDocument = GivenDocument()
    series: Annotated[dict[str, str], Field(min_length=1)]
    fires: bool | Literal["unknown"]
    at: Annotated[int, Field(ge=0)] | None = None
    todo: Text | None = None


class RuleTests(Document):
    """The rule's own tests: series without a model, prompts with one."""

    unit: tuple[UnitTest, ...] = ()
    should_match: tuple[Example, ...] = ()
    should_not_match: tuple[Example, ...] = ()


class RuleDocument(Document):
    """One rule."""

    id: RuleId
    rev: Annotated[int, Field(ge=1)]
    title: Text
    description: str = ""
    status: Status
    severity: Severity
    tags: tuple[Text, ...] = ()
    references: tuple[Text, ...] = ()
    false_positives: Annotated[tuple[Text, ...], Field(min_length=1)]
    signals: Annotated[dict[Name, SignalDocument], Field(min_length=1)]
    frame: Frame
    scope: ScopeDocument = ScopeDocument()
    let: dict[Name, Text] = Field(default_factory=dict[str, str])
    condition: Text
    calibrate: CalibrateDocument | None = None
    score: ScoreDocument | None = None
    confirm: tuple[ConfirmDocument, ...] = ()
    tests: RuleTests = RuleTests()


class RulesDocument(Document, json_schema_extra=_SOME_PART):
    """A rule file: rules, filters that tune rules, correlations that combine them."""

    format: Literal["auditkit-rules/1"]
    rules: Annotated[tuple[RuleDocument, ...], Field(min_length=1)] = ()
    filters: Annotated[tuple[FilterDocument, ...], Field(min_length=1)] = ()
    correlations: Annotated[tuple[CorrelationDocument, ...], Field(min_length=1)] = ()

    @model_validator(mode="after")
    def _some_part(self) -> RulesDocument:
        if not self.model_fields_set & {"rules", "filters", "correlations"}:
            message = "a rule file holds 'rules', 'filters' or 'correlations'"
            raise PydanticCustomError("nothing_given", message)
        return self
