"""Pixels to files: each size in each format, at the quality that reaches a target score."""
