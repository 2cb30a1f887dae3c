"""The steps of an image. Each works on one claim and writes under its fence."""
