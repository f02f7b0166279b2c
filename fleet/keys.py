"""Where each thing lives in the store: every key, once."""

from fleet.model import ControllerId, HostId, IncidentId, SiteId, ZoneName

PREFIX = b"/relevo/v1/"

STORE = PREFIX + b"store"  # StoreId: cluster id and generation
FLEET = PREFIX + b"fleet/current"  # FleetPointer: makes staged chunks true
CHUNKS = PREFIX + b"fleet/chunks/"  # + sha256 of the content
FLEET_LOG = PREFIX + b"fleet/log/"  # + number, eight digits: LoggedChange
FLEET_DETAILS = PREFIX + b"fleet/details/"  # + sha256 of a piece of what a change did
PLACEMENTS = PREFIX + b"placements/"  # + home host: Placements
COMMITS = PREFIX + b"commits/"  # + random name of a commit that orders are made from (rule R2)
SWITCHES = PREFIX + b"switches"  # Switches
BUDGET = PREFIX + b"budget"  # Budget
DRAINS = PREFIX + b"drains/"  # + host: Note
REFUSALS = (
    PREFIX + b"refusals/"
)  # + host: Note; a person said that nothing automatic moves its sites
WITHDRAWN = PREFIX + b"withdrawn/"  # + edge: Note; it is in no record set
KNOWN = PREFIX + b"known/"  # + host: Known
DNS = PREFIX + b"dns/"  # + zone: ZoneIntent
INCIDENTS = PREFIX + b"incidents/"  # + id: Incident
HOLDS = PREFIX + b"holds/"  # + id: Hold
TOMBSTONES = PREFIX + b"tombstones/"  # + id: Tombstone
AUDIT = PREFIX + b"audit/"  # + id: AuditEntry
ACCESS_TOKENS = PREFIX + b"access/tokens/"  # + name: ApiToken
ACCESS_HOSTS = PREFIX + b"access/hosts/"  # + host: HostCredential
ACCESS_JOINS = PREFIX + b"access/joins/"  # + host: JoinToken
NOTIFIED = PREFIX + b"notified/"  # + name of a receiver of notices: Notified
LEADER = PREFIX + b"leader"  # leased: the id of the controller that leads
OBSERVERS = PREFIX + b"observers/"  # + controller, leased: Observation
ENFORCEMENT = PREFIX + b"enforcement"  # Enforcement: where caps hold
OVERRIDES = PREFIX + b"overrides/"  # + site: Override
RULINGS = PREFIX + b"rulings/"  # + site: Ruling
PENALTIES = PREFIX + b"penalties/"  # + site: Penalized
PROOF = PREFIX + b"proof"  # the secret that makes an edge name the host that answered


def fleet_log(number: int) -> bytes:
    return FLEET_LOG + f"{number:08}".encode()


def placements(home: HostId) -> bytes:
    return PLACEMENTS + home.encode()


def dns(zone: ZoneName) -> bytes:
    return DNS + zone.encode()


def incident(id: IncidentId) -> bytes:
    return INCIDENTS + id.encode()


def drain(host: HostId) -> bytes:
    return DRAINS + host.encode()


def refusal(host: HostId) -> bytes:
    return REFUSALS + host.encode()


def withdrawn(edge: HostId) -> bytes:
    return WITHDRAWN + edge.encode()


def known(host: HostId) -> bytes:
    return KNOWN + host.encode()


def observer(id: ControllerId) -> bytes:
    return OBSERVERS + id.encode()


def hold(id: str) -> bytes:
    return HOLDS + id.encode()


def access_token(name: str) -> bytes:
    return ACCESS_TOKENS + name.encode()


def access_host(host: HostId) -> bytes:
    return ACCESS_HOSTS + host.encode()


def access_join(host: HostId) -> bytes:
    return ACCESS_JOINS + host.encode()


def notified(receiver: str) -> bytes:
    return NOTIFIED + receiver.encode()


def override(site: SiteId) -> bytes:
    return OVERRIDES + site.encode()


def ruling(site: SiteId) -> bytes:
    return RULINGS + site.encode()


def penalty(site: SiteId) -> bytes:
    return PENALTIES + site.encode()


def leaf(key: bytes) -> str:
    """The last part of a key: the id of what it holds."""
    return key.rsplit(b"/", 1)[-1].decode()
