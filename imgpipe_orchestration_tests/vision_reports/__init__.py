"""Vision reports, over real servers and the stand-ins of their partners."""
