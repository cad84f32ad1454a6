"""The operator's page in a real browser, over a real pipeline; and who is let in, without one."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest
from gallery_helpers import face, template, unit

from face_recognition_node.assembly import Models, Pipeline, load_models
from face_recognition_node.common.errors import InputError
from face_recognition_node.common.parameters import with_values
from face_recognition_node.config import Config
from face_recognition_node.media.sources import open_source
from face_recognition_node.web.local import LocalOperator
from face_recognition_node.web.operator import Face, Picture
from face_recognition_node.web.server import ACTIONS, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
PATIENCE_S = 60.0


class Server:
    """A page on a thread of its own."""

    def __init__(self, operator: LocalOperator, host: str = "127.0.0.1") -> None:
        self.page, self.address = Page(operator, host, 0), ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await self.page.serve(self._note, self._stop)

    def _note(self, address: str) -> None:
        self.address = address
        self._ready.set()

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models(Config())


@pytest.fixture(scope="module")
def operator(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalOperator]:
    path = tmp_path_factory.mktemp("web") / "gallery.db"
    # The first seconds show the guest alone; at 5 Hz a loaded machine keeps up as well.
    source = open_source("sample", rate=5.0).between(0.5, 5.0)
    with (
        Pipeline.open(Config(), path, models=models, learns=True, is_live=True) as pipeline,
        LocalOperator(pipeline, source) as operator,
    ):
        yield operator


@pytest.fixture(scope="module")
def server(operator: LocalOperator) -> Iterator[Server]:
    with Server(operator) as server:
        yield server


def ask(address: str, path: str = "", **options: Any) -> tuple[int, str]:
    """Return status and text of a request."""

    async def work() -> tuple[int, str]:
        async with aiohttp.ClientSession() as session:
            method = options.pop("method", "GET")
            async with session.request(method, address + path, **options) as answer:
                return answer.status, await answer.text("latin-1")

    return asyncio.run(work())


def split(server: Server) -> tuple[str, str]:
    """Return the loopback address and the token of a page that listens everywhere."""
    parts = urlsplit(server.address)
    return f"http://127.0.0.1:{parts.port}/", parts.query.removeprefix("token=")


class TestAccess:
    def test_another_site_cannot_post(self, server: Server) -> None:
        for origin in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
            status, _ = ask(server.address, "api/undo", method="POST", json={}, headers=origin)
            assert status == 403
        own = {"Origin": server.address.rstrip("/")}
        assert ask(server.address, "api/overview", method="POST", json={}, headers=own)[0] == 200

    def test_another_site_cannot_open_the_stream(self, server: Server) -> None:
        async def connect(origin: str) -> int:
            async with aiohttp.ClientSession() as session:
                try:
                    async with session.ws_connect(server.address + "live", origin=origin):
                        return 101
                except aiohttp.WSServerHandshakeError as error:
                    return error.status

        assert asyncio.run(connect("http://evil.example")) == 403
        assert asyncio.run(connect(server.address.rstrip("/"))) == 101

    def test_a_foreign_name_that_leads_here_is_refused(self, server: Server) -> None:
        assert ask(server.address, headers={"Host": "evil.example"})[0] == 403

    def test_another_address_needs_the_token(self, operator: LocalOperator) -> None:
        with Server(operator, "0.0.0.0") as server:
            address, token = split(server)
            assert len(token) >= 32
            for path in ("", "live", "assets/main.js", "?token=", f"?token={token[:-1]}x"):
                assert ask(address, path)[0] == 403
            assert ask(address, "api/overview", method="POST", headers={"Origin": address[:-1]})[0] == 403
            assert ask(address, f"?token={token}", allow_redirects=False)[0] == 303
            assert "Face recognition" in ask(address, cookies={"face_recognition_token": token})[1]

    def test_an_address_that_is_taken_or_not_ours_names_its_cure(
        self, server: Server, operator: LocalOperator
    ) -> None:
        taken = urlsplit(server.address).port
        for host, port, cure in (
            ("127.0.0.1", taken, "choose another port"),
            ("192.0.2.1", 0, "must be this machine's"),
            ("nobody.invalid", 0, "must be this machine's"),
        ):
            with pytest.raises(InputError, match=cure):
                asyncio.run(Page(operator, host, port).serve(pytest.fail, asyncio.Event()))

    def test_an_empty_host_is_not_every_network(self, operator: LocalOperator) -> None:
        with pytest.raises(InputError, match=r"0\.0\.0\.0 is every network"):
            Page(operator, "")

    def test_only_the_pages_own_files_are_served(self, server: Server) -> None:
        for path in ("assets/..%2Fserver.py", "assets/none.js", "assets/.", "api/overview"):
            assert ask(server.address, path)[0] in (404, 405)

    def test_bad_requests_are_answered_in_words(self, server: Server) -> None:
        own = {"Origin": server.address.rstrip("/")}
        for name, body, word in (
            ("rename", {"person_id": "nobody", "name": "Anna"}, "nobody"),
            ("rename", {"person_id": 3, "name": "Anna"}, "Expected `str`, got `int` - at `$.person_id`"),
            ("forget", {"person_ids": []}, "Expected `array` of length >= 1"),
            ("export_people", {"path": "relative.db"}, "absolute path"),
            ("set_target", {"rate": 7}, "target_false_accept_rate"),
            ("start_session", {"name": "x", "kind": "forever"}, "Invalid enum value 'forever'"),
        ):
            assert name in ACTIONS
            status, text = ask(server.address, f"api/{name}", method="POST", json=body, headers=own)
            assert (status, word in text) == (400, True), text

    def test_a_browser_that_hangs_slows_nobody(self, server: Server) -> None:
        async def watch() -> int:
            async with aiohttp.ClientSession() as session:
                own = server.address.rstrip("/")
                stream = server.address + "live"
                async with (
                    session.ws_connect(stream, origin=own) as hanging,
                    session.ws_connect(stream, origin=own) as other,
                ):
                    n_pictures = 0
                    async for message in other:
                        if message.type is aiohttp.WSMsgType.BINARY:
                            n_pictures += 1
                            await other.send_str("shown")
                        if n_pictures == 5:
                            break
                    pictures = texts = 0  # the one that shows nothing gets two pictures, and the status
                    while pictures < 2 or texts < 3:
                        is_picture = (await hanging.receive()).type is aiohttp.WSMsgType.BINARY
                        pictures += is_picture
                        texts += not is_picture and pictures >= 2
                    return pictures

        assert asyncio.run(asyncio.wait_for(watch(), PATIENCE_S)) == 2


@pytest.mark.parametrize("keeps", [True, False])
def test_a_picture_is_shown_only_where_the_owner_keeps_crops(
    models: Models, keeps: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    config = with_values(Config(), {"gallery.keep_crops": keeps})
    view = template(face(rng), crop=rng.integers(0, 256, (112, 112, 3), np.uint8))
    with Pipeline.open(config, tmp_path / "gallery.db", models=models) as pipeline:
        person = pipeline.gallery.add_person("Anna", [view])
        operator = LocalOperator(pipeline, open_source("sample"))
        (card,) = operator.overview().people
        assert card.picture == (person.template_ids[0] if keeps else None)
        with Server(operator) as server:
            assert ask(server.address, f"crop/{person.template_ids[0]}")[0] == (200 if keeps else 404)
            assert ask(server.address, "crop/999")[0] == 404


def test_two_entries_alike_are_named_unless_they_were_seen_side_by_side(models: Models) -> None:
    rng = np.random.default_rng(7)
    anna, other = face(rng), face(rng)
    alike = [template(unit(anna + 0.3 * face(rng))) for _ in range(3)]
    with Pipeline.open(Config(), None, models=models) as pipeline:
        operator = LocalOperator(pipeline, open_source("sample"))
        gallery = pipeline.gallery
        first = gallery.add_person("Anna", alike)
        second = gallery.add_person("", alike, is_stranger=True)
        gallery.add_person("Bob", [template(other)])
        ids = (first.person_id, second.person_id)
        assert [(one.first_id, one.second_id) for one in operator.overview().pairs] == [ids]
        sentence = f"Anna and {second.person_id} look like one person"
        assert sentence in [one.what for one in operator.verify().problems]
        together = tuple(Face(k, (0, 0, 9, 9), "known", who, "", 1, 1, "solid") for k, who in enumerate(ids))
        operator._show(Picture(np.zeros((9, 9, 3), np.uint8), together))
        assert not operator.overview().pairs
        assert sentence not in [one.what for one in operator.verify().problems]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium with chromedriver here (apt install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,900"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    browser.set_script_timeout(PATIENCE_S)
    yield browser
    browser.quit()


class Desk:
    """What an operator does on the page."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def find(self, css: str, text: str = "") -> list[Any]:
        found = self.browser.find_elements("css selector", css)
        return [one for one in found if text in (one.text or "")]

    def wait(self, condition: Callable[[], Any]) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(
            self.browser, PATIENCE_S, 0.1, ignored_exceptions=[StaleElementReferenceException]
        )
        return waiting.until(lambda _: condition())

    def click(self, css: str, text: str = "") -> None:
        def try_it() -> bool:
            found = self.find(css, text)
            if found:
                self.browser.execute_script("arguments[0].click()", found[0])
            return bool(found)

        self.wait(try_it)

    def type(self, css: str, text: str, is_submitted: bool = False) -> None:
        """Fill a field; again where the page draws it anew meanwhile."""

        def try_it() -> bool:
            found = self.find(css)
            for field in found[:1]:
                field.clear()
                field.send_keys(text)
                if is_submitted:
                    field.submit()
            return bool(found)

        self.wait(try_it)

    def severe(self) -> list[str]:
        """Return what the browser complained of since it was asked last."""
        return [one["message"] for one in self.browser.get_log("browser") if one["level"] == "SEVERE"]

    def names(self) -> list[str]:
        return [one.text for one in self.find(".card .name")]

    def open(self, tab: str) -> None:
        self.click(f"#tab-{tab}")

    def enroll(self, name: str) -> None:
        """Enroll the first face; again where it leaves the picture meanwhile, as on a machine under load."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._try_to_enroll(name):
            assert time.monotonic() < deadline, f"{name} could not be enrolled"

    def _try_to_enroll(self, name: str) -> bool:
        """Click the face where the picture shows it, give its name, and return whether it was stored."""
        script = """
            const canvas = document.getElementById('canvas'), done = arguments[0];
            import('/assets/live.js').then(({ live }) => {
              const go = () => {
                const face = live.faces()[0];
                if (!face) return setTimeout(go, 50);
                const [x1, y1, x2, y2] = face.box, place = canvas.getBoundingClientRect();
                const scale = place.width / 640;
                done([place.left + scale * (x1 + x2) / 2, place.top + scale * (y1 + y2) / 2]);
              };
              go();
            });"""

        def click_it() -> bool:
            from selenium.webdriver.common.actions.action_builder import ActionBuilder

            x, y = self.browser.execute_async_script(script)
            action = ActionBuilder(self.browser)
            action.pointer_action.move_to_location(round(x), round(y)).click()
            action.perform()
            return bool(self.find("#face-panel"))

        self.wait(click_it)
        if self.find("#enroll-name"):
            self.type("#enroll-name", name, is_submitted=True)
        else:  # known by now
            self.click("#face-panel button", "somebody else")
            if not self.find("dialog input"):  # the face has just left the picture
                return False
            self.type("dialog input", name)
            self.click("dialog button[type=submit]")
        shares = set()

        def outcome() -> str:
            width, text = self.browser.execute_script(
                "return [document.querySelector('.bar i')?.style.width,"
                " document.querySelector('.reasons')?.textContent]"
            )
            if width:
                kept, wanted = re.findall(r"\d+", text)[:2]
                assert float(width.rstrip("%")) == pytest.approx(100 * int(kept) / int(wanted), abs=0.01)
                shares.add(width)
            found = self.find("#outcome h2")
            return str(found[0].text) if found else ""

        is_stored = bool(self.wait(outcome) == f"{name} stored")
        assert shares or not is_stored, "the progress was never seen"
        return is_stored


@pytest.fixture(scope="module")
def desk(browser: Any, server: Server) -> Desk:
    browser.get(server.address)
    desk = Desk(browser)
    desk.wait(lambda: desk.find("#canvas[data-frames]"))
    return desk


@pytest.mark.slow
class TestInTheBrowser:
    """One story, in this order: each test goes on where the one before has ended."""

    def test_a_click_on_a_face_enrolls_it(self, desk: Desk) -> None:
        desk.enroll("Anna")
        desk.open("people")
        desk.wait(lambda: desk.names() == ["Anna"])
        desk.wait(lambda: desk.find(".chip.known", "Anna"))
        assert desk.find("#outcome")
        desk.click(".chip")  # on to the next face, without closing what became of the last one
        desk.wait(lambda: desk.find("#face-panel") and not desk.find("#outcome"))

    def test_a_name_that_is_a_script_stays_a_text(self, desk: Desk) -> None:
        name = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
        desk.click(".card .acts button", "Rename")
        desk.type("dialog input", name)
        desk.click("dialog button[type=submit]")
        desk.wait(lambda: desk.names() == [name])
        desk.wait(lambda: desk.find(".chip.known", "<script>"))
        desk.open("history")
        desk.wait(lambda: desk.find(".steps li", "<script>"))
        assert desk.browser.title == "Face recognition"
        assert not desk.find("#side img, #live img, #toasts img, body script")

    def test_undo_takes_the_name_back_and_redo_gives_it_again(self, desk: Desk) -> None:
        desk.click("#undo:enabled")
        desk.open("people")
        desk.wait(lambda: desk.names() == ["Anna"])
        desk.open("history")
        desk.click("#redo:enabled")
        desk.open("people")
        desk.wait(lambda: desk.names() != ["Anna"])
        desk.open("history")
        desk.click("#undo:enabled")
        desk.open("people")
        desk.wait(lambda: desk.names() == ["Anna"])

    def test_views_split_off_become_somebody_else_and_merge_brings_them_back(self, desk: Desk) -> None:
        desk.click(".card .acts button", "Views")
        desk.click("dialog .list input")
        desk.type("dialog label.field input", "Bob")
        desk.click("dialog button[type=submit]")
        desk.wait(lambda: desk.names() == ["Anna", "Bob"])
        desk.click(".card input[aria-label='Choose Anna']")
        desk.click(".card input[aria-label='Choose Bob']")
        desk.click("#merge:enabled")
        desk.click("dialog button[type=submit]")
        desk.wait(lambda: desk.names() == ["Anna"])

    def test_forget_can_be_undone_and_all_outlives_a_reload(self, desk: Desk) -> None:
        desk.click(".card .acts button", "Forget")
        desk.wait(lambda: desk.names() == [])
        desk.wait(lambda: desk.find(".toast.undo"))
        desk.open("history")
        desk.wait(lambda: desk.find(".steps li", "can be undone until"))
        desk.click("#undo:enabled")
        desk.wait(lambda: not desk.find(".toast.undo"))  # it would undo another change now
        desk.browser.refresh()
        desk.wait(lambda: desk.names() == ["Anna"])
        assert not desk.find("#outcome")  # what ended before the page was opened is old news

    def test_final_forgetting_asks_again(self, desk: Desk) -> None:
        desk.click(".card .acts button", "Forget for good")
        desk.wait(lambda: desk.find("dialog h2", "Anna"))
        desk.click("dialog button", "Cancel")
        desk.wait(lambda: not desk.find("dialog h2"))
        assert desk.names() == ["Anna"]
        desk.click(".card .acts button", "Forget for good")
        desk.click("dialog button[type=submit]")
        desk.wait(lambda: desk.names() == [])

    def test_a_stranger_gets_a_name(self, desk: Desk) -> None:
        desk.open("strangers")
        desk.click(".card .acts button", "Give a name")
        desk.type("dialog input", "Carl")
        desk.click("dialog button[type=submit]")
        desk.open("people")
        desk.wait(lambda: desk.names() == ["Carl"])
        desk.wait(lambda: desk.find(".chip.known", "Carl"))

    def test_a_known_face_is_said_to_be_known_and_can_be_somebody_else(self, desk: Desk) -> None:
        desk.enroll("Twin")
        desk.wait(lambda: desk.names() == ["Carl", "Twin"])

    def test_keys_do_what_buttons_do(self, desk: Desk) -> None:
        from selenium.webdriver.common.keys import Keys

        body = desk.find("body")[0]
        desk.wait(lambda: desk.find(".chip"))
        body.send_keys(Keys.ESCAPE)
        desk.wait(lambda: not desk.find("#outcome, #face-panel"))
        body.send_keys("1")
        desk.wait(lambda: desk.find("#face-panel"))
        desk.wait(lambda: desk.find("#face-panel input:focus, #face-panel button.main:focus"))
        body.send_keys(Keys.ESCAPE, "h")
        desk.wait(lambda: desk.find("#tab-history[aria-selected=true]"))
        body.send_keys("u")
        body.send_keys("p")
        desk.wait(lambda: desk.names() == ["Carl"])

    def test_sessions_and_the_check(self, desk: Desk) -> None:
        desk.open("gallery")
        desk.click("#view button", "session")
        desk.type("dialog input", "party")
        desk.click("dialog button[type=submit]")
        desk.wait(lambda: desk.find(".steps li", "party"))
        desk.click("#verify")
        desk.wait(lambda: desk.find("#verification .good", "no problem"))
        desk.open("people")
        desk.open("gallery")
        assert desk.find("#verification .good", "no problem")

    def test_an_export_replaces_an_older_one_only_where_that_is_chosen(
        self, desk: Desk, tmp_path: Path
    ) -> None:
        path = tmp_path / "people.db"
        for overwrites, text in ((False, "written to"), (False, "exists"), (True, "written to")):
            desk.open("people")  # and back: the form is drawn anew
            desk.open("gallery")
            if overwrites:
                desk.click("#overwrite")
            desk.type("#export_people-path", str(path), is_submitted=True)
            toast = desk.wait(lambda text=text: desk.find(".toast", text))[0].text
            assert "--overwrite" not in toast
            desk.browser.execute_script("document.getElementById('toasts').replaceChildren()")
        desk.click("#overwrite")
        (refused,) = desk.severe()
        assert "api/export" in refused

    def test_a_name_half_typed_stays_when_more_is_known_of_the_face(self, desk: Desk) -> None:
        """As when it becomes a stranger, or leaves the picture."""
        desk.browser.execute_script("document.querySelector('.chip').click()")
        desk.wait(lambda: desk.find("#face-panel"))
        script = """
            const done = arguments[0], track = Number(document.querySelector('.chip').dataset.track);
            const parts = [import('/assets/live.js'), import('/assets/enroll.js')];
            Promise.all(parts).then(([{ live }, panel]) => {
              const faces = live.faces, before = {
                track_id: track, box: [0, 0, 9, 9], state: "undecided", person_id: "", name: "",
                probability: 0, quality: 1, flatness: "solid", runner_up: "", runner_up_probability: 0,
              };
              const show = (face) => { live.faces = () => [face]; panel.update(); };
              show(before);
              document.getElementById("enroll-name").value = "Ann";
              show({ ...before, state: "stranger", person_id: "stranger-9" });
              const { value } = document.getElementById("enroll-name");
              live.faces = faces;
              panel.close();
              done(value);
            });"""
        assert desk.browser.execute_async_script(script) == "Ann"

    def test_a_name_that_could_not_be_enrolled_is_proposed_for_the_next_face_only(self, desk: Desk) -> None:
        script = """
            const done = arguments[0], part = (id) => document.getElementById(id);
            const parts = [import('/assets/live.js'), import('/assets/enroll.js')];
            Promise.all(parts).then(([{ live }, panel]) => {
              const { faces, onStatus } = live, face = {
                box: [0, 0, 9, 9], state: "undecided", person_id: "", name: "", probability: 0, quality: 1,
                flatness: "solid", flatness_source: "motion", runner_up: "", runner_up_probability: 0,
              };
              live.onStatus = () => {};
              live.faces = () => [{ ...face, track_id: 901 }, { ...face, track_id: 902 }];
              const running = {
                number: 99, is_running: true, track_id: 900, name: "Dora", views_kept: 0, wanted_views: 6,
                rejections: { too_dark: 2 }, coverage: [], hint: "Please turn your head.", known_id: "",
                known_name: "", known_probability: 0, outcome: "", message: "",
              };
              const ended = { ...running, is_running: false, outcome: "left", message: "the person left" };
              panel.showEnrollment(running);
              const height = part("panel").offsetHeight;
              panel.showEnrollment(ended);
              const jump = part("panel").offsetHeight - height;
              const outcome = part("outcome").innerText, proposed = [];
              for (const track of [901, 902]) {
                live.selected = track;
                panel.choose(track);
                proposed.push(part("enroll-name").value);
              }
              const isLive = !part("enroll-start").disabled, detail = part("detail").textContent;
              live.faces = () => [];
              setTimeout(() => {
                panel.update();
                const gone = [part("enroll-start").disabled, part("detail").textContent];
                Object.assign(live, { faces, onStatus });
                panel.close();
                done([outcome, jump, proposed, isLive, detail, gone]);
              }, 1100);
            });"""
        outcome, jump, proposed, is_live, detail, gone = desk.browser.execute_async_script(script)
        assert all(part in outcome for part in ("Nothing was stored", "2 × too dark", "Click the face"))
        assert jump == 0, "what is below would move under the finger"
        assert proposed == ["Dora", ""]
        assert is_live
        assert detail == "view quality 100 % · not flat by motion"
        assert gone == [True, "This face has left the picture; click it again when it is back."]

    def test_the_knob(self, desk: Desk) -> None:
        desk.open("accuracy")
        desk.wait(lambda: desk.find("#target", "1 in 100"))
        desk.find("#knob")[0].send_keys("\ue012")  # arrow left
        desk.wait(lambda: desk.find("#target", "1 in 200"))

    def test_nothing_jumps_while_pictures_come(self, desk: Desk) -> None:
        desk.open("people")
        script = """
            const done = arguments[0], before = Number(canvas.dataset.frames);
            let moved = 0;
            new PerformanceObserver((list) => list.getEntries().forEach((entry) => { moved += entry.value; }))
              .observe({ type: "layout-shift" });
            const go = () => (Number(canvas.dataset.frames) < before + 8 ? setTimeout(go, 50) : done(moved));
            setTimeout(go, 500);"""
        assert desk.browser.execute_async_script(script) < 0.005

    def test_a_phone_needs_no_sideways_scrolling(self, desk: Desk) -> None:
        desk.browser.set_window_size(500, 860)
        for tab in ("people", "strangers", "history", "gallery", "accuracy"):
            desk.open(tab)
            assert desk.browser.execute_script(
                "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            )
            small = """return [...document.querySelectorAll("button, input:not([type=checkbox])")]
                .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 40)
                .map((one) => one.outerHTML)"""
            assert desk.browser.execute_script(small) == []
        assert not desk.severe()

    def test_another_address_shows_nothing_without_the_token(
        self, desk: Desk, operator: LocalOperator
    ) -> None:
        with Server(operator, "0.0.0.0") as server:
            address, token = split(server)
            desk.browser.get(address)
            assert "needs the address with the token" in desk.find("body")[0].text
            desk.browser.get(f"{address}?token={token}")
            desk.wait(lambda: desk.find("#canvas[data-frames]"))
            assert desk.browser.current_url == address


def test_the_page_names_no_other_place() -> None:
    for path in (Path(__file__).parents[2] / "face_recognition_node/web/assets").iterdir():
        addresses = set(re.findall(r"https?://[^\s\"'`]+", path.read_text(encoding="utf-8")))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path
