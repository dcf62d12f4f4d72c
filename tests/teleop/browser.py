"""A real, headless Chromium for the tests of pages; skipped with a reason where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a browser of Playwright's: Debian's, or the one in the environment variable CHROMIUM."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install 'robolearn[dev]'")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium, or its path in CHROMIUM")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """Yield a page; script errors on it fail the test that caused them."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
    page = context.new_page()
    page.set_default_timeout(60_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    try:
        yield page
    finally:
        context.close()
    assert not errors, errors
