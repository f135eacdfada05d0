"""Token by token, the text that goes out is the text of the whole reply."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.serve.reply_text import StopTexts, TextFlow
from tests.tiny import word_tokenizer

TOKENIZER = word_tokenizer()


def decode_bytes(ids: list[int]) -> str:
    return bytes(ids).decode("utf-8", "replace")


def decode_words(ids: list[int]) -> str:
    return str(TOKENIZER.decode(ids, clean_up_tokenization_spaces=False))


def flowed(flow: TextFlow, ids: list[int]) -> list[str]:
    return [*(flow.push(i) for i in ids), flow.finish()]


@settings(deadline=None)
@given(st.text("aé€😀 \ufffd"))
def test_characters_of_several_tokens_come_whole(text: str) -> None:
    ids = list(text.encode())
    pieces = flowed(TextFlow(decode_bytes, ()), ids)
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@settings(deadline=None)
@given(st.lists(st.integers(3, len(TOKENIZER) - 1), max_size=40))
def test_pieces_joined_are_the_text_of_all_tokens(ids: list[int]) -> None:
    assert "".join(flowed(TextFlow(decode_words, ()), ids)) == decode_words(ids)


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_bytes_that_are_no_text_do_not_hold_the_reply_for_ever(data: bytes) -> None:
    flow = TextFlow(decode_bytes, ())
    silent = 0
    for byte in data:
        silent = 0 if flow.push(byte) else silent + 1
        assert silent < 6


def test_special_tokens_have_no_text() -> None:
    flow = TextFlow(decode_bytes, {0})
    assert flowed(flow, [104, 0, 105]) == ["h", "", "i", ""]


def test_a_stop_text_ends_the_reply_and_is_left_out() -> None:
    stops = StopTexts(["END"])
    assert [stops.push(t) for t in ("one E", "N", "D two", "x")] == ["one ", "", "", ""]
    assert stops.met
    assert stops.finish() == ""


def test_what_only_began_like_a_stop_text_comes_at_the_end() -> None:
    stops = StopTexts(["END"])
    assert [stops.push("one E"), stops.push("N"), stops.finish()] == ["one ", "", "EN"]
    assert not stops.met


@settings(deadline=None)
@given(
    text=st.text("abc", max_size=60),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 60), max_size=12),
)
def test_stop_texts_are_met_wherever_the_pieces_are_cut(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    borders = [0, *sorted(c for c in cuts if c < len(text)), len(text)]
    watched = StopTexts(stops)
    sent = "".join(watched.push(text[a:b]) for a, b in pairwise(borders))
    sent += watched.finish()
    if not any(stop in text for stop in stops):
        assert sent == text
        assert not watched.met
        return
    assert watched.met
    assert not any(s in sent for s in stops)
    assert text.startswith(sent)
