"""A model served: its socket, its process, its end.

In: a model's name, where to listen, keys, limits, profiles.  Out: a server that runs until it is told to stop.
Cost: loading the model, before the first request is taken.

A first SIGTERM or SIGINT closes the door: what was let in is answered, whatever comes after hears 503, and the process ends
with 0. A second one ends it at once.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Unpack

from threadpoolctl import ThreadpoolController

from armorm.errors import DataError, MissingExtra, RecipeError
from armorm.model.scorer import ModelScorer
from armorm.scorers import Reading
from armorm.scoring.profile import Profile
from armorm.serving.keys import Keys
from armorm.serving.local import LocalService, run_apart
from armorm.serving.service import Limits

PRIMITIVES = "128"
"""Kernels that oneDNN keeps: it makes one for each shape of a product, a megabyte or so, and would keep 1,024 of them."""
SWITCH_SECONDS = 5e-4
"""Seconds for which a thread may keep the interpreter to itself: the decoder asks for it at each of its layers' steps."""
NICENESS = 10
"""How far the thread that talks with clients gives way to the decoder: under a flood, a tenth of a core is left to it."""


def serve(
    model: str,
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    keys: Keys = Keys(),  # noqa: B008 - frozen
    without_key: bool = False,
    profiles: Sequence[Path] = (),
    limits: Limits = Limits(),  # noqa: B008 - frozen
    log_texts: bool = False,
    **reading: Unpack[Reading],
) -> None:
    """Serve a model until a signal comes.

    `name` is what /v1/models calls it (the model's own, if not given); `profiles` are files, each named by its stem. Raises
    MissingExtra without the web packages, DataError for an address that can't be listened at, or that others reach while no key
    is needed (`without_key` says that this is meant), RecipeError for profiles that don't fit, CheckpointError for no model, and
    for one that can't score a first conversation.
    """
    try:
        from armorm.serving.app import create_app
        from armorm.serving.door import Door
        from armorm.serving.logs import tell, writing_log
        from armorm.serving.stopping import run
    except ImportError as missing:
        raise MissingExtra("a server", str(missing.name), "serve") from missing
    _settle()
    steered = read_profiles(profiles)
    listening = listen(host, port, open_to_all=bool(keys) or without_key)
    with listening:

        def load() -> LocalService:
            scorer = ModelScorer.load(model, **reading)
            for profile in steered.values():
                scorer.model.basis.bind(profile, 1)
            known = scorer.model.preference
            service = LocalService(scorer.engine, name or model, profiles=steered, preference=known, limits=limits)
            service.try_out()  # here, where what is wrong with a model ends the program as it does everywhere
            return service

        service = run_apart(load)
        door = Door(limits, keys, log_texts)

        def begun() -> None:
            _give_way()
            tell("serving", url=url_of(listening), model=service.name)

        with writing_log():
            run(create_app(service, door), listening, door, begun)


def _settle() -> None:
    # For a process that computes in one thread for days, while another one may be busy with refusing.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", PRIMITIVES)
    sys.setswitchinterval(SWITCH_SECONDS)
    # After a product, the threads of the BLAS in numpy's and scipy's wheels spin on a core for a tenth of a second.
    ThreadpoolController().select(prefix="libscipy_openblas").limit(limits=1)


def _give_way() -> None:
    # Whoever refuses a flood would else take the cores from the decoder, whose threads have begun and keep their priority.
    if sys.platform == "linux":  # elsewhere it is the whole process's
        thread = threading.get_native_id()
        with suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))


def read_profiles(files: Sequence[Path]) -> Mapping[str, Profile]:
    """Profiles by their files' stems. Raises RecipeError for one that can't be read, and for two of one name."""
    found: dict[str, Profile] = {}
    for file in files:
        if file.stem in found:
            raise RecipeError(f"{file}: there is another profile called {file.stem}: rename one")
        found[file.stem] = Profile.from_yaml(file)
    return found


def listen(host: str, port: int, *, open_to_all: bool) -> socket.socket:
    """A socket bound to an address; it takes connections when the server runs.

    Raises DataError where the address can't be had, and for one that other machines reach unless `open_to_all`.
    """
    try:
        places = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, ValueError) as error:
        raise DataError(f"host {host!r}: {error}: name an address of this machine, such as 127.0.0.1") from None
    if not open_to_all and not all(_is_this_machine(str(address[0])) for *_, address in places):
        raise DataError(
            f"host {host!r} can be reached from other machines, and no key is asked for: give one "
            "(`armorm serve --api-key-env NAME` or `armorm serve --api-key-file FILE`), or say that it is meant "
            "(`armorm serve --no-key`)"
        )
    fault: Exception | None = None
    for family, kind, protocol, _, address in places:
        found = socket.socket(family, kind, protocol)  # asyncio sends at once where it knows that the protocol is TCP
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except OSError as error:
            found.close()
            fault = error
        else:
            return found
    raise DataError(f"{host}, port {port}: {fault}: choose another port, or end what listens there")


def _is_this_machine(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def url_of(listening: socket.socket) -> str:
    """Where a bound socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
