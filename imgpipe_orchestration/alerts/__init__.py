"""Telling people: `webhook` has the messages and sends them, `sensors` notice that a run or a check failed."""
