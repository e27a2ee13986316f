"""The local page: answers, refusals, and whoever would do harm with it."""

import concurrent.futures
import contextlib
import dataclasses
import http.client
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import serve
import uvicorn
from PIL import Image

from datasets.challenge import CLASSES
from deploy import answers
from deploy.page import build_app
from deploy.predictor import Prediction
from misc_utils.errors import UserError
from reports.pages import _environment

ROOT = Path(__file__).resolve().parents[1]
BOUNDARY = "between"


class Nets:
    """Answers as a Predictor does, in a time of one's choosing; counts how many at once."""

    def __init__(self, seconds=0.0, fail=False, found=True, compared=True):
        self.seconds, self.fail = seconds, fail
        self.found, self.compared = found, compared
        self.now = self.most = self.asked = 0

    def predict_batch(self, images):
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        self.now -= 1
        if self.fail:
            raise RuntimeError("a net broke")
        (image,) = images
        height, width = image.shape[:2]
        mask = np.zeros((height, width), np.uint8)
        if self.found:
            mask[height // 4 : height // 2, width // 4 : width // 2] = 255
        from datasets.boxes import bounding_box

        return [
            Prediction(
                height,
                width,
                mask,
                None,
                bounding_box(mask),
                {"MEL": 0.75, "<b>NV</b>": 0.25},
                "MEL",
                heat=np.ones((4, 4), np.float32),
                seen=np.zeros((32, 32, 3), np.uint8),
                unlikeness=1.5 if self.compared else None,
            )
        ]


@contextlib.contextmanager
def served(nets, **limits):
    """The page at a port of this machine; gives the port."""
    server = uvicorn.Server(uvicorn.Config(build_app(nets, ["net one"], **limits), **serve.SERVER))
    with serve.bind(0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def port():
    with served(Nets(), most_bytes=300_000, seconds=3) as found:
        yield found


def picture(kind="JPEG", size=(90, 60)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 150, 120)).save(buffer, kind)
    return buffer.getvalue()


def form(content, filename="photo.jpg", field="image"):
    head = f'Content-Disposition: form-data; name="{field}"; filename="{filename}"'
    start = f"--{BOUNDARY}\r\n{head}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
    return start + content + f"\r\n--{BOUNDARY}--\r\n".encode()


FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def request(port, method="POST", path="/", body=None, **headers):
    """Status, headers and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, (FORM if body is not None else {}) | headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), text


def problem(text):
    found = re.search(r'role="alert">.*?<p>(.*?)</p>', text, re.DOTALL)
    return found[1] if found else ""


def test_an_image_is_answered_in_one_page_without_other_files(port):
    status, _, text = request(port, body=form(picture(), "my <i>photo</i>.jpg"))
    assert status == 200
    assert '<h2 id="heading">my &lt;i&gt;photo&lt;/i&gt;.jpg</h2>' in text
    assert "<strong>MEL</strong>" in text and ".750" in text and "&lt;b&gt;NV&lt;/b&gt;" in text
    assert "Unlike the training images</p>" in text and "Not for diagnosis" in text
    assert "lesion: 6." in text and "net one" in text
    images = re.findall(r'<img src="([^"]+)" alt="([^"]+)"', text)
    assert len(images) == 3 and all(one.startswith("data:image/jpeg;base64,") for one, _ in images)
    assert all(alt for _, alt in images)
    outside = re.findall(r"""(?:src|href|action|url)\s*[=(]\s*["']?([^"'\s>)]+)""", text)
    assert {one.split(",")[0] for one in outside} <= {"data:image/jpeg;base64", "data:", "/"}
    assert "://" not in text


def test_abbreviations_of_the_challenge_are_spelt_out(tmp_path):
    answered = Nets().predict_batch([np.zeros((60, 90, 3), np.uint8)])[0]
    probability = dict.fromkeys(CLASSES, 0.1) | {"MEL": 0.4}
    row = answers.row_of("photo", dataclasses.replace(answered, probability=probability))
    card = answers.card_of(row | {"path": "photo.jpg", "files": {}})
    answer = _environment().get_template("answer.html.j2").module.answer(card)
    assert "<strong>MEL</strong>, melanoma</p>" in answer
    assert "BCC<small>, basal cell carcinoma</small>" in answer
    del row["probability"]["VASC"]  # other classes: MEL may mean anything
    card = answers.card_of(row | {"path": "photo.jpg", "files": {}})
    answer = _environment().get_template("answer.html.j2").module.answer(card)
    assert "<strong>MEL</strong></p>" in answer and "<small>" not in answer


def test_the_page_draws_what_it_shows_alone(port, monkeypatch):
    encoded = []
    draw = answers.encode
    monkeypatch.setattr(answers, "encode", lambda *a: encoded.append(a[0]) or draw(*a))
    assert request(port, body=form(picture()))[0] == 200
    assert encoded == [".jpg"] * 3


def test_browsers_are_told_to_load_and_frame_nothing(port):
    answers = [
        request(port, "GET"),
        request(port, body=form(picture())),
        request(port, body=form(b"no picture")),
        request(port, "GET", "/nothing"),
        request(port, "GET", Host="elsewhere.org"),
    ]
    assert [status for status, _, _ in answers] == [200, 200, 422, 404, 421]
    nonces = set()
    for _, headers, text in answers:
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ") and "frame-ancestors 'none'" in policy
        assert "unsafe-inline" not in policy.split("script-src")[1]
        assert headers["x-frame-options"] == "DENY" and headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff" and "server" not in headers
        nonce = re.search("'nonce-(.+?)'", policy)[1]
        assert text.count("<script") == text.count(f'<script nonce="{nonce}">')
        nonces.add(nonce)
    assert len(nonces) == 5


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("LOCALHOST:8000", 200),
        ("localhost:evil.org", 421),
        ("elsewhere.org", 421),
        ("127.0.0.1.elsewhere.org", 421),
        ("localhost@elsewhere.org", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
def test_it_answers_to_the_names_of_this_machine_alone(port, host, status):
    assert request(port, "GET", Host=host)[0] == status


def test_forms_of_other_sites_are_refused(port):
    own = f"http://127.0.0.1:{port}"
    for origin, status in ((own, 200), ("http://elsewhere.org", 403), ("null", 403)):
        assert request(port, body=form(picture()), Origin=origin)[0] == status
    other_port = f"http://127.0.0.1:{port + 1}"
    assert request(port, body=form(picture()), Origin=other_port)[0] == 403


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (form(b"no picture at all"), {}, 422, "photo.jpg: no picture"),
        (form(picture()[:400]), {}, 422, "photo.jpg: "),
        (form(b"<script>alert(1)</script>", "x.jpg"), {}, 422, "x.jpg: no picture"),
        (form(picture("PNG", (9000, 9000))), {}, 422, "million pixels"),
        (form(b""), {}, 422, "photo.jpg: the file is empty"),
        (form(picture(), field="other"), {}, 400, "No image was sent"),
        (form(b"", ""), {}, 400, "No image was sent"),
        (b"--between\r\nnonsense", {}, 400, "No image was sent"),
        (form(picture(), field="a")[:-13] + form(picture()), {}, 400, "holds more than one"),
        (form(picture()), {"Content_Type": "multipart/form-data"}, 400, "damaged"),
        (picture(), {"Content_Type": "image/jpeg"}, 415, "Expected the form"),
        (form(bytes(2_000_000)), {}, 413, "larger than 0.3 MB"),
    ],
)
def test_what_cannot_be_answered_is_said(port, body, headers, status, said):
    found, _, text = request(port, body=body, **headers)
    assert found == status and said in problem(text)


@pytest.mark.parametrize("charset", ["undefined", "unicode_escape", "rot13", "nothing"])
def test_a_form_of_another_charset_is_answered_or_refused(port, charset):
    kind = f"Multipart/Form-Data; charset={charset}; boundary={BOUNDARY}"
    status, headers, _ = request(port, body=form(picture(), "\\ud800.jpg"), Content_Type=kind)
    assert status in (200, 400) and "content-security-policy" in headers


def test_an_image_of_the_most_bytes_is_taken(port):
    content = picture() + bytes(300_000 - len(picture()))
    assert request(port, body=form(content))[0] == 200
    assert request(port, body=form(content + bytes(20_000)))[0] == 413


def test_a_name_is_shown_as_it_is(port):
    _, _, text = request(port, body=form(picture(), "a%22b \u00fc\u202e.jpg"))
    assert 'id="heading">a&#34;b \u00fc\u202e.jpg<' in text


def test_where_no_lesion_is_found_none_is_shown():
    with served(Nets(found=False, compared=False)) as port:
        _, _, text = request(port, body=form(picture()))
    assert "no lesion found" in text and "cropped" not in text and "outlined" not in text
    assert "Not compared with the training images" in text
    assert "“Unlike the training images”" not in text


def test_a_picture_that_is_a_page_too_is_drawn_anew(port):
    status, headers, text = request(port, body=form(picture() + b"<script>alert(1)</script>"))
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert "alert(1)" not in text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "MADE-UP"])
def test_other_methods_are_refused(port, method):
    assert request(port, method)[0] in (400, 405)


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "//etc/passwd", "/%00", "/x?y=/etc"]
)
def test_no_path_leads_to_a_file(port, path):
    status, _, text = request(port, "GET", path)
    assert status in (400, 404) and "root:" not in text


def send(port, *parts):
    """Sends parts as they are, and gives what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        found = b""
        while not found.endswith(b"</html>") and (more := connection.recv(65536)):
            found += more
        return found


def test_who_sends_slowly_is_told_so_and_holds_nobody_up(port):
    head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {FORM['Content-Type']}\r\n"
    head = (head + "Content-Length: 5000\r\n\r\n").encode()
    with concurrent.futures.ThreadPoolExecutor() as threads:
        slow = [threads.submit(send, port, head, b"--betw") for _ in range(3)]
        assert request(port, body=form(picture()))[0] == 200
        for one in slow:
            found = one.result()
            assert found.startswith(b"HTTP/1.1 408") and b"did not arrive within 3 s" in found


def test_a_connection_without_a_request_is_ended(monkeypatch):
    monkeypatch.setattr("deploy.page.SECONDS", 0.3)
    with served(Nets(seconds=0.6)) as port:
        for begun in (b"", b"GET / HTTP/1.1\r\nHost: local"):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(begun)
                assert connection.recv(100) == b""
        assert request(port, body=form(picture()))[0] == 200  # a request may take longer


def test_a_size_that_is_not_told_is_counted(port):
    def parts():
        yield form(b"")[:90]
        for _ in range(40):
            yield bytes(50_000)

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/", parts(), FORM, encode_chunked=True)
    assert connection.getresponse().status in (400, 413)


def test_one_image_at_a_time_and_few_wait():
    nets = Nets(seconds=0.05)
    with served(nets, most_waiting=4) as port:
        with concurrent.futures.ThreadPoolExecutor(200) as threads:
            answers = list(threads.map(lambda _: request(port, body=form(picture())), range(200)))
        found = [status for status, _, _ in answers]
        assert set(found) == {200, 503} and found.count(200) == nets.asked >= 4
        assert nets.most == 1
        _, headers, text = next(one for one in answers if one[0] == 503)
        assert "4 images are waiting already" in problem(text) and headers["retry-after"]
        assert request(port, body=form(picture()))[0] == 200  # and it goes on


def test_who_has_gone_is_not_answered():
    nets = Nets(seconds=0.5)
    with served(nets) as port:
        first = threading.Thread(target=request, args=(port,), kwargs={"body": form(picture())})
        first.start()
        time.sleep(0.2)
        body = form(picture())
        head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM['Content-Type']}\r\n"
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as gone:
                gone.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        first.join()
        assert request(port, body=form(picture()))[0] == 200
    assert nets.asked == 2


def test_a_net_that_fails_is_said_and_the_page_goes_on(caplog):
    nets = Nets(fail=True)
    with served(nets) as port:
        for _ in range(2):
            status, _, text = request(port, body=form(picture()))
            assert status == 500 and "photo.jpg: the networks could not answer" in problem(text)
            assert "a net broke" not in text
    assert "a net broke" in caplog.text


def test_nothing_is_kept_and_nothing_leaves_this_machine(tmp_path, monkeypatch):
    connect, written = socket.socket.connect, []

    def within(self, address):
        assert address[0] == "127.0.0.1", address
        return connect(self, address)

    def look_up(*arguments, **named):
        raise AssertionError(f"asked for the address of {arguments}")

    def hook(event, arguments):
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            written.append(arguments[0])

    with served(Nets()) as port:
        monkeypatch.setattr(socket.socket, "connect", within)
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        sys.addaudithook(hook)
        body = form(
            np.random.default_rng(0).bytes(3_000_000)
        )  # more than is kept in memory, mostly
        with socket.socket() as connection:
            connection.connect(("127.0.0.1", port))
            head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM['Content-Type']}\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert connection.recv(100).startswith(b"HTTP/1.1 422")
    assert not list(tmp_path.iterdir()) and not written


def test_an_end_while_the_networks_are_asked_is_said(monkeypatch, caplog):
    monkeypatch.setitem(serve.SERVER, "timeout_graceful_shutdown", 0.3)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        with served(Nets(seconds=1.5)) as port:
            waiting = threads.submit(request, port, body=form(picture()))
            time.sleep(0.5)
        status, _, text = waiting.result()
    assert status == 503 and problem(text) == "The page was closed meanwhile."
    assert "Traceback" not in caplog.text


def test_a_taken_port_is_said():
    with serve.bind(0) as taken, pytest.raises(UserError, match=r"--port \d+: cannot be used"):
        serve.bind(taken.getsockname()[1])
    with pytest.raises(UserError, match="--port 99999: cannot be used"):
        serve.bind(99999)


def test_the_script_serves_and_ends_by_ctrl_c(trained_root):
    command = [sys.executable, str(ROOT / "runs/serve.py"), "--port", "0", "--no-mask"]
    environment = os.environ | {"ISIC_ROOT": str(trained_root)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        port = int(re.search(r"127.0.0.1:(\d+)", process.stdout.readline())[1])
        file = next((trained_root / "data/ISIC2018_Task3_Test_Input").glob("*.jpg"))
        status, _, text = request(port, body=form(file.read_bytes(), file.name))
        assert status == 200 and "task3_tiny_v0" in text and text.count("<img") == 2
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130 and err.endswith("ended by SIGINT\n")
        assert "Traceback" not in err
    finally:
        process.kill()
