"""A co-op in miniature, on real parts, to watch a host die and its sites live on."""
