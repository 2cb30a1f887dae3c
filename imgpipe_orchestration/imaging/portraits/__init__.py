"""Generated portraits: cut out of their grid, judged, and made into files."""
