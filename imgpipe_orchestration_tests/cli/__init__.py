"""The commands, as a script uses them: what they print and how they end."""
