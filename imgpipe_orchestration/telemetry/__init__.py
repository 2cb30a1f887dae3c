"""What the processes say of themselves: log lines without secrets, and traces."""
