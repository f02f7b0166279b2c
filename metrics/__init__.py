"""Every measured name, once; knows nothing of who measures."""
