"""Pictures of the page for the documentation: `python -m tests.page_screenshots MODEL` writes them into docs/page/.

In: a model's folder, such as the demo's; Chromium.  Out: desktop light and dark, phone, audit, as PNG of few colours.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

from armorm.model.reward_model import RewardModel
from tests.page_app import Simple, app_of, serving

FOLDER = Path(__file__).parents[1] / "docs" / "page"
CHROMIUM = os.environ.get("ARMORM_CHROMIUM", "/usr/bin/chromium")
PROMPT = "My little brother is nervous about his first swimming lesson. What can I tell him?"
ANSWERS = (
    "It is normal to be nervous before something new. Tell him that the teacher stays close, that he can hold on to the edge as "
    "long as he likes, and that nobody learns to swim on the first day. You could also visit the pool together "
    "once before the lesson.",
    "Swimming is a form of exercise. There are four common strokes: front crawl, breaststroke, backstroke and butterfly. Lessons "
    "usually last between thirty and forty-five minutes, and it is important to note that there are many things to consider.",
    "Tell him not to worry.",
)


def shoot(shown: Page | Locator, name: str, **how: bool) -> None:
    path = FOLDER / f"{name}.png"
    shown.screenshot(path=path, **how)
    Image.open(path).convert("RGB").quantize(96, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
    print(f"{path} {path.stat().st_size // 1024} KiB")


def fill(page: Page, url: str) -> None:
    page.set_default_timeout(300_000)  # whatever the machine takes to score
    page.goto(url)
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    for _ in ANSWERS[2:]:
        page.get_by_role("button", name="Add an answer").click()
    for letter, text in zip("ABC", ANSWERS, strict=True):
        page.get_by_label(f"Answer {letter}", exact=True).fill(text)
    page.keyboard.press("Control+Enter")
    page.locator("#ranking li").first.wait_for()
    page.locator("#sure:not(:empty)").wait_for()


def main(folder: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    service = Simple(RewardModel.from_pretrained(folder), name="starter")
    with serving(app_of(service)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for theme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 1240, "height": 900}, color_scheme=theme)
            fill(page, url)
            page.mouse.move(0, 0)
            shoot(page, f"desktop-{theme}", full_page=True)
            if theme == "light":
                page.get_by_role("button", name="Audit answer A").click()
                page.locator("#changes tbody tr").first.wait_for()
                page.mouse.move(0, 0)
                shoot(page.locator("#audit"), "audit")
            page.close()
        phone = browser.new_page(viewport={"width": 390, "height": 1720}, device_scale_factor=1.5, is_mobile=True, has_touch=True)
        fill(phone, url)
        phone.get_by_label("How much safety counts").fill("20")
        phone.evaluate("scrollTo(0, 0)")
        shoot(phone, "phone")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
