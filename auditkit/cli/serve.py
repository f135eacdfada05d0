"""`auditkit serve`: an OpenAI-compatible endpoint with the monitor inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from auditkit.cli.choices import chosen
from auditkit.cli.options import Dtype, Model, Quiet
from auditkit.core.errors import InvalidInput

EXTRA = frozenset({"fastapi", "starlette", "uvicorn", "prometheus_client"})


def serve(
    model: Model,
    sae: Annotated[
        list[str], typer.Option(help="A SAELens folder, or release:RELEASE/SAE_ID. Repeatable.")
    ],
    lock: Annotated[
        list[Path], typer.Option(help="Rules bound to this model and SAE; one for every --sae.")
    ],
    name: Annotated[str | None, typer.Option(help="The model's name to clients.")] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; any but loopback needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one, which is printed.")] = 8000,
    token_env: Annotated[
        str | None,
        typer.Option("--token-env", metavar="NAME", help="Variable that holds the token."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File that holds the token.")
    ] = None,
    action: Annotated[
        str,
        typer.Option(
            metavar="record|stop|replace",
            help="When a rule fires: record it, end the reply, or replace it.",
        ),
    ] = "record",
    act_on: Annotated[
        str, typer.Option("--act-on", metavar="SEVERITY", help="Rules below it are recorded only.")
    ] = "high",
    refusal: Annotated[
        str | None, typer.Option(help="The text that replaces a reply (--action replace).")
    ] = None,
    fail: Annotated[
        str,
        typer.Option(
            metavar="open|closed",
            help="Unknown verdicts and monitor errors: the reply passes, or is blocked.",
        ),
    ] = "open",
    hold: Annotated[
        str,
        typer.Option(
            metavar="token|reply", help="Of a stream, hold back the last token, or the whole reply."
        ),
    ] = "token",
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply.")] = 512,
    max_prompt_tokens: Annotated[int, typer.Option(help="Longest prompt.")] = 4096,
    max_body_kb: Annotated[int, typer.Option("--max-body-kb", help="Largest body, KiB.")] = 1024,
    concurrency: Annotated[int, typer.Option(help="Replies written at once.")] = 2,
    queue: Annotated[int, typer.Option(help="Requests that may wait; then 429.")] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds for one request, waiting too.")] = 300.0,
    drain: Annotated[int, typer.Option(help="Seconds to finish replies after a signal.")] = 30,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads per reply; cores / concurrency by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda.")] = "cpu",
    dtype: Dtype = "float32",
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Log what is asked and answered, in full.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Serve a model through an OpenAI-compatible API, every token under watch.

    Examples:

      auditkit serve --model ./model --sae ./sae --lock rules.lock.json

      auditkit serve --model ./model --sae ./sae --lock rules.lock.json --action replace
      --act-on medium --fail closed --hold reply

      AUDITKIT_TOKEN=… auditkit serve --model ./model --sae ./sae --lock rules.lock.json
      --host 0.0.0.0 --token-env AUDITKIT_TOKEN

      curl -i localhost:8000/v1/chat/completions -H 'Content-Type: application/json'
      -d '{"model": "NAME", "messages": [{"role": "user", "content": "Hello"}]}'
    """
    from auditkit.cli.console import Bars
    from auditkit.core.locks import Severity
    from auditkit.serve import settings as told
    from auditkit.serve.credentials import read_token

    settings = told.ServeSettings(
        host=host,
        port=port,
        token=read_token(variable=token_env, file=token_file),
        policy=told.Policy(
            action=chosen(told.Action, "--action", action),
            act_on=chosen(Severity, "--act-on", act_on),
            fail=chosen(told.FailPolicy, "--fail", fail),
            hold=chosen(told.Hold, "--hold", hold),
            refusal=told.REFUSAL if refusal is None else refusal,
        ),
        limits=told.Limits(
            body_bytes=max_body_kb * 1024,
            prompt_tokens=max_prompt_tokens,
            new_tokens=max_new_tokens,
            concurrency=concurrency,
            queue_length=queue,
            request_seconds=timeout,
            drain_seconds=drain,
        ),
        log_prompts=log_prompts,
    )
    try:
        from auditkit.serve.run import serve as run
    except ModuleNotFoundError as error:
        raise _without_extra(error) from None
    with Bars(quiet=quiet) as bars:
        run(
            model,
            sae,
            lock,
            settings=settings,
            name=name,
            dtype=dtype,
            device=device,
            threads=threads,
            progress=bars,
        )


def _without_extra(error: ModuleNotFoundError) -> Exception:
    if (error.name or "").partition(".")[0] not in EXTRA:
        return error
    return InvalidInput(
        f"auditkit serve needs {error.name}, which is not installed",
        help="pip install 'auditkit-sae[serve]'",
    )
