"""Prompts to tokens, each with its role, its message, its text and why it may be left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jinja2.exceptions import TemplateError

from auditkit.core.errors import InvalidInput
from auditkit.core.prompts import Prompt, Role
from auditkit.core.tokens import TokenizedPrompt, TokenMask
from auditkit.models.chat_skeleton import (
    Region,
    Skeleton,
    build_skeleton,
    chat_turns,
    locate_regions,
)

_WINDOW = 8
"""Tokens of context that a token's text is decoded in."""


@dataclass(frozen=True, slots=True)
class _Token:
    id: int
    text: str
    role: Role
    message: int
    mask: TokenMask
    generated: bool


@dataclass(slots=True)
class Renderer:
    """Renders prompts with one tokenizer and its chat template."""

    tokenizer: Any
    special_ids: frozenset[int] = field(init=False)
    _special_texts: tuple[str, ...] = field(init=False)
    _skeletons: dict[tuple[Role, ...], Skeleton] = field(init=False)

    def __post_init__(self) -> None:
        if not self.tokenizer.is_fast:
            raise InvalidInput(
                "the model's tokenizer cannot say which characters a token stands for",
                help="a fast tokenizer (tokenizer.json) is needed",
            )
        added = {i: t for i, t in self.tokenizer.added_tokens_decoder.items() if t.special}
        special = {*added, *self.tokenizer.all_special_ids}
        named = {getattr(self.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        # An unknown word is still somebody's word.
        self.special_ids = frozenset(special - ({self.tokenizer.unk_token_id} - named))
        self._special_texts = tuple(self.tokenizer.convert_ids_to_tokens(sorted(self.special_ids)))
        self._skeletons = {}

    def render(
        self, prompt: Prompt, *, generation_prompt: bool = False, max_tokens: int | None = None
    ) -> TokenizedPrompt:
        """Tokenize `prompt`, through the chat template unless it is a single text message.

        Truncates on the right to `max_tokens`; a generation prompt is kept at the end. Raises
        InvalidInput for a prompt without messages, text mixed with chat, no chat template, or a
        template that refuses the messages.
        """
        if max_tokens is not None and max_tokens < 1:
            raise InvalidInput(f"max_tokens is at least 1, not {max_tokens}")
        roles = tuple(message.role for message in prompt.messages)
        if not roles:
            raise InvalidInput(f"prompt {prompt.id!r} has no messages")
        if roles == (Role.TEXT,):
            return _columns(prompt.id, self._text_tokens(prompt)[:max_tokens])
        if Role.TEXT in roles:
            raise InvalidInput(
                f"prompt {prompt.id!r} mixes a message of role text with others",
                help="role text stands alone: plain text outside any chat",
            )
        tokens, opening = self._chat_tokens(prompt, roles, generation_prompt)
        if max_tokens is not None and len(tokens) + len(opening) > max_tokens:
            if len(opening) >= max_tokens:
                raise InvalidInput(
                    f"prompt {prompt.id!r}: max_tokens {max_tokens} leaves no room beside the "
                    f"generation prompt of {len(opening)} tokens"
                )
            tokens = tokens[: max_tokens - len(opening)]
        return _columns(prompt.id, tokens + opening)

    def extend(self, prompt: TokenizedPrompt, ids: list[int]) -> TokenizedPrompt:
        """`prompt` followed by the model's own tokens: role assistant, marked generated.

        They carry on the last message where that is the assistant's (a generation prompt
        included); plain text stays text.
        """
        last = prompt.roles[-1]
        role = last if last in (Role.ASSISTANT, Role.TEXT) else Role.ASSISTANT
        message = prompt.messages[-1] + (role is not last)
        added: list[_Token] = []
        for n, id_ in enumerate(ids):
            window = [*prompt.ids[-_WINDOW:], *ids[:n]][-_WINDOW:]
            text = self._written([*window, id_])[len(self._written(window)) :]
            mask = TokenMask.SPECIAL if id_ in self.special_ids else TokenMask.NONE
            added.append(_Token(id_, text, role, message, mask, True))
        return _columns(prompt.prompt_id, _rows(prompt) + added)

    def decode(self, ids: list[int]) -> str:
        """The text of `ids`, special tokens included."""
        return str(
            self.tokenizer.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def _written(self, ids: list[int]) -> str:
        # A character spread over several tokens is shown with the token that completes it.
        return self.decode(ids).rstrip("\ufffd")

    def is_special(self, text: str) -> bool:
        """Is the text nothing but special tokens and white space?"""
        for special in self._special_texts:
            text = text.replace(special, "")
        return not text.strip()

    def render_chat(self, turns: list[dict[str, str]], generation_prompt: bool) -> str:
        """The chat template's text; InvalidInput where it refuses the messages."""
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=generation_prompt
                )
            )
        except TemplateError as error:
            order = ", ".join(turn["role"] for turn in turns)
            raise InvalidInput(
                f"the model's chat template refuses messages in the order {order}: {error}",
                help="change the roles to what the template allows",
            ) from error

    def _text_tokens(self, prompt: Prompt) -> list[_Token]:
        (message,) = prompt.messages
        content = message.content
        region = Region(start=0, end=len(content), role=Role.TEXT, message=0, is_content=True)
        tokens = self._tokens_of(content, [region], (message.generated,))
        bos = self.tokenizer.bos_token_id
        if bos is not None:
            mask = TokenMask.BOS | TokenMask.SPECIAL
            tokens.insert(0, _Token(bos, self.tokenizer.bos_token, Role.TEXT, 0, mask, False))
        if not tokens:
            raise InvalidInput(f"prompt {prompt.id!r} has no tokens: its text is empty")
        return tokens

    def _chat_tokens(
        self, prompt: Prompt, roles: tuple[Role, ...], generation_prompt: bool
    ) -> tuple[list[_Token], list[_Token]]:
        """Tokens of the messages, and tokens of the generation prompt if one is wanted."""
        if self.tokenizer.chat_template is None:
            raise InvalidInput(
                f"prompt {prompt.id!r} is a chat, and the model's tokenizer has no chat template",
                help="give a single message of role text, or a model with a chat template",
            )
        contents = [message.content for message in prompt.messages]
        turns = chat_turns(roles, contents)
        text = self.render_chat(turns, False)
        regions = self._regions(prompt, roles, contents, text)
        generated = tuple(message.generated for message in prompt.messages)
        if not generation_prompt:
            return self._tokens_of(text, regions, generated), []
        longer = self.render_chat(turns, True)
        if not longer.startswith(text):
            raise InvalidInput("the chat template changes earlier text for a generation prompt")
        opening = Region(
            start=len(text),
            end=len(longer),
            role=Role.ASSISTANT,
            message=len(roles),
            is_content=False,
        )
        tokens = self._tokens_of(longer, [*regions, opening], generated)
        cut = next((i for i, t in enumerate(tokens) if t.message == len(roles)), len(tokens))
        return tokens[:cut], tokens[cut:]

    def _regions(
        self, prompt: Prompt, roles: tuple[Role, ...], contents: list[str], text: str
    ) -> list[Region]:
        skeleton = self._skeletons.get(roles)
        if skeleton is None:
            skeleton = build_skeleton(roles, self.render_chat, self.is_special)
            self._skeletons[roles] = skeleton
        regions = locate_regions(text, skeleton, contents)
        if regions is None:
            raise InvalidInput(
                f"prompt {prompt.id!r}: the chat template rewrites what the messages say, so "
                "their tokens cannot be told from the template's",
                help="a content may be trimmed, not changed; look for markup that the template "
                "gives a meaning (such as </think>) inside the messages",
            )
        return regions

    def _tokens_of(
        self, text: str, regions: list[Region], generated: tuple[bool, ...]
    ) -> list[_Token]:
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        tokens: list[_Token] = []
        at = shown = 0
        bos = self.tokenizer.bos_token_id
        for id_, (start, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
            at, region, is_content = _region_of(text, start, end, regions, at)
            mask = TokenMask.NONE if is_content else TokenMask.TEMPLATE
            if id_ in self.special_ids:
                mask |= TokenMask.SPECIAL
            if not tokens and id_ == bos:
                mask |= TokenMask.BOS
            own = is_content and generated[region.message]
            piece = text[shown : max(shown, end)]
            tokens.append(_Token(id_, piece, region.role, region.message, mask, own))
            shown = max(shown, end)
        return tokens


def _region_of(
    text: str, start: int, end: int, regions: list[Region], at: int
) -> tuple[int, Region, bool]:
    """The region of characters [start, end), its index, and whether they count as content.

    `at` is the index found for the token before. A token that straddles a border counts as
    template, unless all that sticks out of the content is white space.
    """
    while at + 1 < len(regions) and regions[at].end <= start:
        at += 1
    touched = [at]
    while touched[-1] + 1 < len(regions) and regions[touched[-1]].end < end:
        touched.append(touched[-1] + 1)
    if len(touched) == 1:
        return at, regions[at], regions[at].is_content

    def says_something(region: Region) -> bool:
        return bool(text[max(start, region.start) : min(end, region.end)].strip())

    speaking = [regions[i] for i in touched if says_something(regions[i])]
    if len(speaking) == 1 and speaking[0].is_content:
        return at, speaking[0], True
    template = [regions[i] for i in touched if not regions[i].is_content]
    return at, template[0] if template else regions[at], not template


def _columns(prompt_id: str, tokens: list[_Token]) -> TokenizedPrompt:
    return TokenizedPrompt(
        prompt_id=prompt_id,
        ids=tuple(token.id for token in tokens),
        texts=tuple(token.text for token in tokens),
        roles=tuple(token.role for token in tokens),
        messages=tuple(token.message for token in tokens),
        masks=tuple(token.mask for token in tokens),
        generated=tuple(token.generated for token in tokens),
    )


def _rows(prompt: TokenizedPrompt) -> list[_Token]:
    return [
        _Token(*row)
        for row in zip(
            prompt.ids,
            prompt.texts,
            prompt.roles,
            prompt.messages,
            prompt.masks,
            prompt.generated,
            strict=True,
        )
    ]
