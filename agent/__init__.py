"""The daemon on every server: reports, follows orders, and goes on without anyone."""
