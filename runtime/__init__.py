"""What any of the daemons needs to live: supervision, configuration, log, wall time, words. No domain logic."""
