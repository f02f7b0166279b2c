"""Calls to whichever member answers: a deadline each, the next member on failure, a new token when ours ended.

1. A call is sent over a connection that was proven: its member said which cluster it belongs to.
2. A write whose answer is lost is never sent again: it is `Ambiguous`.
3. A store whose revision went back, or of another cluster, is `Rewound`: once found, everything says so.
"""

import asyncio
from collections.abc import Sequence
from typing import Never

from grpc import aio

from controller.store.etcd import rpc_pb2 as rpc
from controller.store.etcd.access import Login, Tls
from controller.store.etcd.answers import Next, judge
from controller.store.etcd.member import (
    AUTHENTICATE,
    REQUIRE_LEADER,
    STATUS,
    Member,
    Metadata,
    Request,
    Response,
    Rpc,
    loses_data,
)
from controller.store.protocol import Ambiguous, Denied, Rewound, StoreError, Unavailable
from runtime import log

PROVE_S = 0.6  # a connection and one answer, between continents too; two dead members leave time for a third
AGAIN_S = 0.1  # until a member that failed is asked again, when no other is left
LOGINS = 2  # in one call: a token that is fresh and refused will not get better
HANDSHAKE = "TSI_"  # gRPC's names for what went wrong with TLS
NOT_ENABLED = "authentication is not enabled"

_log = log.logger("etcd")


class Away(Exception):
    """This member could not help, and wrote nothing; another may."""


class Expired(Exception):
    """Our token is no longer known; nothing was written."""


class Client:
    """The members of one cluster. `cluster` is its id, 0 before the first answer."""

    def __init__(self, members: Sequence[Member], login: Login | None) -> None:
        self.members = tuple(members)
        self.cluster = 0
        self.closed = False
        self._login = login
        self._token: str | None = None  # None: not asked for yet; empty: none is needed
        self._asking = asyncio.Lock()
        self._revision = 0  # the highest one known to have been
        self._rewound = ""
        self.under_way: set[aio.Call] = set()  # closing the store ends them

    def check(self) -> None:
        """Raises Unavailable of a closed store, Rewound of one that is no longer ours."""
        if self.closed:
            raise Unavailable("the store is closed")
        if self._rewound:
            raise Rewound(self._rewound)

    async def call(
        self, one: Rpc[Request, Response], request: Request, *, timeout: float
    ) -> Response:
        """The answer of whichever member gives one in time. Raises StoreErrors; a Compacted is without its revision."""
        now = asyncio.get_running_loop().time
        deadline = now() + timeout
        logins, last = 0, "there was no time to ask"
        while now() < deadline:
            self.check()
            member = self.next()
            try:
                return await self.attempt(member, one, request, deadline)
            except Away as away:
                last = str(away)
                await self.pause(deadline - now())
            except Expired as expired:
                logins += 1
                if logins > LOGINS:
                    raise Denied(f"{member.url}: {expired}") from expired
        raise Unavailable(f"no answer within {timeout:g} s; last: {last}")

    def next(self) -> Member:
        """The one that let us down least recently; of those that never did, the first one named."""
        return min(self.members, key=lambda member: member.failed_at)

    async def pause(self, most_s: float) -> None:
        """Give members time once all of them failed; none where one is left to ask."""
        failed_s = asyncio.get_running_loop().time() - self.next().failed_at
        if failed_s < AGAIN_S and most_s > 0:
            await asyncio.sleep(min(AGAIN_S - failed_s, most_s))

    async def attempt(
        self, member: Member, one: Rpc[Request, Response], request: Request, deadline: float
    ) -> Response:
        """Ask `member`. Raises Away, Expired or StoreErrors."""
        now = asyncio.get_running_loop().time
        if not member.proven:
            await self.prove(member, min(deadline - now(), PROVE_S))
        metadata = await self.metadata(member, deadline - now())
        left_s = max(deadline - now(), 0)
        # Half of what is left, for a read can be asked elsewhere; a write can not.
        wait_s = left_s if one.writes or len(self.members) == 1 else left_s / 2
        known = self._revision
        sent = metadata[len(REQUIRE_LEADER) :] if one.nearby else metadata
        answer = await self._ask(member, one, request, sent, wait_s)
        try:
            self._compare(member, answer.header, known if one.linear else 0)
        except (Away, Rewound) as finding:
            if one.writes:
                raise Ambiguous(f"{finding}; what was asked for was written there") from finding
            raise
        if one.linear:
            self.saw(answer.header.revision)
        if member.down:
            self.well(member)
        return answer

    async def prove(self, member: Member, timeout: float) -> None:
        """Hear from `member` which cluster it belongs to. Raises Away, Rewound."""
        self.check()
        call = member.ask(STATUS, rpc.StatusRequest(), (), timeout)
        self.under_way.add(call)
        try:
            status = await call
        except aio.AioRpcError as error:
            raise self._away(member, error) from error
        except asyncio.CancelledError:
            self.raise_if_closed()
            raise
        finally:
            self.under_way.discard(call)
        self.cluster = self.cluster or status.header.cluster_id
        self._compare(member, status.header, 0)
        if status.version != member.version and loses_data(status.version):
            _log.warning(
                "this version of etcd can lose data; take 3.5.6 or newer, or Debian 12's 3.4",
                member=member.url,
                version=status.version,
            )
        member.prove(status.version)

    async def metadata(self, member: Member, left_s: float) -> Metadata:
        """Raises Away, Denied."""
        if self._login is None:
            return REQUIRE_LEADER
        if self._token is None:
            await self._log_in(member, self._login, left_s)
        return (*REQUIRE_LEADER, ("token", self._token)) if self._token else REQUIRE_LEADER

    def expire(self, metadata: Metadata) -> None:
        """The token among `metadata` was refused: the next call asks for another, unless one was given meanwhile."""
        if (self._token or "") == dict(metadata).get("token", ""):
            self._token = None

    def saw(self, revision: int) -> None:
        """A change at `revision` was read: nothing linear is older from now on."""
        self._revision = max(self._revision, revision)

    def well(self, member: Member) -> None:
        """It did what was asked: more than answering, which a member without a leader does too."""
        if member.down:
            _log.info("etcd member serves again", member=member.url)
        member.down = False

    def let_down(self, member: Member, why: str) -> None:
        """`member` could not help: whoever comes next asks another one first."""
        if not member.down:
            _log.warning("etcd member failed", member=member.url, why=why)
        member.fail()

    def raise_if_closed(self) -> None:
        """A call that ends as cancelled because the store was closed must not end the task that waits for it."""
        task = asyncio.current_task()
        if self.closed and not (task and task.cancelling()):
            raise Unavailable("the store was closed meanwhile")

    async def keep(self, tls: Tls, every_s: float) -> Never:
        """Eternal: connections to come are made with what `tls` names, once that was renewed and is whole."""
        seen = tls.stamps
        while True:
            await asyncio.sleep(every_s)
            if (stamps := tls.stamps) == seen:
                continue
            try:
                credentials = tls.credentials()
            except (Denied, OSError) as error:
                _log.warning(
                    "the renewed certificate can't be used; the old one stays", error=str(error)
                )
                continue
            seen = stamps
            for member in self.members:
                member.renew(credentials)
            _log.info("certificate for etcd renewed", certificate=str(tls.certificate))

    async def close(self) -> None:
        """What is under way ends as Unavailable, or Ambiguous. Idempotent."""
        self.closed = True
        for call in tuple(self.under_way):
            call.cancel()
        for member in self.members:
            await member.close()

    async def _ask(
        self,
        member: Member,
        one: Rpc[Request, Response],
        request: Request,
        metadata: Metadata,
        timeout: float,
    ) -> Response:
        self.check()
        call = member.ask(one, request, metadata, timeout)
        self.under_way.add(call)
        try:
            return await call
        except aio.AioRpcError as error:
            raise self._meaning(member, error, one, metadata) from error
        except asyncio.CancelledError as error:
            try:
                self.raise_if_closed()
            except Unavailable as closed:
                raise Ambiguous(str(closed)) if one.writes else closed from error
            raise
        finally:
            self.under_way.discard(call)

    def _away(self, member: Member, error: aio.AioRpcError) -> Away:
        why = f"{error.code().name}: {error.details()}"
        if HANDSHAKE in why:
            why += "; check ca, cert and key on both sides"
        self.let_down(member, why)
        return Away(f"{member.url}: {why}")

    def _meaning(
        self, member: Member, error: aio.AioRpcError, one: Rpc[Request, Response], sent: Metadata
    ) -> StoreError | Away | Expired:
        details = error.details() or ""
        meaning = judge(error.code(), details)
        match meaning:
            case Next.LOGIN if self._login is None:
                return Denied(f"{member.url}: {details}; set user and password_file")
            case Next.LOGIN:
                self.expire(sent)
                return Expired(details)
            case Next.ELSEWHERE:
                return self._away(member, error)
            case Next.DOUBT:
                away = self._away(member, error)
                return Ambiguous(str(away)) if one.writes else away
            case _:
                return meaning

    async def _log_in(self, member: Member, login: Login, left_s: float) -> None:
        """A token for all who wait: the first asks, the others find it. Raises Away, Denied."""
        try:
            async with asyncio.timeout(left_s), self._asking:
                if self._token is not None:
                    return
                request = rpc.AuthenticateRequest(name=login.name, password=login.password)
                answer = await self._ask(member, AUTHENTICATE, request, REQUIRE_LEADER, left_s)
                self._token = answer.token
        except TimeoutError as error:
            raise Away(f"{member.url}: no token within {left_s:g} s") from error
        except Denied as refused:
            if NOT_ENABLED not in str(refused):
                raise
            self._token = ""

    def _compare(self, member: Member, header: rpc.ResponseHeader, known: int) -> None:
        """Is this the store that we knew when it stood at revision `known`? Raises Away, Rewound."""
        if header.cluster_id != self.cluster:
            member.fail()
            member.foreign = True
            why = (
                f"{member.url} belongs to the etcd cluster {header.cluster_id:x}, not to {self.cluster:x} "
                "that answered first; mend the endpoints, or restart relevo if the cluster was replaced"
            )
            _log.critical("etcd member of another cluster", member=member.url, why=why)
            if 2 * sum(one.foreign for one in self.members) <= len(self.members):
                raise Away(why)
            self._rewound = why
        elif header.revision < known:
            self._rewound = (
                f"the store was rewound: it stood at revision {known}, and {member.url} "
                f"answers from revision {header.revision}"
            )
        if self._rewound:
            raise Rewound(self._rewound)
