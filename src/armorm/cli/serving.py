"""`armorm serve`: a model behind HTTP.

In: arguments.  Out: a server, until it is told to stop.  Cost: the server's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from armorm.cli.ending import keep_nothing
from armorm.cli.options import BatchTokens, Exact, MaxTokens, Model
from armorm.limits import MOST_TOKENS


def serve(
    model: Model,
    name: Annotated[str | None, typer.Option(help="What clients call the model [default: MODEL as given].")] = None,
    host: Annotated[str, typer.Option(help="The address to listen at; others than this machine's own need a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free; the log says which.")] = 8000,
    profile: Annotated[
        list[Path] | None,
        typer.Option(help="A steering profile (YAML) that requests may name by its file's stem; may be repeated."),
    ] = None,
    api_key_env: Annotated[str | None, typer.Option(help="The environment variable that holds the API key.")] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="A file of API keys, one a line.")] = None,
    no_key: Annotated[bool, typer.Option("--no-key", help="Let other machines in without a key.")] = False,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Write requests' bodies into the log.")] = False,
    batch_tokens: BatchTokens = 4096,
    max_tokens: MaxTokens = None,
    exact: Exact = False,
    max_body: Annotated[int, typer.Option(min=1024, help="Bytes of a request.")] = 4 * 2**20,
    max_answers: Annotated[int, typer.Option(min=1, help="Conversations or answers of a request.")] = 512,
    queue_tokens: Annotated[int, typer.Option(min=64, max=100 * MOST_TOKENS, help="Tokens that may wait; over it: 429.")] = 2**18,
    queue_requests: Annotated[int, typer.Option(min=1, help="Requests that may wait; over it: 429.")] = 512,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a request is given up.")] = 120.0,
    body_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a body to come in.")] = 20.0,
) -> None:
    """Serve a model over HTTP: rewards, comparisons, metrics; requests of all clients share batches."""
    keep_nothing()
    from armorm.serving.keys import Keys
    from armorm.serving.server import serve as run_server
    from armorm.serving.service import Limits

    limits = Limits(
        body_bytes=max_body,
        bodies_bytes=max(16 * max_body, 2**26),
        body_seconds=body_timeout,
        answers=max_answers,
        queue_tokens=queue_tokens,
        queue_requests=queue_requests,
        seconds=timeout,
    )
    run_server(
        model,
        name=name,
        host=host,
        port=port,
        keys=Keys.read(api_key_env, api_key_file),
        without_key=no_key,
        profiles=profile or [],
        limits=limits,
        log_texts=log_texts,
        batch_tokens=batch_tokens,
        max_tokens=max_tokens,
        exact=exact,
    )
