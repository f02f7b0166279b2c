"""The shared vocabulary: what exists, what travels, what is declared. Decides nothing, does no I/O."""
