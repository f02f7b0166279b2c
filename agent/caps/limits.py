"""What the kernel should hold for one site: its plan, an override, a penalty and the host, in one table."""
