"""`<smart-image>` and `<ai-analysis-display>` in a page of another origin, plain and under React."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.gateway.components.site import react, site
from imgpipe_orchestration_tests.gateway.conftest import Visit
from imgpipe_orchestration_tests.media.conftest import Gateway, picture

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
    expect(page.locator("smart-image .box.there").first).to_be_visible()
    source: str = page.evaluate("document.querySelector('smart-image').shadowRoot.querySelector('img').currentSrc")
    return source


# Another site may be strict: nothing inline, and only the gateway beside itself.
def strict(gateway: Gateway) -> str:
    own = f"'self' {gateway.url}"
    return f"default-src 'none'; script-src {own}; style-src {own}; img-src {own}; connect-src {own}"


def test_the_picture_element_opened_as_a_page_shows_the_image_over_its_blurred_picture(
    gateway: Gateway, visit: Visit
) -> None:
    gateway.upload(1, profile_image=picture(480, 360))
    gateway.run_due()
    with visit(gateway.url) as guest:
        page = guest.go("/picture/1")
        expect(page.locator("img")).to_have_js_property("naturalWidth", 480)
        assert page.locator("img").evaluate("img => getComputedStyle(img).backgroundImage").startswith('url("data:')


def test_a_picture_is_shown_in_the_best_format_without_moving_what_follows(gateway: Gateway, visit: Visit) -> None:
    gateway.upload(1, profile_image=picture(1500, 1000))
    gateway.run_due()
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


_CONTEXTS = {
    "a flex row": '<div style="display: flex; width: 500px">{}<p>{}</p></div>',
    "a flex column": '<div style="display: flex; flex-direction: column; width: 900px; height: 700px">{}</div>',
    "a centring flex row": '<div style="display: flex; align-items: center; width: 900px; height: 700px">{}</div>',
    "a grid": '<div style="display: grid; width: 900px; height: 700px">{}</div>',
    "a grid of auto columns": '<div style="display: grid; grid-template-columns: auto 1fr">{}<p>{}</p></div>',
    "a float": '<div style="float: left">{}</div>',
    "a floated figure": '<div style="overflow: auto"><figure style="float: right; margin: 0">{}</figure></div>',
    "an inline block": '<div style="display: inline-block">{}</div>',
    "a table": "<table><tr><td>{}</td><td>{}</td></tr></table>",
    "a narrow block": '<div style="width: 150px">{}</div>',
    "a line": "<p>{} in a line</p>",
    "a positioned box": '<div style="position: relative"><div style="position: absolute">{}</div></div>',
}


@pytest.mark.parametrize("context", _CONTEXTS)
def test_a_picture_has_the_box_that_an_img_has(gateway: Gateway, visit: Visit, context: str) -> None:
    """Wherever it stands; before its script has come, while the image is on its way and once it is there."""
    gateway.upload(1, profile_image=picture(1500, 1000))
    gateway.run_due()
    words = "Words that want more room than there is beside it. " * 4
    image = '<smart-image media-id="1" size="detail" width="300" height="200" alt="A bowl"></smart-image>'
    narrow = 'style="max-width: 100%; height: auto"' if "narrow" in context else ""
    img = f'<img width="300" height="200" alt="" src="/empty.svg" {narrow}>'
    boxes = "all => all.map((one) => [one.getBoundingClientRect().width, one.getBoundingClientRect().height])"
    put = "(main, html) => { main.innerHTML = html }"
    with site(pages(gateway, "")) as shop, visit(shop, hosts=[gateway.url]) as guest:
        main = guest.go("/").locator("main")
        main.evaluate(put, _CONTEXTS[context].format(img, words))
        (expected,) = main.locator("img").evaluate_all(boxes)
        main.evaluate(put, _CONTEXTS[context].format(image, words))
        assert main.locator("smart-image").evaluate_all(boxes) == [expected], "on its way"
        shown(guest.page)
        assert main.locator("smart-image, smart-image .box").evaluate_all(boxes) == [expected, expected]


def test_trying_again_keeps_the_keyboard_where_it_is_and_what_is_partial_is_asked_for_anew(
    gateway: Gateway, visit: Visit
) -> None:
    answers = [
        {"status": 503},
        {"json": {"analysis": {"style": "flat"}, "complete": False}},
        {"json": {"analysis": {"style": "flat", "medium": "ink"}, "complete": True}},
    ]
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(**answers[len(asked) - 1], headers={"Access-Control-Allow-Origin": "*"})

    body = '<ai-analysis-display media-id="1"></ai-analysis-display>'
    with site(pages(gateway, body)) as shop, visit(shop, hosts=[gateway.url]) as guest:
        guest.allowed = ["503"]
        guest.page.route("**/analysis", answer)
        page = guest.go("/")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Part of the analysis is missing")).to_be_visible()
        page.keyboard.press("Shift+Tab")
        for _ in range(2):  # closes and opens it
            page.keyboard.press("Enter")
        expect(page.get_by_text("ink")).to_be_visible()
        for _ in range(2):
            page.keyboard.press("Enter")
        expect(page.get_by_text("ink")).to_be_visible()
        assert len(asked) == 3


def test_an_analysis_is_open_where_the_page_says_so(gateway: Gateway, visit: Visit) -> None:
    body = '<ai-analysis-display open></ai-analysis-display><ai-analysis-display open="false"></ai-analysis-display>'
    with site(pages(gateway, body)) as shop, visit(shop, hosts=[gateway.url]) as guest:
        page = guest.go("/")
        expect(page.locator("ai-analysis-display details")).to_have_count(2)
        expect(page.locator("ai-analysis-display details[open]")).to_have_count(1)


@pytest.mark.slow
def test_an_image_that_failed_or_never_was_says_so(gateway: Gateway, visit: Visit) -> None:
    gateway.upload(1, profile_image=picture()[:3000])
    gateway.run_due()
    body = '<smart-image media-id="1" alt="Me"></smart-image><smart-image media-id="999" alt="You"></smart-image>'
    with site(pages(gateway, body)) as shop, visit(shop, hosts=[gateway.url]) as guest:
        guest.allowed = ["404"]
        page = guest.go("/")
        expect(page.get_by_text("Me: this image could not be processed.")).to_be_visible()
        expect(page.get_by_text("You: This image is not there.")).to_be_visible()


def test_a_private_image_is_shown_by_its_signature_only(gateway: Gateway, visit: Visit) -> None:
    gateway.upload(1, profile_image=picture(1500, 1000))
    gateway.run_due()
    api, worker = f"{gateway.url}/api/media/1", gateway.as_worker
    gateway.session.put(f"{api}/privacy", json={"private": True}, headers=worker, timeout=30).raise_for_status()

    def signed(**wish: object) -> str:
        answer = gateway.session.post(f"{api}/signed-url", json={"seconds": 60, **wish}, headers=worker, timeout=30)
        (signature,) = parse_qs(urlsplit(answer.json()["url"]).query)["signature"]
        return signature

    signature = signed()
    body = f"""<smart-image media-id="1" alt="Mine" signature="{signature}" show-ai-data></smart-image>
        <smart-image media-id="1" alt="One size" size="detail" signature="{signed(size="detail")}"></smart-image>
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


def test_under_react_with_the_documents_props_and_the_analysis_on_demand(seeing_gateway: Gateway, visit: Visit) -> None:
    gateway = seeing_gateway
    gateway.upload(1, logo_image=picture(600, 400, seed=3))
    gateway.run_due()
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
