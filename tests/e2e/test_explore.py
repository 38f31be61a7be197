"""The page in a real browser, over a real server; and what it says where that server is another or is gone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from recsys.errors import RefusedError
from recsys.export.release import Release
from recsys.retrieval import Retriever
from serving.explore.link import Link
from serving.explore.trail import Form, Question, Subject
from tests.e2e.test_wire import running
from twintower.client import Client
from twintower.errors import RequestError, UnavailableError
from twintower.types import FeedbackKind

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ASKED = Question(Subject(Form.ENTITY, "user 7"))


@pytest.fixture(scope="module")
def retriever(block_release) -> Retriever:
    return Retriever.load(block_release.folder)


@contextmanager
def exploring(release: Release, *options: str) -> Iterator[str]:
    """The command as a process; gives the address of its page. It must end well when it is interrupted."""
    command = [sys.executable, "-m", "recsys.cli", "explore", str(release.folder), "--no-browser", "--port", "0"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        told = ""
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", told)):
            line = process.stdout.readline()
            assert line, told
            told += line
        yield found[0]
    finally:
        # Not killed: it would leave the server that it has started.
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=120)[0]
    assert (process.returncode, told) == (0, "")


@pytest.fixture
def browser(tmp_path) -> Iterator[webdriver.Chrome]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium with chromedriver on this machine: the page was not looked at in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(f"--{flag}")
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield opened
    finally:
        opened.quit()


def test_a_person_picks_a_user_likes_an_item_and_sees_what_enters_and_leaves(block_release, browser):
    def find(selector: str) -> list[WebElement]:
        return browser.find_elements(By.CSS_SELECTOR, selector)

    def texts(selector: str) -> list[str]:
        return browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText)", selector
        )

    def listed(which: str) -> list[str]:
        return browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.dataset.item)", f".{which} .place"
        )

    def until(holds) -> None:
        WebDriverWait(browser, 30).until(lambda _: holds())

    with exploring(block_release) as address:
        browser.get(address)
        until(lambda: find(".search input"))
        assert texts(".release-name") == [block_release.name]
        assert texts(".fingerprint") == [block_release.fingerprint]
        # when: a user is picked by typing
        search = find(".search input")[0]
        search.send_keys("user 7")
        until(lambda: texts(".suggestion .name")[:1] == ["user 7"])
        search.send_keys(Keys.ENTER)
        until(lambda: len(listed("after")) == 10)
        before = listed("before")
        assert listed("after") == before
        assert find(".entered") == find(".left") == []
        # when: the last item is liked
        find(".after .place .like")[-1].click()
        # then: the list changes, and says what entered and what left
        until(lambda: find(".mark.liked"))
        after = listed("after")
        assert listed("before") == before
        assert after != before
        entered = browser.execute_script(
            "return [...document.querySelectorAll('.after .place.entered')].map((each) => each.dataset.item)"
        )
        assert set(entered) == set(after) - set(before) != set()
        assert len(texts(".gone .left")) == len(texts(".before .place.left")) == len(set(before) - set(after))
        assert len(texts(".mark .score")) == 1
        # when: the keyboard dislikes the first item, and undoes both
        keyboard = find("body")[0]
        keyboard.send_keys("d")
        until(lambda: find(".mark.disliked"))
        keyboard.send_keys("u")
        until(lambda: not find(".mark.disliked"))
        assert listed("after") == after
        keyboard.send_keys("u")
        until(lambda: listed("after") == before)
        # when: nothing fits what is typed
        search = find(".search input")[0]
        search.send_keys("no such user", Keys.ENTER)
        until(lambda: any("no such user" in each for each in texts(".message")))
        severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert severe == []


def test_a_page_is_for_this_machine_and_under_no_other_name(block_release, retriever):
    with running(retriever) as server, exploring(block_release, "--server", server.address) as address:
        port = int(address.rpartition(":")[2])
        answers = {}
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "elsewhere.example"):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as asked:
                asked.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                answers[host.partition(":")[0]] = int(asked.recv(64).split()[1])
        assert answers == {"127.0.0.1": 200, "localhost": 200, "elsewhere.example": 400}


def test_a_port_in_use_is_one_sentence_and_exit_code_2(block_release):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "recsys.cli", "explore", str(block_release.folder), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"--port: got {port}, expected a free port" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_web_extra_the_line_to_run_is_told(tmp_path):
    (tmp_path / "nicegui.py").write_text("raise ModuleNotFoundError(\"No module named 'nicegui'\", name='nicegui')\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "recsys.cli", "explore", "anything"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 2
    assert "needs the package 'nicegui', which is not installed" in done.stderr
    assert "twintower-recsys[web]" in done.stderr


def test_a_server_of_another_release_is_refused(block_release, other_block_release, retriever):
    other = other_block_release
    with (
        running(retriever) as server,
        pytest.raises(RefusedError, match=f"expected one that serves {other.name}"),
        Link(other, "the server", lambda: Client(server.address, timeout_s=20.0)),
    ):
        pytest.fail("it was taken")


def test_the_answer_is_that_of_the_client_with_both_lists(block_release, retriever):
    with (
        running(retriever) as server,
        Client(server.address, timeout_s=20.0) as client,
        Link(block_release, "the server", lambda: Client(server.address, timeout_s=20.0)) as link,
    ):
        asked = replace(ASKED, reformulator="history").marking("item-ü0", FeedbackKind.LIKED)
        answer = link.ask(asked)
        before = client.nearest_items(ASKED.subject.query, 10)
        after = client.reformulate(ASKED.subject.query, 10, asked.marks, depth=10, reformulator="history")
        assert [place.item_id for place in answer.comparison.before] == list(before.item_ids)
        assert [place.item_id for place in answer.comparison.after] == list(after.ranking.item_ids)
        assert answer.moved.drift == after.drift > 0
        with pytest.raises(RequestError, match="no reformulator in this release named 'nobody'"):
            link.ask(Question(ASKED.subject, reformulator="nobody"))


def test_a_server_that_is_gone_is_told_and_found_again(block_release, retriever):
    addresses: list[str] = []
    with ExitStack() as servers:
        first = servers.enter_context(running(retriever))
        addresses.append(first.address)
        with Link(block_release, "the server", lambda: Client(addresses[-1], timeout_s=2.0)) as link:
            link.check()
            assert link.problem == ""
            expected = link.ask(ASKED).comparison
            # when
            first.stop()
            link.check()
            # then
            assert link.problem == "the server does not answer. Trying again."
            with pytest.raises(UnavailableError):
                link.ask(ASKED)
            # when: it is there again, under another address
            addresses.append(servers.enter_context(running(retriever)).address)
            for _ in range(5):
                link.check()
            # then
            assert link.problem == ""
            assert link.ask(ASKED).comparison == expected
