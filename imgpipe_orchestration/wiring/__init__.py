"""What connects a process to the outside world: `services` makes the connections and clients."""
