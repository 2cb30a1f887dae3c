"""`<smart-image>` and `<ai-analysis-display>` in a page of another origin, plain and under React."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest
from playwright.sync_api import Page, expect

from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.gateway.browser import npm
from imgpipe_orchestration_tests.gateway.components.test_routes import signed
from imgpipe_orchestration_tests.gateway.conftest import Visit
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.partners.wire import reply, serving

pytestmark = pytest.mark.slow

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


_SHIFTS = """
window.shift = 0;
new PerformanceObserver((list) => { for (const e of list.getEntries()) window.shift += e.value; })
  .observe({ type: "layout-shift", buffered: true });
"""

_PAGE = """<!doctype html><html lang="en"><title>Shop</title><script src="/shifts.js"></script>
<link rel="stylesheet" href="{gateway}/components/components.css">
<script type="module" src="{gateway}/components/smart-image.js"></script>
<body><main><h1>Shop</h1>{body}<p id="after">What comes after</p></main></body></html>"""


def pages(gateway: Gateway, body: str) -> dict[str, str]:
    return {"/": _PAGE.format(gateway=gateway.url, body=body), "/shifts.js": _SHIFTS}


def shown(page: Page) -> str:
    """The address of the variant that the browser chose, once it is painted."""
    expect(page.locator("smart-image").first.locator(".box.there")).to_be_visible()
    source: str = page.evaluate("document.querySelector('smart-image').shadowRoot.querySelector('img').currentSrc")
    return source


# Another site may be strict: nothing inline, and only the gateway beside itself.
def strict(gateway: Gateway) -> str:
    own = f"'self' {gateway.url}"
    return f"default-src 'none'; script-src {own}; style-src {own}; img-src {own}; connect-src {own}"


def test_a_picture_is_shown_in_the_best_format_without_moving_what_follows(gateway: Gateway, visit: Visit) -> None:
    gateway.finish(1, profile_image=picture(1500, 1000))
    body = """<smart-image media-id="1" size="detail" alt="A bowl"></smart-image>
        <smart-image media-id="1" size="thumbnail" alt="A small bowl" preferred-formats='["jpeg"]'></smart-image>"""
    with site(pages(gateway, body), policy=strict(gateway)) as shop, visit(shop, hosts=[gateway.url]) as guest:
        page = guest.go("/")
        assert "size=detail" in shown(page)
        assert "format=avif" in shown(page)
        expect(page.locator("smart-image .box.there")).to_have_count(2)
        expect(page.get_by_role("img", name="A bowl")).to_be_visible()
        second = "document.querySelectorAll('smart-image')[1].shadowRoot.querySelector('img').currentSrc"
        assert "format=jpeg" in page.evaluate(second)
        painted = "[...document.querySelectorAll('smart-image')].map(i => i.shadowRoot.querySelector('canvas').width)"
        wait_for(lambda: min(page.evaluate(painted)) > 20, "the placeholder to be painted")
        assert page.evaluate("window.shift") == 0
        guest.content()
        assert guest.axe() == []
        guest.trouble.clear()  # axe itself is at odds with so strict a policy


def test_an_analysis_is_open_where_the_page_says_so(gateway: Gateway, visit: Visit) -> None:
    body = '<ai-analysis-display open></ai-analysis-display><ai-analysis-display open="false"></ai-analysis-display>'
    with site(pages(gateway, body)) as shop, visit(shop, hosts=[gateway.url]) as guest:
        page = guest.go("/")
        expect(page.locator("ai-analysis-display details")).to_have_count(2)
        expect(page.locator("ai-analysis-display details[open]")).to_have_count(1)


def test_a_private_image_is_shown_by_its_signature_only(gateway: Gateway, visit: Visit) -> None:
    gateway.finish(1, profile_image=picture(1500, 1000))
    signature, of_a_part = signed(gateway), signed(gateway, size="detail")
    body = f"""<smart-image media-id="1" alt="Mine" signature="{signature}" show-ai-data></smart-image>
        <smart-image media-id="1" alt="One size" size="detail" signature="{of_a_part}"></smart-image>
        <smart-image media-id="1" alt="Not mine"></smart-image>
        <smart-image media-id="1" alt="Forged" signature="{signature[:-6]}AAAAAA"></smart-image>"""
    with site(pages(gateway, body)) as shop, visit(shop, hosts=[gateway.url]) as guest:
        guest.allowed = ["403"]
        page = guest.go("/")
        assert "signature=" in shown(page)
        expect(page.get_by_role("img", name="Mine", exact=True)).to_be_visible()
        page.get_by_role("img", name="One size", exact=True).scroll_into_view_if_needed()
        expect(page.get_by_text("Not mine: This image may not be shown here.")).to_be_visible()
        expect(page.get_by_text("Forged: This image may not be shown here.")).to_be_visible()
        expect(page.locator("smart-image .box.there")).to_have_count(2)
        page.get_by_text("What the analysis found").click()
        expect(page.get_by_text("Colours")).to_be_visible()


def test_a_message_is_shown_whole_or_only_said_to_screen_readers(gateway: Gateway, visit: Visit) -> None:
    upload = gateway.upload(1, profile_image=picture()).json()["images"][0]
    gateway.services.media_bucket.put(upload["image_path"][1:], b"not a picture", content_type="image/jpeg")
    gateway.run_due()
    boxes = ((40, 40), (96, 96), (300, 60), (150, 150), (300, 300))
    body = "".join(
        f'<smart-image media-id="{n}" alt="" width="{wide}" height="{tall}"></smart-image>'
        for n in (1, 999)
        for wide, tall in boxes
    )
    look = """words => words.map(one => [getComputedStyle(one).clipPath === "none",
        one.scrollHeight <= one.closest(".box").clientHeight])"""
    with site(pages(gateway, body)) as shop, visit(shop, hosts=[gateway.url]) as guest:
        guest.allowed = ["404"]
        page = guest.go("/")
        for said in ("This image could not be processed.", "This image is not there."):
            expect(page.get_by_text(said)).to_have_count(len(boxes))
        seen = page.locator("smart-image .words").evaluate_all(look)
    assert [whole for shown, whole in seen if shown] == [True] * 4
    assert [shown for shown, _ in seen] == [False, False, False, True, True] * 2


def test_under_react_with_the_documents_props_and_the_analysis_on_demand(seeing_gateway: Gateway, visit: Visit) -> None:
    gateway = seeing_gateway
    gateway.finish(1, logo_image=picture(600, 400, seed=3))
    app = f"""
        import {{ createElement, createRoot, useState }} from "react";
        import {{ SmartImage, AIAnalysisDisplay }} from "{gateway.url}/components/react.js";
        function App() {{
          const [id, setId] = useState(1);
          const [ready, setReady] = useState(0);
          return createElement("main", null,
            createElement(SmartImage, {{ mediaId: id, size: "thumbnail", alt: "Profile", backgroundOption: "removed",
              preferredFormats: ["avif", "webp", "jpeg", "png"], showAIData: true, className: "mine",
              onReady: () => setReady((n) => n + 1) }}),
            createElement("output", null, `ready ${{ready}}`),
            createElement(AIAnalysisDisplay, {{ mediaId: id, showStyle: true, showColors: false, showQuality: true,
              showMood: true }}),
            createElement("button", {{ onClick: () => setId(999) }}, "another"));
        }}
        createRoot(document.getElementById("root")).render(createElement(App));
    """
    html = """<!doctype html><html lang="en"><title>React</title>
        <script type="importmap">{"imports": {"react": "/react.js"}}</script>
        <body><div id="root"></div><script type="module" src="/app.js"></script></body></html>"""
    with (
        site({"/": html, "/app.js": app, "/react.js": react()}) as shop,
        visit(shop, hosts=[gateway.url]) as guest,
    ):
        guest.allowed = ["404"]
        page = guest.go("/")
        expect(page.get_by_text("ready 1")).to_be_visible()
        assert "size=thumbnail" in shown(page)
        assert page.locator("smart-image.mine").count() == 1
        display = page.locator("main > ai-analysis-display")
        display.get_by_text("What the analysis found").click()
        expect(display.get_by_text("Quality")).to_be_visible()
        expect(display.get_by_text("A stand-in made this up")).to_be_visible()
        expect(display.get_by_text("Style")).to_be_visible()
        expect(display.get_by_text("olours")).not_to_be_attached()
        page.locator("smart-image").get_by_text("What the analysis found").click()
        expect(page.locator("smart-image").get_by_text("Brand colours")).to_be_visible()
        page.get_by_role("button", name="another").click()
        expect(page.get_by_text("Profile: This image is not there.")).to_be_visible()
