"""Tests of the listings pipeline."""
