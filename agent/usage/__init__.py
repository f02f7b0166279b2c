"""What each site uses, read from the kernel and kept as history. It judges nobody."""
