"""The central daemon: gathers evidence, carries out decisions. What to decide is `failover`'s."""
