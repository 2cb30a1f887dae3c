"""Every page does its job in a real Chromium, from the keyboard too, and axe finds nothing to complain about."""
