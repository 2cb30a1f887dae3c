"""Tests of the avatars, on real servers and stand-in partners."""
