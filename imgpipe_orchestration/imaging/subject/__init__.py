"""Where the subject of a picture is, and the crops that keep it."""
