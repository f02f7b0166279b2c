"""`relevo`: its own commands, and those of the daemons and the demo, each loaded when it is called."""

from importlib import import_module
from importlib.metadata import entry_points

import click

from cli.failures import MEANING

# Where each command lives, and what the list of commands says of it without loading it.
OWN = {
    "status": ("cli.looks:status", "The whole at a glance."),
    "hosts": ("cli.looks:hosts", "All hosts: verdict, last beat, load, sites."),
    "sites": ("cli.looks:sites", "Sites: where each is served, what holds it."),
    "incidents": ("cli.looks:incidents", "Incidents; with an ID, its timeline."),
    "holds": ("cli.looks:holds", "What waits for a person."),
    "events": ("cli.events:events", "What happens, as it happens."),
    "fleet": ("cli.fleet:fleet", "Compare, apply, export, undo: the declared fleet."),
    "host": ("cli.orders:host", "Show, drain, activate one host; let it in or out."),
    "site": ("cli.orders:site", "Show, explain, move, hold or release one site."),
    "caps": ("cli.caps:caps", "Where caps hold, whether they do, what shadow found."),
    "token": ("cli.access:token", "Tokens of people and programs."),
    "notify": ("cli.notify:notify", "Who is called, and whether it works."),
    "audit": ("cli.access:audit", "Who did what, when and why."),
    "store": ("cli.store:store", "The controllers' store: recover, move, restore."),
    "failover": ("cli.failover:failover", "Arm, observe, pause or resume."),
}
STARTED = {
    "init": "Make the first controller of a co-op.",
    "agent": "Run the agent of this host, or let it join.",
    "controller": "Run a controller, add one, renew its certificate.",
    "discover": "What runs on this host, as a fleet document to complete.",
    "layout": "How this host runs each site; give one a unit of its own.",
    "demo": "A co-op in miniature: a host dies, its sites live on.",
}
EXITS = "\n".join(f"  {int(code)}  {meaning}" for code, meaning in MEANING.items())
ENVIRONMENT = """\
  RELEVO_URL         controllers, comma separated (else ~/.config/relevo/url)
  RELEVO_TOKEN       the token itself, or
  RELEVO_TOKEN_FILE  a file with it (else ~/.config/relevo/token)
  RELEVO_CA          the CA that signed the controllers' certificates
                     (else ~/.config/relevo/ca.pem)"""
EPILOG = f"\b\nExit codes:\n{EXITS}\n\n\b\nEnvironment:\n{ENVIRONMENT}"


class Lazy(click.Group):
    """Loads a command when it is called, so that looking at a status does not load a daemon."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        found = {entry.name for entry in entry_points(group="relevo.commands")}
        return [*OWN, *sorted(found - OWN.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in OWN:
            module, _, name = OWN[cmd_name][0].partition(":")
            command: click.Command = getattr(import_module(module), name)
            return command
        for entry in entry_points(group="relevo.commands", name=cmd_name):
            loaded: click.Command = entry.load()
            return loaded
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        said = {name: help for name, (_, help) in OWN.items()} | STARTED
        with formatter.section("Commands"):
            formatter.write_dl([(name, said.get(name, "")) for name in self.list_commands(ctx)])


@click.group(cls=Lazy, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="relevo", message="relevo %(version)s")
def main() -> None:
    """Keeps a hosting co-op's sites up: when a host dies, its sites live on elsewhere."""


if __name__ == "__main__":
    main()
