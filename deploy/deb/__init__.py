"""Makes the Debian package: what is in it and what its scripts do. Nothing of relevo imports it."""
