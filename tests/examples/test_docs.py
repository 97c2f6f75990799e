"""The documents say what is there: each reason, each command of the Makefile, no link to a file that is gone."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
REASON = re.compile(r"X\((\w+),\s*(\d+), (\d), \"")


def reasons() -> dict[str, tuple[int, int]]:
    """Name (lower case) -> status, fault; as the engine has them."""
    found = REASON.findall((ROOT / "meshcore/engine/reasons.pxd").read_text())
    return {name.lower(): (int(status), int(fault)) for name, status, fault in found if name != "NONE"}


def test_each_reason_is_documented_with_its_status_under_whose_fault_it_is():
    documented: dict[str, tuple[int, int]] = {}
    sections = (ROOT / "docs/reasons.md").read_text().split("\n## ")
    for fault, section in enumerate(sections[1:], start=1):
        for name, status in re.findall(r"^\| (\w+) \| (\d+) \|", section, re.MULTILINE):
            documented[name] = (int(status), fault)
    assert documented == reasons()


def test_the_failure_table_of_the_architecture_names_each_reason():
    table = (ROOT / "ARCHITECTURE.md").read_text().partition("## Life of a request")[2].partition("\n## ")[0]
    answered_as_configured = {"direct_response", "filter_response"}
    missing = [name for name in reasons() if not re.search(rf"\b{name}\b", table) and name not in answered_as_configured]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_make_target_that_a_page_names_exists(page):
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for named in re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), re.MULTILINE):
        assert named in targets, f"{page.relative_to(ROOT)} names make {named}"


def test_the_architecture_names_tests_and_files_that_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for name in set(re.findall(r"\btest_\w+", text)):
        assert [*ROOT.glob(f"tests/*/{name}.py"), *ROOT.glob(f"bench/{name}.py")], name
    for path in set(re.findall(r"`([\w/]+\.(?:py|pxd|pxi|pyx))`", text)):
        assert [*ROOT.glob(f"**/{path}")], path


def test_the_architecture_fits_in_one_reading():
    assert (ROOT / "ARCHITECTURE.md").read_text().count("\n") <= 400
