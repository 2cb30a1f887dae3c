"""Recovery drills: what an operator fears, done to a running project, and what must be true afterwards."""
