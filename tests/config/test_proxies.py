"""Proxies of the environment and of rows: which hosts they serve, and which never."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanout.config.proxies import describe_proxy, read_proxies
from tests.support.builders.settings import collect_faults, load_own_settings


def find_proxy(environ: dict[str, str], address: str, own: str | None = None) -> str | None:
    """Return the proxy for `scheme host [port]`."""
    scheme, host, *port = address.split()
    proxy = read_proxies(environ, own)[0].find(scheme, host, int(port[0]) if port else None)
    return proxy.get_secret_value() if proxy else None


@pytest.mark.parametrize(
    ("environ", "address", "proxy"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, "https api.example", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http api.example", None),
        ({"HTTP_PROXY": "p:1"}, "http api.example", "http://p:1"),
        ({"HTTPS_PROXY": "http://P:1", "https_proxy": "http://p:2"}, "https api.example", "http://p:2"),
        ({"HTTPS_PROXY": ""}, "https api.example", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "https api.example", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other.example, .example"}, "https api.example", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example"}, "https notexample", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "api.example:8443"}, "https api.example 8443", None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "api.example:8443"}, "https api.example 443", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8,*.lab"}, "https 10.1.2.3", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8,*.lab"}, "https a.lab", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https localhost 8080", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https 127.8.0.1 8080", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https ::1", None),
    ],
)
def test_the_variables_mean_what_they_mean_to_curl(environ: dict[str, str], address: str, proxy: str | None) -> None:
    assert find_proxy(environ, address) == proxy


def test_a_rows_own_proxy_replaces_that_of_the_environment_but_not_for_this_machine() -> None:
    environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}
    assert find_proxy(environ, "https api.example", "http://own:2") == "http://own:2"
    assert find_proxy(environ, "http localhost", "http://own:2") is None
    assert find_proxy({"HTTPS_PROXY": "http://p:1"}, "https api.example", "") is None


def test_an_address_that_is_no_proxys_is_a_fault_that_does_not_show_it(tmp_path: Path) -> None:
    assert collect_faults(tmp_path, {}, HTTPS_PROXY="socks5://user:secret@p:1") == [
        "environment: HTTPS_PROXY: is not the address of an HTTP proxy, like `http://proxy.example:3128`"
    ]
    row = {"adapter": "openai", "base_url": "https://h.example/v1", "proxy": "http://user:secret@p:1"}
    (fault,) = collect_faults(tmp_path, {"providers": {"p": row}})
    assert fault == "own: providers.p.proxy: is not the address of an HTTP proxy without a password"


def test_a_password_of_a_proxy_is_never_shown(tmp_path: Path) -> None:
    settings = load_own_settings(tmp_path, {}, HTTPS_PROXY="http://user:secret@p.example:1")
    proxy = settings.providers["openai"].proxies.find("https", "api.openai.com")
    assert proxy
    assert describe_proxy(proxy) == "http://p.example:1"
    assert "secret" not in repr(settings)
