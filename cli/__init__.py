"""`relevo`, the command: talks to a controller's API, and starts the daemons by name."""
