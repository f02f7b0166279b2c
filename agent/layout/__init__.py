"""How this host runs each site, and moving one pool into a unit of its own and back. It caps nothing."""
