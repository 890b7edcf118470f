"""A page, and everything that must not happen while it is open."""

from pathlib import Path

from playwright.sync_api import Page


class Watched:
    """A page and what it must not do: complain, or ask for anything but itself.

    Args:
        page: of a browser.
        path: the file to open.
    """

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda line: self.complaints.append(f"{line.type}: {line.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function(
            "['drawn', 'failed'].includes(document.documentElement.dataset.charts)"
        )
