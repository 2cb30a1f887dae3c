"""A web site of another origin: pages given as text, and React from npm as modules a browser can import."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from imgpipe_orchestration_tests.gateway.browser import npm

# npm's React is CommonJS; this makes `import ... from "react"` of it, without a bundler.
_LOADER = """
const files = %s;
const loaded = {};
function require(name) {
  if (!(name in loaded)) {
    const module = { exports: (loaded[name] = {}) };
    new Function("module", "exports", "require", "process", files[name])(module, module.exports, require,
      { env: { NODE_ENV: "production" } });
    loaded[name] = module.exports;
  }
  return loaded[name];
}
export const React = require("react");
export const { createElement, useEffect, useRef, useState } = React;
export const { createRoot } = require("react-dom/client");
"""


def react() -> str:
    """A module with what the tests need of React."""
    import json

    files = {
        "react": "react/cjs/react.production.js",
        "react-dom": "react-dom/cjs/react-dom.production.js",
        "react-dom/client": "react-dom/cjs/react-dom-client.production.js",
        "scheduler": "scheduler/cjs/scheduler.production.js",
    }
    return _LOADER % json.dumps({name: npm(path).read_text() for name, path in files.items()})


@contextmanager
def site(pages: dict[str, str], *, policy: str = "") -> Iterator[str]:
    """Serve `pages` by path (`.js` ones as scripts) on a port of their own; yields the site's address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path)
            self.send_response(200 if body is not None else 204)
            if body is not None:
                self.send_header("Content-Type", "text/javascript" if self.path.endswith(".js") else "text/html")
                if policy:
                    self.send_header("Content-Security-Policy", policy)
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, *_: Any) -> None:
            """Tests have their own words."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
