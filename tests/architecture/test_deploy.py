"""What stands in `deploy/` fits the server: ports, metrics, users, settings. No engine is needed."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving import settings
from serving.settings import ServerSettings
from tests.e2e.exact_retriever import ExactRetriever
from tests.e2e.test_wire import running

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
METRIC = re.compile(r"\b(?:recsys|process)_\w+")
MANUAL = DEPLOY / "README.md"


def expressions() -> Iterator[tuple[str, str]]:
    """Where each expression stands, and the expression."""
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    board = json.loads((DEPLOY / "grafana/dashboards/recsys.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        yield variable["name"], variable["query"]["query"]


def manifests() -> dict[str, Any]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes/server.yaml").read_text())
    return {document["kind"]: document for document in documents}


def container() -> dict[str, Any]:
    (only,) = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return only


def shipped() -> ServerSettings:
    return settings.load(DEPLOY / "server.toml")


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """Every sample name that a real server exports, with those that have no value yet."""
    names = set()
    with running(ExactRetriever(), telemetry={"metrics_port": 0}) as server:
        url = f"http://{server.observation.metrics_address}/metrics"
        text = urllib.request.urlopen(url, timeout=10).read().decode()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        names |= {name + ending for ending in endings}
    return names


def test_every_metric_of_dashboard_and_alerts_is_exported(exported):
    asked = [(where, name) for where, expression in expressions() for name in METRIC.findall(expression)]
    assert len({name for _, name in asked}) > 15
    assert [(where, name) for where, name in asked if name not in exported] == []


def test_every_metric_of_the_server_is_shown_or_watched(exported):
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported if name.startswith("recsys_")}
    asked = " ".join(expression for _, expression in expressions())
    assert sorted(name for name in ours if name not in asked) == []


def test_every_expression_asks_for_something():
    for where, expression in expressions():
        assert METRIC.search(expression) or expression.startswith("up{"), where


def test_every_alert_says_what_is_wrong_and_what_to_do():
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("page", "warn", "info")
            assert rule["annotations"].keys() == {"summary", "action"}


def test_panels_of_the_dashboard_do_not_overlap():
    places = set()
    for panel in json.loads((DEPLOY / "grafana/dashboards/recsys.json").read_text())["panels"]:
        grid = panel["gridPos"]
        taken = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert grid["x"] + grid["w"] <= 24
        assert not taken & places, panel["title"]
        places |= taken


def test_the_ports_of_a_container_are_those_of_its_settings():
    ports = [shipped().port, shipped().telemetry.metrics_port]
    assert ports[0] == ServerSettings().port
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^EXPOSE (.*)$", dockerfile, re.MULTILINE)[1].split() == [str(port) for port in ports]
    assert [port["containerPort"] for port in container()["ports"]] == ports
    assert [port["port"] for port in manifests()["Service"]["spec"]["ports"]] == ports
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["grpc"]["port"] == ports[0]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert compose["server"]["ports"] == [f"127.0.0.1:{ports[0]}:{ports[0]}"]
    (job,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"server:{ports[1]}"]}]


def test_kubernetes_gets_the_settings_of_the_image():
    inner = tomllib.loads(manifests()["ConfigMap"]["data"]["server.toml"])
    assert inner == tomllib.loads((DEPLOY / "server.toml").read_text())


def test_nothing_runs_as_root_or_may_become_it():
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    *_, final = dockerfile.split("\nFROM ")
    assert re.search(r"^USER (\d+):(\d+)$", final, re.MULTILINE).groups() == ("10001", "10001")
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert container()["securityContext"]["allowPrivilegeEscalation"] is False
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True


def test_a_pod_gets_longer_to_end_than_its_calls():
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    before_s = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > before_s + shipped().drain_s


def test_selectors_find_their_pods():
    found = manifests()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert found["PodDisruptionBudget"]["spec"]["maxUnavailable"] < found["Deployment"]["spec"]["replicas"]


def test_the_image_gets_what_its_dockerfile_copies():
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {package.rstrip("*") for package in packages} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(source == each or source.startswith(f"{each}/") for each in let_in), source


def test_the_image_runs_the_versions_that_were_tested():
    pins = {}
    for name in ("serve", "dev"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        pins[name] = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", text, re.MULTILINE))
    assert pins["serve"].items() <= pins["dev"].items()
    assert "tensorflow-recommenders" not in pins["serve"]
    assert all(name in pins["serve"] for name in ("grpcio", "scann", "prometheus-client"))


def settings_and_defaults(cls: type, section: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(cls):
        default = getattr(cls(), field.name)
        if dataclasses.is_dataclass(default):
            yield from settings_and_defaults(type(default), f"{field.name}.")
        else:
            yield section + field.name, default


def test_the_operators_table_has_every_setting_with_its_default():
    _, table = MANUAL.read_text().split("| setting | default | meaning |")
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (\S.*?) \|", table, re.MULTILINE))
    expected = {}
    for name, default in settings_and_defaults(ServerSettings):
        expected[name] = "none" if default in (None, "") else f"`{default}`"
    assert rows == expected


def test_every_setting_is_documented_at_its_class():
    sections = [type(getattr(ServerSettings(), field.name)) for field in dataclasses.fields(ServerSettings)]
    for cls in (ServerSettings, *(each for each in sections if dataclasses.is_dataclass(each))):
        for field in dataclasses.fields(cls):
            assert f"    {field.name}: " in (inspect.getdoc(cls) or "")
