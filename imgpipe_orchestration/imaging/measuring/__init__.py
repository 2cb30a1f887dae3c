"""What can be said of a picture by looking at its pixels."""
