"""The engine, judged by measured pixels and scores."""
