"""The five steps of an image, one per file. Each works on one claim and writes under its fence."""
