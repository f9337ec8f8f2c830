"""The page at `/`: its files, and the routes that it needs beside those that score.

In: a service that tells its `basis` and the profile that is baked in.  Out: a router: `/`, `/page/FILE`, `/v1/basis`,
`/v1/profiles/check`, `/v1/audit`.  Cost: a few files in memory; none of these but the audit asks the decoder.

The files are plain HTML, CSS and JavaScript: no build, nothing fetched from elsewhere. Whatever people or models wrote is put
into the page as text; the headers forbid the rest (inline scripts and styles, other origins, markup from strings, frames).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, Protocol, runtime_checkable

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from armorm.errors import RecipeError
from armorm.scoring.profile import Profile
from armorm.scoring.steer import Steering, nuisances_in
from armorm.scoring.table import Basis
from armorm.serving import auditing
from armorm.serving.bodies import require_small
from armorm.serving.described import BasisReply, ProfileReply, answers, refusals
from armorm.serving.faults import own_router
from armorm.serving.replies import Reply, fault_reply, request_id
from armorm.small_files import yaml_text, yaml_values

__all__ = ["OPEN", "Shown", "router"]

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = (
    "index.html",
    "page.css",
    "icon.svg",
    "page.js",
    "ask.js",
    "drawing.js",
    "link.js",
    "profiles.js",
    "telling.js",
    "weighing.js",
)
OPEN = ("/", "/page/")
"""Where the page's own files are, which hold nothing of a model: these need no API key, for the page asks for one itself."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@runtime_checkable
class Shown(auditing.Scoring, Protocol):
    """What the page needs of a service: `basis` and `profile` (the one that is baked in) as a scoring model has them."""

    @property
    def profiles(self) -> Mapping[str, Profile]: ...

    @property
    def profile(self) -> Profile | None: ...

    @property
    def basis(self) -> Basis: ...


class ProfileBody(BaseModel):
    """A profile to check: as keys and values, or as the `text` of a YAML file; `name` is used where it says none."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"profile": {"name": "plain", "description": "The gate as it is."}}]}
    )

    profile: dict[str, Any] | None = None
    text: str | None = None
    name: str = "unnamed"


def router(service: Shown) -> APIRouter:
    """The page and its routes, over a service."""
    routes = own_router()
    folder = resources.files(__package__)
    files = {name: folder.joinpath(name).read_bytes() for name in FILES}

    def file(name: str) -> Response:
        return Response(files[name], media_type=KINDS[name[name.rindex(".") :]], headers=HEADERS)

    @routes.head("/", include_in_schema=False)
    @routes.get("/", include_in_schema=False)
    async def page() -> Response:
        return file("index.html")

    @routes.head("/page/{name}", include_in_schema=False)
    @routes.get("/page/{name}", include_in_schema=False)
    async def part(name: str, request: Request) -> Response:
        if name not in files:
            message = f"the page has no such file; it has {', '.join(FILES)}"
            return fault_reply(404, "no-such-route", message, request_id(request.scope))
        return file(name)

    @routes.get(
        "/v1/basis",
        tags=["own"],
        summary="What anyone needs to weigh rewards anew without the decoder",
        responses=answers(BasisReply) | refusals(),
    )
    async def basis() -> Reply:
        return Reply(basis_of(service))

    @routes.post(
        "/v1/profiles/check",
        tags=["own"],
        summary="Check a steering profile against the model: every fault at once",
        responses=answers(ProfileReply) | refusals((400, 415, 422)),
    )
    async def check(body: ProfileBody) -> Reply:
        profile = await run_in_threadpool(read_profile, body, service.basis)
        facts = profile.to_json()
        return Reply({"profile": facts, "yaml": yaml_text(facts)})

    routes.include_router(auditing.router(service))
    return routes


def basis_of(service: Shown) -> dict[str, Any]:
    """Objectives with their scales, computed nuisances, the debiasing's matrix [k+m k], profiles by name and the one baked in.

    A row's score is Σ (transform · gate) · terms; which nuisances a profile can name stands in `nuisances`.
    """
    basis, baked = service.basis, service.profile
    return {
        "model": service.name,
        "objectives": [{"name": o.name, "min": o.min, "max": o.max, "direction": str(o.direction)} for o in basis.objectives],
        "computed": list(basis.computed),
        "transform": basis.transform.double().tolist(),
        "nuisances": list(nuisances_in(basis.transform, basis.objectives.names, basis.computed)),
        "profiles": {name: profile.to_json() for name, profile in service.profiles.items()},
        "profile": None if baked is None else baked.to_json(),
    }


def read_profile(body: ProfileBody, basis: Basis) -> Profile:
    """The profile of a request, which fits the model. Raises RecipeError with every fault."""
    if (body.profile is None) == (body.text is None):
        raise RecipeError("give the profile as `profile` (keys and values) or as `text` (YAML): one of them")
    require_small(json.dumps(body.profile) if body.text is None else body.text)
    facts = body.profile if body.text is None else yaml_values(body.text, body.name)
    named = {"name": body.name, **facts} if isinstance(facts, Mapping) else facts
    profile = Profile.from_json(named, where=body.name)
    Steering.of(profile, basis.objectives.names, basis.computed, basis.transform)
    return profile
