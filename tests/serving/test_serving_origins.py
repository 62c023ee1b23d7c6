"""Which names and web pages a server answers to."""

import json
from pathlib import Path

import pytest
from starlette.datastructures import Headers
from test_serving_supervisor import running

from darkroom.serving.origins import OriginPolicy
from small_bundles import write_small_bundle

LOCAL = OriginPolicy(is_local=True)
CONTAINER = OriginPolicy()
NAMED = OriginPolicy(hosts=("shop.example.com", "*.internal"))
LET_THROUGH = [
    (LOCAL, {"host": "localhost:8080"}),
    (LOCAL, {"host": "127.0.0.1:8080"}),
    (LOCAL, {"host": "[::1]:8080"}),
    (LOCAL, {"host": "127.8.8.8"}),
    (LOCAL, {}),
    (LOCAL, {"host": "localhost:8080", "origin": "http://localhost:8080"}),
    (
        LOCAL,
        {"host": "127.0.0.1:80", "origin": "http://127.0.0.1:80", "sec-fetch-site": "same-origin"},
    ),
    (CONTAINER, {"host": "model.aws.local:8080"}),
    (CONTAINER, {"host": "10.0.0.7:8080", "origin": "http://10.0.0.7:8080"}),
    (NAMED, {"host": "shop.example.com"}),
    (NAMED, {"host": "a.internal:8080", "origin": "https://shop.example.com"}),
    (NAMED, {"host": "localhost:8080"}),
    (OriginPolicy(hosts=("*",), is_local=True), {"host": "x", "origin": "https://y.example"}),
]
REFUSED = [
    (LOCAL, {"host": "evil.example"}),
    (LOCAL, {"host": "localhost.evil.example:8080"}),
    (LOCAL, {"host": "192.168.0.9"}),
    (LOCAL, {"host": ""}),
    (LOCAL, {"host": "evil.example@localhost"}),
    (LOCAL, {"host": "evil.example/.localhost"}),
    (LOCAL, {"host": "localhost#.evil.example"}),
    (LOCAL, {"host": "[::1"}),
    (LOCAL, {"host": "localhost", "origin": "https://evil.example"}),
    (LOCAL, {"host": "localhost:8080", "origin": "http://localhost:9999"}),
    (LOCAL, {"host": "localhost", "origin": "null"}),
    (LOCAL, {"host": "localhost", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}),
    (LOCAL, {"host": "localhost", "sec-fetch-site": "Same-Site"}),
    (CONTAINER, {"host": "evil.example", "origin": "http://evil.example"}),
    (CONTAINER, {"host": "10.0.0.7", "origin": "https://evil.example"}),
    (NAMED, {"host": "evil.example"}),
    (NAMED, {"host": "shop.example.com", "origin": "https://evil.example"}),
]


@pytest.mark.parametrize(("policy", "headers"), LET_THROUGH, ids=str)
def test_who_asks_as_the_server_is_called_is_let_through(
    policy: OriginPolicy, headers: dict[str, str]
) -> None:
    assert policy.problem(Headers(headers), method="POST") == ""


@pytest.mark.parametrize(("policy", "headers"), REFUSED, ids=str)
def test_other_names_and_pages_are_refused(policy: OriginPolicy, headers: dict[str, str]) -> None:
    assert "--allowed-hosts" in policy.problem(Headers(headers), method="POST")


def test_two_hosts_have_to_be_right_both() -> None:
    hosts = Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example")])
    assert "'evil.example'" in LOCAL.problem(hosts, method="GET")


def test_a_link_of_another_site_may_lead_to_the_page() -> None:
    visit = {"host": "localhost", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert LOCAL.problem(Headers(visit), method="GET") == ""
    assert LOCAL.problem(Headers(visit), method="POST")


def test_no_web_page_reaches_a_server_on_its_visitors_machine(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "models" / "first")
    order = json.dumps({"model_name": "other", "url": "first"}).encode()
    with running("--models", str(tmp_path / "models")) as (_, client):
        for method, path, body in (
            ("POST", "/invocations", b"x"),
            ("POST", "/models", order),
            ("GET", "/models", None),
            ("DELETE", "/models/first", None),
            ("GET", "/", None),
        ):
            for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
                answer = client.send(
                    method, path, body=body, headers=headers, content_type="application/json"
                )
                assert answer.status == 403, (method, path, headers)
        plain = client.send(path="/models", body=order, content_type="text/plain")
        assert (plain.status, plain.headers["accept"]) == (415, "application/json")
        assert client.send("GET", "/models/first").content["loaded"] is False


def test_a_server_on_every_interface_answers_to_any_name_of_a_program(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    with running(str(bundle), "--host", "0.0.0.0") as (_, client):
        named = {"Host": "model.aws.local"}
        assert client.send("GET", "/ping", headers=named).status == 200
        rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
        assert client.send("GET", "/ping", headers=rebound).status == 403
