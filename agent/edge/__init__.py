"""Routes into HAProxy, and HAProxy's view of the hosts out of it. The only writer to HAProxy."""
