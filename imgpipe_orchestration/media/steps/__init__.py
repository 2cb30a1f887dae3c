"""The five stages of an image, one a file. Each works on one claim, on plain values, and writes under its fence."""
