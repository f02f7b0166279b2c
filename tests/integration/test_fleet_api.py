"""The fleet as admins and control panels keep it, over the API of a whole controller."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import msgspec
import pytest
import pytest_asyncio

from controller.mirror import Mirror
from controller.store import EmbeddedStore
from deploy.demo.coop import coop as large_coop
from fleet import keys
from fleet.documents import write
from fleet.history import LOG_KEPT
from fleet.model import SiteId
from tests.integration.controllers import ADMINS, FLEET, Served, controller_served, served_over
from tests.unit.test_fleet_changes import grown

pytestmark = pytest.mark.integration

Json = dict[str, object]
SMALLER = FLEET.partition("  blog:")[0]
NEW = {"If-None-Match": "*"}
ANY = {"If-Match": "*"}


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served, None]:
    async with controller_served(tmp_path) as controller:
        yield controller


@pytest_asyncio.fixture
async def coop(served: Served) -> Served:
    await served.placed()
    return served


async def read(coop: Served, path: str) -> tuple[Json, str]:
    """What is declared there, and its ETag."""
    status, headers, body = await coop.raw("GET", path)
    assert status == 200, body
    told = msgspec.json.decode(body, type=Json)
    return cast(Json, told["declared"]), headers["ETag"]


async def put(
    coop: Served, path: str, said: object, headers: dict[str, str], *, who: str = "ana"
) -> tuple[int, Json]:
    return await coop.ask("PUT", path, said=said, headers=headers, token=ADMINS[who])


async def undo(coop: Served, **said: object) -> tuple[int, Json]:
    return await coop.ask("POST", "/v1/fleet/undo", said={"reason": "a test"} | said)


async def log(coop: Served) -> list[Json]:
    return cast(list[Json], (await coop.ask("GET", "/v1/fleet/log"))[1]["log"])


# --- compared, applied


async def test_a_diff_tells_everything_and_changes_nothing(coop: Served) -> None:
    """Each item with its fields, what apply would refuse, and the revision that it was compared with."""
    file = SMALLER.replace("tag: rosa", "tag: rosal").encode()
    before = coop.controller.mirror.revision
    status, headers, body = await coop.raw("POST", "/v1/fleet/diff?file=x.yaml", body=file)
    told = msgspec.json.decode(body)
    assert (status, headers["ETag"]) == (200, f'"{told["revision"]}"')
    assert told["changes"] == [
        {
            "what": "changed",
            "kind": "hosts",
            "id": "mx1-web-09",
            "fields": [{"field": "tag", "old": "rosa", "new": "rosal"}],
            "said": "~ host mx1-web-09: tag: rosa -> rosal",
        },
        {
            "what": "removed",
            "kind": "sites",
            "id": "blog",
            "fields": [],
            "said": "- site blog",
        },
    ]
    assert [why["code"] for why in told["refused"]] == ["fleet-removes"]
    assert "sites.blog" in told["refused"][0]["text"]
    assert coop.controller.mirror.revision == before
    assert (await coop.ask("POST", "/v1/fleet/diff", body=b"hosts: 1"))[0] == 422


async def test_a_change_between_diff_and_apply_is_a_conflict_that_names_it(coop: Served) -> None:
    """With the ETag of the diff, a file that was overtaken changes nothing; the answer says by whom."""
    file = FLEET.replace("tag: rosa", "tag: rosal").encode()
    _, headers, _ = await coop.raw("POST", "/v1/fleet/diff", body=file)
    member, tag = await read(coop, "/v1/members/huerto")
    renamed = member | {"name": "Huerto"}
    assert (await put(coop, "/v1/members/huerto", renamed, {"If-Match": tag}, who="beto"))[0] == 200
    condition = {"If-Match": headers["ETag"]}
    status, answered, body = await coop.raw("PUT", "/v1/fleet", body=file, headers=condition)
    told = msgspec.json.decode(body)
    assert (status, told["type"]) == (412, "/problems/fleet-changed")
    assert "the last change is 2, by beto" in told["detail"]
    assert answered["ETag"] == f'"{coop.controller.mirror.fleet_revision}"'
    assert coop.controller.mirror.fleet.members[member["id"]].name == "Huerto"  # type: ignore[index]
    _, headers, _ = await coop.raw("POST", "/v1/fleet/diff", body=file)
    condition = {"If-Match": headers["ETag"]}
    assert (await coop.raw("PUT", "/v1/fleet", body=file, headers=condition))[0] == 200


async def test_removing_wants_a_word_of_its_own(coop: Served) -> None:
    """A site, and a domain that no site has any more; a domain that changes its site is not removed."""
    for fewer in (SMALLER, FLEET.replace("[blog.example.org]", "[other.example.org]")):
        status, told = await coop.ask("PUT", "/v1/fleet", body=fewer.encode())
        assert (status, told["type"]) == (409, "/problems/fleet-removes"), told
        assert "blog" in cast(str, told["detail"])
    swapped = (
        FLEET.replace("[blog.example.org]", "[x]")
        .replace("[huerto.example.org]", "[blog.example.org]")
        .replace("[x]", "[huerto.example.org]")
    )
    assert (await coop.ask("PUT", "/v1/fleet", body=swapped.encode()))[0] == 200
    assert (await coop.ask("PUT", "/v1/fleet?remove=1", body=SMALLER.encode()))[0] == 200
    assert SiteId("blog") not in coop.controller.mirror.fleet.sites


async def test_a_host_that_still_serves_is_not_removed_by_any_way(coop: Served) -> None:
    """A site was moved there; neither a file, nor DELETE, nor an undo takes the host away, until it is moved."""
    spare = {
        "id": "us1-web-09",
        "tag": "nogal",
        "location": "us1",
        "addresses": ["10.2.0.19"],
    }
    assert (await put(coop, "/v1/hosts/us1-web-09", spare, NEW))[0] == 201
    order = {"to": "us1-web-09", "reason": "a test", "old_host_stopped": True, "anyway": True}
    assert (await coop.ask("POST", "/v1/sites/huerto/move", said=order))[0] == 200
    refusals = [
        await coop.ask("PUT", "/v1/fleet?remove=1", body=FLEET.encode()),
        await coop.ask("DELETE", "/v1/hosts/us1-web-09", headers=ANY),
        await undo(coop, remove=True),
    ]
    for status, told in refusals:
        assert (status, told["type"]) == (409, "/problems/host-still-serves"), told
        assert "us1-web-09 still serves the site huerto (1 in all); drain" in cast(
            str, told["detail"]
        )
    back = order | {"to": "mx1-web-01"}
    assert (await coop.ask("POST", "/v1/sites/huerto/move", said=back))[0] == 200
    assert (await coop.ask("DELETE", "/v1/hosts/us1-web-09", headers=ANY))[0] == 200


async def test_what_is_exported_changes_nothing(coop: Served) -> None:
    """The file that GET gives, compared with the fleet."""
    _, _, file = await coop.raw("GET", "/v1/fleet")
    _, told = await coop.ask("POST", "/v1/fleet/diff", body=file)
    assert (told["changes"], told["refused"], told["summary"]) == ([], [], "no change")


async def test_no_site_is_ever_on_a_host_that_was_removed_meanwhile(tmp_path: Path) -> None:
    """A move to a host and its removal at the same moment: one of them is refused, whichever is later."""
    outcomes = set()
    spare = {"id": "us1-web-09", "tag": "nogal", "location": "us1", "addresses": ["10.2.0.19"]}
    order = {"reason": "a test", "old_host_stopped": True, "anyway": True}
    async with (
        EmbeddedStore.open(tmp_path / "store.db") as store,
        served_over(store, tmp_path) as it,
    ):
        await it.placed()
        mirror = it.controller.mirror
        path = "/v1/hosts/us1-web-09"

        async def move(to: str, after_s: float = 0.0) -> int:
            await asyncio.sleep(after_s)
            said = order | {"to": to}
            return (await it.ask("POST", "/v1/sites/huerto/move", said=said))[0]

        async def remove(after_s: float = 0.0) -> int:
            await asyncio.sleep(after_s)
            return (await it.ask("DELETE", path, headers=ANY))[0]

        for n in range(-6, 12):
            await put(it, path, spare, NEW)
            async with asyncio.TaskGroup() as group:
                moving = group.create_task(move("us1-web-09", max(0, n) / 1000))
                removing = group.create_task(remove(max(0, -n) / 1000))
            outcomes.add((moving.result(), removing.result()))
            assert all(place.host in mirror.fleet.hosts for place in mirror.places.values())
            await move("mx1-web-01")
            await remove()
    assert outcomes <= {(200, 409), (409, 200), (404, 200)}
    assert len(outcomes) > 1, "the two never met in both orders"


async def test_who_does_not_lead_judges_no_change(coop: Served) -> None:
    """It may see the fleet late: everything that changes it is for the leader, and comparing is for everybody."""
    leader = coop.controller.leader
    site, _ = await read(coop, "/v1/sites/blog")
    stale = {"If-Match": '"0123456789abcdef"'}
    led, leader.leadership = leader.leadership, None
    try:
        answers = [
            await coop.ask("PUT", "/v1/fleet", body=SMALLER.encode(), headers={"If-Match": '"1"'}),
            await put(coop, "/v1/sites/blog", site, stale),
            await coop.ask("DELETE", "/v1/sites/blog", headers=stale),
            await undo(coop, change=9),
        ]
        compared, _ = await coop.ask("POST", "/v1/fleet/diff", body=SMALLER.encode())
    finally:
        leader.leadership = led
    assert [(status, told["type"]) for status, told in answers] == [
        (503, "/problems/not-leading")
    ] * 4
    assert compared == 200


async def test_a_change_that_is_made_is_never_said_not_to_be(coop: Served) -> None:
    """The lead is lost right after the commit: what is left over is swept later, and the answer is that it was done."""
    mirror, leader = coop.controller.mirror, coop.controller.leader
    led = leader.leadership

    async def lose_the_lead() -> None:
        before = mirror.fleet_revision
        while mirror.fleet_revision == before:
            await mirror.changed.after(mirror.changed.count)
        leader.leadership = None

    changed = FLEET.replace("tag: rosa", "tag: rosal").encode()
    async with asyncio.TaskGroup() as group:
        group.create_task(lose_the_lead())
        status, told = await coop.ask("PUT", "/v1/fleet", body=changed)
    assert (status, told["change"]) == (200, 2), told
    pointer = mirror.fleet_pointer
    assert pointer and mirror.chunk_digests() > pointer.digests
    leader.leadership = led
    assert (await undo(coop))[0] == 200
    pointer = mirror.fleet_pointer
    assert pointer and mirror.chunk_digests() == pointer.digests


# --- logged, undone


async def test_the_log_tells_who_when_why_and_what(coop: Served) -> None:
    """Files, single items and undos alike, newest first, each with all that it did on demand."""
    member, tag = await read(coop, "/v1/members/huerto")
    path = "/v1/members/huerto?reason=new%20name"
    await put(coop, path, member | {"name": "Huerto"}, {"If-Match": tag}, who="beto")
    assert (await undo(coop))[0] == 200
    entries = await log(coop)
    assert [(e["change"], e["who"], e["reason"], e["undoes"]) for e in entries] == [
        (3, "ana", "a test", 2),
        (2, "beto", "new name", None),
        (1, "ana", "", None),
    ]
    assert entries[1]["first"] == ["~ member huerto: name: Huerto Ñandú -> Huerto"]
    _, first = await coop.ask("GET", "/v1/fleet/log/1")
    assert len(cast(list[Json], first["changes"])) == 10
    for nothing in ("0", "4", "-1", "x", "1" * 30):
        assert (await coop.ask("GET", f"/v1/fleet/log/{nothing}"))[0] == 404
    audit = [entry.what for entry in coop.controller.mirror.audit.values()]
    assert audit == ["apply fleet", "change member", "undo change 2"]


async def test_an_undo_leaves_alone_what_others_did_since(coop: Served) -> None:
    """The site that change 2 altered is as before; the host that change 3 altered stays so; and back again."""
    site, tag = await read(coop, "/v1/sites/blog")
    await put(coop, "/v1/sites/blog", site | {"standbys": []}, {"If-Match": tag})
    host, tag = await read(coop, "/v1/hosts/mx1-web-09")
    await put(coop, "/v1/hosts/mx1-web-09", host | {"tag": "rosal"}, {"If-Match": tag})
    status, told = await undo(coop, change=2)
    assert (status, told["summary"], told["change"]) == (200, "sites: 1 changed", 4)
    assert (await read(coop, "/v1/sites/blog"))[0] == site
    assert (await read(coop, "/v1/hosts/mx1-web-09"))[0]["tag"] == "rosal"
    status, told = await undo(coop, change=2)
    assert (status, told["type"]) == (409, "/problems/undone-already")
    assert (await undo(coop))[0] == 200
    assert (await read(coop, "/v1/sites/blog"))[0]["standbys"] == []


async def test_an_undo_in_whose_way_others_are_names_them(coop: Served) -> None:
    """The same site changed twice since; a host that a later site needs. Nothing is changed."""
    site, _ = await read(coop, "/v1/sites/blog")
    spare = {"id": "us1-web-09", "tag": "nogal", "location": "us1", "addresses": ["10.2.0.19"]}
    await put(coop, "/v1/hosts/us1-web-09", spare, NEW)  # change 2
    for loss in (1.0, 2.0):  # changes 3 and 4
        await put(coop, "/v1/sites/blog", site | {"max_data_loss_s": loss}, ANY)
    await put(
        coop,
        "/v1/sites/huerto",
        (await read(coop, "/v1/sites/huerto"))[0] | {"standbys": ["us1-web-09"]},
        ANY,
    )
    before = coop.controller.mirror.fleet_revision
    status, told = await undo(coop, change=3)
    assert (status, told["type"]) == (409, "/problems/undo-conflict")
    assert "sites.blog changed again since, by change 4" in cast(str, told["detail"])
    status, told = await undo(coop, change=2, remove=True)
    assert (status, told["type"]) == (409, "/problems/undo-leaves"), told
    assert "sites.huerto, changed since by change 5" in cast(str, told["detail"])
    assert (await undo(coop, change=9))[0] == 404
    assert coop.controller.mirror.fleet_revision == before


async def test_undoing_an_addition_is_a_removal(coop: Served) -> None:
    """It wants the same word, leaves a tombstone, and is undone by the next undo."""
    site, _ = await read(coop, "/v1/sites/blog")
    added = site | {"id": "new", "domains": ["new.example.org"]}
    assert (await put(coop, "/v1/sites/new", added, NEW))[0] == 201
    assert (await undo(coop))[1]["type"] == "/problems/fleet-removes"
    assert (await undo(coop, remove=True))[0] == 200
    stones = coop.controller.mirror.tombstones.values()
    assert [stone.sites for stone in stones] == [("new",)]
    assert (await undo(coop))[0] == 200
    assert (await read(coop, "/v1/sites/new"))[0]["domains"] == ["new.example.org"]


async def test_the_log_keeps_a_hundred_changes_and_what_they_need(coop: Served) -> None:
    """Older entries and their details leave the store; a fresh mirror reads the same log."""
    member, _ = await read(coop, "/v1/members/huerto")
    for n in range(LOG_KEPT + 5):
        status, _ = await put(coop, "/v1/members/huerto", member | {"name": f"Huerto {n}"}, ANY)
        assert status == 200
    entries = await log(coop)
    assert [entry["change"] for entry in entries] == list(range(LOG_KEPT + 6, 6, -1))
    mirror = coop.controller.mirror
    named = {digest for entry in mirror.fleet_log.values() for digest in entry.details}
    assert mirror.detail_digests() == named
    assert (await undo(coop, change=7))[1]["type"] == "/problems/undo-conflict"
    fresh = Mirror()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        reading = group.create_task(fresh.follow(coop.controller.store))
        while not fresh.ready:
            await fresh.changed.after(fresh.changed.count)
        reading.cancel()
    assert fresh.fleet_log == mirror.fleet_log


async def test_a_change_whose_details_are_gone_is_told_and_not_undone(coop: Served) -> None:
    """Its entry stays; what it did can't be told, and is not guessed."""
    await coop.controller.store.delete(keys.FLEET_DETAILS, prefix=True)
    await coop.until(lambda: not coop.controller.mirror.detail_digests())
    for answer in (await coop.ask("GET", "/v1/fleet/log/1"), await undo(coop, remove=True)):
        assert (answer[0], answer[1]["type"]) == (409, "/problems/details-gone")
    assert [entry["change"] for entry in await log(coop)] == [1]


async def test_a_broken_fleet_keeps_its_log(coop: Served) -> None:
    """A controller that starts on a store with a chunk lost still knows what was changed last."""
    store = coop.controller.store
    await store.delete(keys.CHUNKS, prefix=True)
    fresh = Mirror()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        reading = group.create_task(fresh.follow(store))
        while not fresh.ready:
            await fresh.changed.after(fresh.changed.count)
        reading.cancel()
    assert fresh.fleet_broken
    assert list(fresh.fleet_log) == [1]


async def test_ten_thousand_sites_are_applied_logged_and_undone(served: Served) -> None:
    """Within the store's limits for each transaction, both ways; nothing but the log stays behind."""
    file = write(grown(large_coop(), 10)).encode()
    query = "?remove=1&much=1"
    async with asyncio.timeout(60):
        status, told = await served.ask("PUT", f"/v1/fleet{query}", body=file)
        assert status == 200, told
        assert "sites: 10500 added" in cast(str, told["summary"])
        await served.until(lambda: len(served.controller.mirror.places) == 10_500)
        status, told = await undo(served, remove=True, much=True)
        assert status == 200, told
    mirror = served.controller.mirror
    assert not mirror.fleet.sites
    assert not mirror.chunk_digests()
    assert len(mirror.fleet_log) == 2


# --- single items


async def test_a_control_panel_adds_changes_and_removes_a_site(coop: Served) -> None:
    """Read, changed with the ETag, read again; each answer carries the ETag for the next step."""
    site, tag = await read(coop, "/v1/sites/blog")
    added = site | {"id": "tienda", "domains": ["Ñandú.example.org", "tienda.example.org"]}
    status, headers, _ = await coop.raw("PUT", "/v1/sites/tienda", said=added, headers=NEW)
    assert (status, headers["Location"]) == (201, "/v1/sites/tienda")
    declared, etag = await read(coop, "/v1/sites/tienda")
    assert etag == headers["ETag"] != tag
    assert declared["domains"] == ["xn--and-6ma2c.example.org", "tienda.example.org"]
    changed = declared | {"domains": ["tienda.example.org"], "mode": "manual"}
    condition = {"If-Match": etag}
    status, headers, body = await coop.raw(
        "PUT", "/v1/sites/tienda?reason=why", said=changed, headers=condition
    )
    told = msgspec.json.decode(body)
    assert (status, told["summary"]) == (200, "sites: 1 changed")
    assert told["revision"] == coop.controller.mirror.fleet_revision
    assert (await read(coop, "/v1/sites/tienda"))[1] == headers["ETag"] != etag
    again, _, body = await coop.raw("PUT", "/v1/sites/tienda", said=changed, headers=condition)
    assert again == 412
    same = {"If-Match": headers["ETag"]}
    status, told = await put(coop, "/v1/sites/tienda", changed, same)
    assert (status, told["change"], told["summary"]) == (200, None, "no change")
    assert (await coop.ask("DELETE", "/v1/sites/tienda", headers=same))[0] == 200
    assert (await coop.ask("GET", "/v1/sites/tienda"))[0] == 404
    assert (await coop.ask("DELETE", "/v1/sites/tienda", headers=same))[0] == 404


@pytest.mark.parametrize(
    ("method", "headers", "status", "slug"),
    [
        ("PUT", {}, 428, "precondition-required"),
        ("DELETE", {}, 428, "precondition-required"),
        ("PUT", {"If-Match": "*", "If-None-Match": "*"}, 428, "precondition-required"),
        ("DELETE", {"If-None-Match": "*"}, 428, "precondition-required"),
        ("PUT", {"If-Match": "yesterday"}, 400, "bad-request"),
        ("PUT", {"If-Match": '"0123456789abcdef"'}, 412, "item-changed"),
        ("DELETE", {"If-Match": '"0123456789abcdef"'}, 412, "item-changed"),
        ("PUT", {"If-None-Match": "*"}, 412, "item-exists"),
    ],
)
async def test_a_change_says_what_it_was_made_for(
    coop: Served, method: str, headers: dict[str, str], status: int, slug: str
) -> None:
    """Without a condition nothing is changed; with another one than holds the present ETag is told."""
    site, tag = await read(coop, "/v1/sites/blog")
    before = coop.controller.mirror.fleet_revision
    said = site | {"standbys": []} if method == "PUT" else None
    got, answered, body = await coop.raw(method, "/v1/sites/blog", said=said, headers=headers)
    assert (got, msgspec.json.decode(body)["type"]) == (status, f"/problems/{slug}")
    assert answered.get("ETag") == (tag if status == 412 else None)
    assert coop.controller.mirror.fleet_revision == before


async def test_an_item_that_is_gone_is_not_made_anew_by_a_change(coop: Served) -> None:
    """If-Match means something that is there."""
    site, tag = await read(coop, "/v1/sites/blog")
    assert (await coop.ask("DELETE", "/v1/sites/blog", headers={"If-Match": tag}))[0] == 200
    for condition in ({"If-Match": tag}, ANY):
        status, told = await put(coop, "/v1/sites/blog", site, condition)
        assert (status, told["type"]) == (412, "/problems/item-gone")


async def test_of_two_panels_one_changes_and_the_other_is_told(coop: Served) -> None:
    """Both have read the same; both send at once."""
    site, tag = await read(coop, "/v1/sites/blog")
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                put(coop, "/v1/sites/blog", site | {"max_data_loss_s": n}, {"If-Match": tag})
            )
            for n in (1.0, 2.0)
        ]
    assert sorted(task.result()[0] for task in tasks) == [200, 412]


@pytest.mark.parametrize(
    ("path", "change", "field", "value"),
    [
        ("sites/blog", {"home": "mx1-web-99"}, "sites.blog.home", "mx1-web-99"),
        ("sites/blog", {"member": "nobody"}, "sites.blog.member", "nobody"),
        ("sites/blog", {"domains": ["https://x.org/"]}, "sites.blog.domains[0]", "https://x.org/"),
        (
            "sites/blog",
            {"domains": ["HUERTO.example.org."]},
            "sites.blog.domains[0]",
            "huerto.example.org",
        ),
        ("sites/blog", {"domains": []}, "sites.blog.domains", None),
        ("hosts/mx1-web-09", {"roles": ["edge"]}, "sites.blog.home", "mx1-web-09"),
        (
            "hosts/mx1-web-09",
            {"addresses": ["10.1.0.300"]},
            "hosts.mx1-web-09.addresses[0]",
            "10.1.0.300",
        ),
        ("hosts/mx1-edge-01", {"roles": ["web"]}, "sites.huerto.route", None),
        ("members/huerto", {"email": "nobody"}, "members.huerto.email", "nobody"),
    ],
)
async def test_the_whole_fleet_is_judged_with_the_change_in_it(
    coop: Served, path: str, change: Json, field: str, value: str | None
) -> None:
    """What does not fit is told with field, value and remedy, also where it is another item that suffers."""
    item, tag = await read(coop, f"/v1/{path}")
    status, told = await put(coop, f"/v1/{path}", item | change, {"If-Match": tag})
    assert (status, told["type"]) == (422, "/problems/bad-item"), told
    assert (told["field"], told.get("value")) == (field, value)
    assert told["remedy"] and told["problems"]
    assert (await read(coop, f"/v1/{path}"))[1] == tag


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": "other"}, "id"),
        ({"mode": "automatik"}, "mode"),
        ({"hom": "x"}, "hom"),
        ({"max_data_loss_s": -1}, "max_data_loss_s"),
        ({"check": {"path": "x"}}, "check.path"),
    ],
)
async def test_a_body_that_is_no_item_is_told_its_field(
    coop: Served, change: Json, field: str
) -> None:
    """Types and names are those of the fleet file."""
    site, tag = await read(coop, "/v1/sites/blog")
    status, told = await put(coop, "/v1/sites/blog", site | change, {"If-Match": tag})
    assert (status, told["type"], told["field"]) == (422, "/problems/invalid-body", field), told


@pytest.mark.parametrize(
    ("path", "by"),
    [
        ("hosts/mx1-web-01", "sites.huerto.home"),
        ("hosts/us1-web-01", "sites.huerto.standbys[0]"),
        ("hosts/mx1-edge-01", "sites.huerto.route"),
        ("members/huerto", "sites.huerto.member"),
    ],
)
async def test_what_others_need_is_not_removed(coop: Served, path: str, by: str) -> None:
    """The answer names who needs it."""
    status, told = await coop.ask("DELETE", f"/v1/{path}", headers=ANY)
    assert status == 409
    assert told["type"] in ("/problems/still-needed", "/problems/host-still-serves")
    if told["type"] == "/problems/still-needed":
        assert by in cast(str, told["detail"])


async def test_members_come_and_go(coop: Served) -> None:
    """Listed with how many sites they have; one without sites can be removed."""
    added = {"id": "tierra", "name": "Tierra", "language": "en"}
    assert (await put(coop, "/v1/members/tierra", added, NEW))[0] == 201
    _, told = await coop.ask("GET", "/v1/members")
    assert told["members"] == [
        {"id": "huerto", "name": "Huerto Ñandú", "sites": 2},
        {"id": "tierra", "name": "Tierra", "sites": 0},
    ]
    _, told = await coop.ask("GET", "/v1/members/huerto")
    assert told["sites"] == ["blog", "huerto"]
    assert (await coop.ask("DELETE", "/v1/members/tierra", headers=ANY))[0] == 200
    assert (await coop.ask("GET", "/v1/members/tierra"))[0] == 404


async def test_a_new_home_moves_nothing(coop: Served) -> None:
    """A change of the fleet is no order to move: the site goes on being served where it is, also after an undo."""
    site, tag = await read(coop, "/v1/sites/blog")
    moved = site | {"home": "us1-web-01", "standbys": ["mx1-web-01"]}
    assert (await put(coop, "/v1/sites/blog", moved, {"If-Match": tag}))[0] == 200
    mirror = coop.controller.mirror
    for home in ("us1-web-01", "mx1-web-09"):
        await coop.until(
            lambda home=home: (
                SiteId("blog") in mirror.placements[home].sites  # type: ignore[misc]
                if home in mirror.placements
                else False
            )
        )
        assert mirror.places[SiteId("blog")].host == "mx1-web-09"
        assert not mirror.incidents
        if home == "us1-web-01":
            assert (await undo(coop))[0] == 200
