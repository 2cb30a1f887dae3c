"""A web site of another origin: pages given as text, and React from npm as modules a browser can import."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from imgpipe_orchestration_tests.gateway.browser import npm
from imgpipe_orchestration_tests.partners.wire import reply, serving

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

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        body = pages.get(handler.path)
        if body is None:
            return reply(handler, status=204)
        kind = "text/javascript" if handler.path.endswith(".js") else "text/html"
        rules = {"Content-Security-Policy": policy} if policy else {}
        return reply(handler, body.encode(), Content_Type=kind, **rules)

    with serving(answer) as server:
        yield server.url
