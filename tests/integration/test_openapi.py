"""The API's description of itself: valid, whole, and served."""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import pytest_asyncio
from openapi_spec_validator import OpenAPIV31SpecValidator

from controller.api.kinds import KINDS
from controller.api.routes import path_parameters
from tests.integration.controllers import Served, controller_served

pytestmark = pytest.mark.integration

Json = dict[str, Any]


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served, None]:
    async with controller_served(tmp_path) as controller:
        yield controller


@pytest_asyncio.fixture
async def document(served: Served) -> Json:
    status, told = await served.ask("GET", "/v1/openapi.json")
    assert status == 200
    return cast(Json, told)


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


async def test_the_description_is_valid_openapi(document: Json) -> None:
    """By OpenAPI's own schema of version 3.1, every reference and every schema in it included."""
    assert document["openapi"] == "3.1.0"
    assert not list(OpenAPIV31SpecValidator(document).iter_errors())


async def test_every_operation_says_who_may_ask_and_what_it_refuses(document: Json) -> None:
    """A role, a summary, a name of its own, its path's parameters, and problem+json for each refusal."""
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    for method, path, operation in operations(document):
        about = f"{method} {path}"
        assert operation["summary"] and operation["x-relevo-role"], about
        declared = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert declared == set(path_parameters(path)), about
        refusals = {k: v for k, v in operation["responses"].items() if k >= "400"}
        assert "400" in refusals, about
        assert ("401" in refusals) == (operation["security"] != []), about
        for status, response in refusals.items():
            if path in ("/healthz", "/readyz") and status == "503":
                continue
            assert response["content"].keys() == {"application/problem+json"}, about


async def test_a_reason_is_described_with_its_sentence(document: Json) -> None:
    """`text` stands in every reason that is answered, so it stands in the schema too."""
    assert document["components"]["schemas"]["Why"]["required"] == ["code", "values", "text"]


async def test_every_kind_of_problem_says_what_to_do(served: Served) -> None:
    """Each has a title and a remedy; only a refusal's remedy depends on its reason."""
    assert [kind.slug for kind in KINDS.values() if not kind.remedy] == ["refused"]
    status, told = await served.ask("GET", "/v1/sites?member=a&member=b")
    assert (status, told["field"], told["value"]) == (400, "member", "b")
    status, told = await served.ask("GET", "/v1/incidents?limit=0")
    assert (told["field"], told["value"]) == ("limit", "0")
    assert told["remedy"] == "`limit` is a whole number at least 1, at most 1,000."
    status, told = await served.ask("GET", "/v1/incidents?limt=1")
    assert (told["field"], told["remedy"]) == ("limt", "There are: limit, cursor, open.")
    body = msgspec.json.encode({"reason": "x", "for_s": -1})
    status, told = await served.ask("POST", "/v1/failover/pause", body=body)
    assert (status, told["field"], told["value"]) == (422, "for_s", "-1")
    assert told["remedy"] == "`for_s` is a number above 0, at most 604,800."


async def test_a_list_comes_in_pages_that_name_the_next_one(served: Served) -> None:
    """`next`, and the same as a Link, which keeps what was asked for; the last page has neither."""
    await served.apply()
    ids: list[str] = []
    path = "/v1/hosts?limit=3&lang=es"
    while path:
        status, headers, body = await served.raw("GET", path)
        told = msgspec.json.decode(body)
        assert status == 200 and len(told["hosts"]) <= 3
        ids += [host["id"] for host in told["hosts"]]
        link = headers.get("Link", "")
        assert bool(link) == (told["next"] is not None)
        path = link.partition("<")[2].partition(">")[0]
        assert not path or ("limit=3" in path and f"cursor={told['next']}" in path)
    assert ids == sorted(served.controller.mirror.fleet.hosts)
    status, told = await served.ask("GET", "/v1/hosts?cursor=abc")
    assert (status, told["field"]) == (400, "cursor")


async def test_a_number_without_a_fraction_is_whole(served: Served) -> None:
    """As JSON Schema has it: 1.0 is an integer, 1.5 is none, and neither is "1"."""
    for said, status in ((1.0, 404), (1.5, 422), ("1", 422), (1e300, 422)):
        order = {"reason": "a test", "change": said}
        assert (await served.ask("POST", "/v1/fleet/undo", said=order))[0] == status, said


async def test_a_head_is_answered_without_a_body_and_never_lasts(served: Served) -> None:
    """As a GET without its body; of a stream there is no head that would keep it open."""
    status, headers, body = await served.raw("HEAD", "/v1/status")
    assert (status, body) == (200, b"") and int(headers["Content-Length"]) > 0
    assert (await served.raw("HEAD", "/v1/events"))[0] == 405


def test_the_document_lists_every_kind_of_problem() -> None:
    """With its status; a refusal's type is the code of its reason."""
    text = (Path(__file__).parents[2] / "docs/api.md").read_text()
    for kind in KINDS.values():
        lines = [line for line in text.splitlines() if f"`{kind.slug}`" in line]
        assert kind.slug == "refused" or any(str(kind.status) in line for line in lines), kind.slug
