"""The embedded servers, the plan of a stack and its supervisor, each with real processes."""
