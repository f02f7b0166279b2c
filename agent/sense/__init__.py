"""What the host is like: load, service, package runs, shutdowns. Senses; decides nothing."""
