"""The system's Chromium, steered by Playwright, which brings none of its own here; tests skip without it."""

from __future__ import annotations

import contextlib
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL = "no Chromium is found; 'sudo apt-get install chromium' installs it"


@contextlib.contextmanager
def chromium():
    """A headless browser."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(INSTALL)
    with sync_api.sync_playwright() as playwright:
        # Without a sandbox it runs as root, too, as in a container.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
