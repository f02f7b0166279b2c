"""Who has an account on the host. Source: passwd(5); Debian Policy §9.2.2 for the ranges."""

from agent.discover.found import Account

FIRST_UID, LAST_UID = 1000, 59_999  # people's; below are the system's, above are reserved
# What many sites share is no site's own user.
SHARED = frozenset({"root", "www-data", "nobody", "nginx", "apache", "http", "daemon"})


def accounts(text: str) -> dict[str, Account]:
    """By name. Lines that are none are left out."""
    found: dict[str, Account] = {}
    for line in text.split("\n"):
        parts = line.split(":")
        if len(parts) == 7 and parts[0] and parts[2].isascii() and parts[2].isdecimal():
            user, _, uid, _, comment, home, _ = parts
            name = " ".join(comment.partition(",")[0].split())
            found[user] = Account(user=user, uid=int(uid[:10]), home=home, name=name)
    return found


def is_person(account: Account | None) -> bool:
    """Whether a site may belong to it."""
    return account is not None and FIRST_UID <= account.uid <= LAST_UID
