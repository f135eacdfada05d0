"""The body of a chat request: what is supported, and clear refusals of the rest."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, from_json

from auditkit.core.prompts import Message, Role
from auditkit.serve.api_errors import ApiError

_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
"""OpenAI's fields that are not supported, with the values (besides null) that ask for nothing."""
_IGNORED = ("user", "metadata", "safety_identifier", "prompt_cache_key")
"""Fields that name the caller or the request and change no reply."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _TextPart(_Wire):
    type: Literal["text"]
    text: str


class _Turn(_Wire):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_TextPart]


class _StreamOptions(_Wire):
    include_usage: bool = False


Stop = Annotated[str, Field(min_length=1, max_length=256)]


class _Body(_Wire):
    model: str
    messages: list[_Turn] = Field(min_length=1)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen. Temperature 0 takes the likeliest; `stop` are texts that end."""

    temperature: float
    top_p: float
    seed: int
    max_new_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What is asked, and how the answer is wanted."""

    messages: tuple[Message, ...]
    sampling: Sampling
    stream: bool = False
    include_usage: bool = False


def parse_chat_request(body: bytes, *, served: str, max_new_tokens: int) -> ChatRequest:
    """Read a body; raises ApiError 400 (404 for another model than `served`)."""
    wire = _validated(_supported(_object(body)))
    if wire.model != served:
        raise ApiError(
            404,
            f"the model {wire.model!r} does not exist here; this server has {served!r}",
            code="model_not_found",
            param="model",
        )
    options = wire.stream_options
    return ChatRequest(
        messages=tuple(_message(turn) for turn in wire.messages),
        sampling=_sampling(wire, max_new_tokens),
        stream=bool(wire.stream),
        include_usage=options is not None and options.include_usage,
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body is not a JSON object", code="invalid_json")
    return value


def _supported(fields: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _Body.model_fields:
            kept[name] = value
        elif name in _NEUTRAL:
            if not (value is None or any(_same(value, n) for n in _NEUTRAL[name])):
                raise ApiError(
                    400,
                    f"{name} is not supported here: leave it out",
                    code="unsupported_parameter",
                    param=name,
                )
        elif name not in _IGNORED:
            raise ApiError(
                400,
                f"unknown field {name[:64]!r}; supported are {', '.join(_Body.model_fields)}",
                code="unknown_parameter",
                param=name[:64],
            )
    return kept


def _same(value: object, neutral: object) -> bool:
    # 0 == False in Python, and "n": true is no way to ask for one reply.
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _validated(fields: dict[str, Any]) -> _Body:
    try:
        return _Body.model_validate(fields)
    except ValidationError as error:
        raise _first(error.errors(include_url=False, include_input=False)) from None


def _first(details: list[ErrorDetails]) -> ApiError:
    # A union reports every branch that failed; the deepest place says most.
    detail = max(details, key=lambda d: len(d["loc"]))
    place = [str(part) for part in detail["loc"] if not str(part).startswith(("list[", "constr"))]
    param = ".".join(p for p in place if p not in ("str", "_TextPart"))
    return ApiError(400, f"{param}: {detail['msg']}", code="invalid_value", param=param)


def _message(turn: _Turn) -> Message:
    content = turn.content
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    return Message(role=_ROLES[turn.role], content=text)


def _sampling(wire: _Body, limit: int) -> Sampling:
    asked = wire.max_completion_tokens or wire.max_tokens
    if asked is not None and asked > limit:
        name = "max_completion_tokens" if wire.max_completion_tokens else "max_tokens"
        raise ApiError(
            400,
            f"{name} is {asked}; this server gives at most {limit} new tokens",
            code="invalid_value",
            param=name,
        )
    stop = (wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop or ())
    return Sampling(
        temperature=1.0 if wire.temperature is None else wire.temperature,
        top_p=1.0 if wire.top_p is None else wire.top_p,
        seed=secrets.randbits(53) if wire.seed is None else wire.seed,
        max_new_tokens=limit if asked is None else asked,
        stop=stop,
    )
