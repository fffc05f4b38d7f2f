"""No secret within an address: it is refused where settings are read, and no message shows it."""

import pytest

from guard.service_url import without_credentials
from reward.records.files import BadInput
from reward.services.http_calls import JsonService, check_proxies
from reward.settings.recipe import load_judge, load_tenant
from reward.settings.services import RagSettings
from tests.support.commands import run_python

SECRETS = [
    "http://me:s3cret@host:8000/v1",
    "https://s3cret@host",
    "HTTP://me:s3cret%40@host",
    "me:s3cret@host:8000",
    "//me:s3cret@host",
    "http:/me:s3cret@host",
    "http:\\\\me:s3cret@host",
    "http://a@s3cret@host/",
    "http://host/v1?api_key=s3cret",
    "http://host#s3cret",
]
HARMLESS = ["http://host:8000", "https://host/v1/", "http://[::1]:8000/v1", "http://host/of/a@b"]


@pytest.mark.parametrize("url", SECRETS)
def test_settings_refuse_a_secret_and_do_not_show_it(tmp_path, url):
    tenant, judge = tmp_path / "tenant.yaml", tmp_path / "judge.yaml"
    for service in ("rag", "baseline"):
        tenant.write_text(f"{{tenant_id: t, short_id: t, system_prompt: p, {service}: {{url: '{url}'}}}}")
        with pytest.raises(BadInput, match=rf"tenant\.yaml: {service}\.url: .*must not hold") as refusal:
            load_tenant(str(tenant))
        assert "s3cret" not in str(refusal.value)
    judge.write_text(f"{{model: m, base_url: '{url}', price: {{currency: CNY, input: 1, cached_input: 1, output: 1}}}}")
    with pytest.raises(BadInput, match=r"judge\.yaml: base_url: .*must not hold") as refusal:
        load_judge(str(judge))
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize("url", HARMLESS)
def test_an_address_without_secrets_stays_as_it_is(url):
    assert RagSettings(url=url).url == url


@pytest.mark.parametrize("url", SECRETS[:8])
def test_messages_show_no_credentials(url):
    assert "s3cret" not in without_credentials(f"cannot connect to {url}: '{url}'")


def test_a_client_that_is_given_no_url_shows_no_credentials():
    with pytest.raises(BadInput, match=r"\*\*\*@host:x") as refusal:
        JsonService("http://me:s3cret@host:x", RagSettings())
    assert "s3cret" not in str(refusal.value)


def test_a_proxy_that_is_none_is_named_without_its_credentials(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:s3cret@proxy:1")
    with pytest.raises(BadInput, match="HTTPS_PROXY") as refusal:
        check_proxies()
    assert "s3cret" not in str(refusal.value)


def test_options_of_commands_are_refused_the_same_way(tmp_path):
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"query": "鱼油怎么吃"}\n')
    arguments = ["--queries", str(queries), "--tenant", "fivedoctors", "--out", str(tmp_path / "out.xlsx")]
    ended = run_python("-m", "data_prep.run_bvt", *arguments, "--rag-url", "http://me:s3cret@host")
    assert ended.returncode == 2
    assert "user or password" in ended.stderr
    assert "s3cret" not in ended.stdout + ended.stderr
