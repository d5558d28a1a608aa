"""GET /v1/models: the only model that is served."""

from __future__ import annotations

import time

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from orchestrator.contracts.record import Record
from services.bs.http.submission import ServedModel


class ModelCard(Record):
    """A model in OpenAI's form; `created`: Unix time at which the base station began [s]."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "wdmoe"


def router(served: ServedModel) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()
    card = ModelCard(id=served.name, created=int(time.time())).model_dump()

    @routes.get("/v1/models")
    async def _models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [card]})

    @routes.get("/v1/models/{name:path}")
    async def _model(name: str) -> JSONResponse:
        served.check_model(name)
        return JSONResponse(card)

    return routes
