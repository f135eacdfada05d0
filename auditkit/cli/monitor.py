"""`auditkit monitor`: prompts in, JSONL verdicts out; or a conversation under watch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditkit.cli.choices import chosen
from auditkit.cli.options import Dtype, FailOn, Model, Quiet, Sae

if TYPE_CHECKING:
    from auditkit.pipeline.monitor_policy import ReplyPolicy


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
    act_on: Annotated[
        str,
        typer.Option(
            "--act-on", metavar="SEVERITY", help="With --stop: rules below it are told only."
        ),
    ] = "high",
    fail: Annotated[
        str,
        typer.Option(
            metavar="open|closed",
            help="Unknown verdicts and monitor errors: the reply passes, or is taken back.",
        ),
    ] = "open",
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

    With --stop and --fail closed, a reply is taken back where a rule that may end it is undecided,
    or where the monitor fails. The exit code is then 1, as for a rule that fired, or 4 where every
    verdict is unknown.

    Examples:

      auditkit monitor prompts.txt --model ./model --sae ./sae --lock rules.lock.json

      echo "How do I bake bread?" | auditkit monitor --model ./model --sae ./sae
      --lock rules.lock.json

      auditkit monitor --chat --model ./model --sae ./sae --lock rules.lock.json --stop
      --act-on medium --fail closed
    """
    from auditkit.cli.console import Bars
    from auditkit.core.errors import InvalidInput
    from auditkit.pipeline.monitor import monitor_prompts

    policy = _policy(stop, act_on, fail)
    if chat:
        if file != "-":
            raise InvalidInput(
                f"--chat takes no file of prompts, and was given {file}",
                help="leave out --chat, or the file",
            )
        given = (model, sae, lock, dtype, max_new_tokens, policy, temperature, seed)
        raise typer.Exit(_chat(*given, fail_on, quiet))
    with Bars(quiet=quiet) as bars:
        exit_code = monitor_prompts(
            file,
            model=model,
            sae=sae,
            lock=lock,
            dtype=dtype,
            max_new_tokens=max_new_tokens,
            policy=policy,
            fail_on=fail_on,
            emit=print,
            progress=bars,
        )
    raise typer.Exit(int(exit_code))


def _policy(stop: bool, act_on: str, fail: str) -> ReplyPolicy:
    from auditkit.core.locks import Severity
    from auditkit.monitor import OnFail
    from auditkit.pipeline.monitor_policy import ReplyPolicy

    on_fail = chosen(OnFail, "--fail", fail)
    return ReplyPolicy(
        stop=stop,
        act_on=chosen(Severity, "--act-on", act_on),
        on_unknown=on_fail,
        on_error=on_fail,
    )


def _chat(
    model: str,
    sae: str,
    lock: Path,
    dtype: str,
    max_new_tokens: int,
    policy: ReplyPolicy,
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
            policy=policy,
            temperature=temperature,
            seed=seed,
            progress=bars,
        )
    run_chat(session, face_for(Console(highlight=False)))
    return int(chat_outcome(session.turns, fail_on))
