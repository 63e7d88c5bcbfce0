"""One file per command: ``add`` describes its options, ``main`` does it."""
