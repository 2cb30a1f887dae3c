"""Tests of what the routes of every feature share."""
