"""Tests of the gateway: its pages and components in a real browser, its API as documented."""
