"""`auditkit monitor`: prompts in, JSONL verdicts out; or a conversation under watch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from auditkit.cli.options import Dtype, FailOn, Model, Quiet, Sae


def monitor(
    model: Model,
    sae: Sae,
    lock: Annotated[Path, typer.Option(help="A rules.lock.json bound to this model and SAE.")],
    file: Annotated[
        str, typer.Argument(help="Prompts: a suite, a text file with one a line, or - for stdin.")
    ] = "-",
    chat: Annotated[
        bool, typer.Option("--chat", help="Talk with the model, and see rules fire as it replies.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Length of replies.")] = 64,
    stop: Annotated[
        bool, typer.Option("--stop", help="End a reply at the token where a rule fires.")
    ] = False,
    temperature: Annotated[
        float, typer.Option(help="With --chat: 0 takes the likeliest token.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="With --chat: seed of sampling.")] = 0,
    fail_on: FailOn = "high",
    dtype: Dtype = "float32",
    quiet: Quiet = False,
) -> None:
    """Generate replies under watch; print one JSON line per prompt, or talk with --chat.

    In a chat, tokens are coloured by the rule that is strongest at them, and a gauge per rule shows
    its score against its threshold. Ctrl-C ends a reply and keeps the conversation. Without a
    terminal a chat reads a message a line and prints plain lines.

    Examples:

      auditkit monitor prompts.txt --model ./model --sae ./sae --lock rules.lock.json

      echo "How do I bake bread?" | auditkit monitor --model ./model --sae ./sae
      --lock rules.lock.json

      auditkit monitor --chat --model ./model --sae ./sae --lock rules.lock.json --stop
    """
    from auditkit.cli.console import Bars
    from auditkit.core.errors import InvalidInput
    from auditkit.pipeline.monitor import monitor_prompts

    if chat:
        if file != "-":
            raise InvalidInput(
                f"--chat takes no file of prompts, and was given {file}",
                help="leave out --chat, or the file",
            )
        raise typer.Exit(
            _chat(model, sae, lock, dtype, max_new_tokens, stop, temperature, seed, fail_on, quiet)
        )
    with Bars(quiet=quiet) as bars:
        exit_code = monitor_prompts(
            file,
            model=model,
            sae=sae,
            lock=lock,
            dtype=dtype,
            max_new_tokens=max_new_tokens,
            stop=stop,
            fail_on=fail_on,
            emit=print,
            progress=bars,
        )
    raise typer.Exit(int(exit_code))


def _chat(
    model: str,
    sae: str,
    lock: Path,
    dtype: str,
    max_new_tokens: int,
    stop: bool,
    temperature: float,
    seed: int,
    fail_on: str,
    quiet: bool,
) -> int:
    from rich.console import Console

    from auditkit.cli.chat import face_for, run_chat
    from auditkit.cli.console import Bars
    from auditkit.pipeline.audit import parse_fail_on
    from auditkit.pipeline.monitor import chat_outcome, open_chat

    parse_fail_on(fail_on)
    with Bars(quiet=quiet) as bars:
        session = open_chat(
            model=model,
            sae=sae,
            lock=lock,
            dtype=dtype,
            max_new_tokens=max_new_tokens,
            stop=stop,
            temperature=temperature,
            seed=seed,
            progress=bars,
        )
    run_chat(session, face_for(Console(highlight=False)))
    return int(chat_outcome(session.turns, fail_on))
