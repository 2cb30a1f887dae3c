"""A stranger's bytes to pixels: what they are, whether they may be decoded, the first frame, upright."""
