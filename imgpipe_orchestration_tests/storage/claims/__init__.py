"""The promises of the queues: each item to one worker at a time, none lost, none twice, each tenant in turn."""
