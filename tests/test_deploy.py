"""What docs/deploy holds is valid and is about this server: manifests against their schemas and the server's own flags,
routes and ports; dashboards and alerts against the metrics that both front ends serve.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from elude.handlers.requests.routes import ROUTES, WEB
from elude.handlers.settings import OVERRIDES, Settings
from elude.handlers.web.run import TOKEN, parser

FOLDER = Path(__file__).parent.parent / "docs/deploy"
BASE = FOLDER / "kubernetes"
DOCKERFILES = sorted(FOLDER.glob("Dockerfile*"))


def resources() -> dict[str, dict[str, Any]]:
    """Kind → manifest of the base."""
    names = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    return {made["kind"]: made for made in (yaml.safe_load((BASE / name).read_text()) for name in names)}


def container() -> dict[str, Any]:
    (found,) = resources()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_kubernetes_manifests_fit_the_schemas() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    manifests = resources()
    assert set(manifests) == {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"}
    for manifest in manifests.values():
        validate.validate(manifest, "1.34", strict=True)
    manifests["Deployment"]["spec"]["template"]["spec"]["containers"][0]["port"] = 1
    with pytest.raises(validate.ValidationError):
        validate.validate(manifests["Deployment"], "1.34", strict=True)


def test_the_base_names_only_files_that_are_there_and_nothing_is_left_over() -> None:
    base = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    assert (base["apiVersion"], base["kind"]) == ("kustomize.config.k8s.io/v1beta1", "Kustomization")
    assert set(base) == {"apiVersion", "kind", "resources", "configMapGenerator", "images"}
    (generated,) = base["configMapGenerator"]
    files = {"kustomization.yaml", *base["resources"], *generated["files"]}
    assert {path.name for path in BASE.iterdir()} == files
    volumes = resources()["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert generated["name"] in [volume.get("configMap", {}).get("name") for volume in volumes]
    assert [image["name"] for image in base["images"]] == [container()["image"]]


def test_the_container_starts_the_server_as_it_can_be_started() -> None:
    given = parser().parse_args(container()["args"])
    (port,) = container()["ports"]
    assert (given.host, given.port) == ("0.0.0.0", port["containerPort"])
    names = {entry["name"]: entry for entry in container()["env"]}
    assert set(names) == {TOKEN, OVERRIDES}
    folder, _, file = names[OVERRIDES]["value"].rpartition("/")
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert mounts == {"settings": folder, "private": "/tmp"}  # it writes private copies, and the rest is read-only
    assert Settings.from_json(json.loads((BASE / file).read_text())).steering == "presets"
    dockerfile = (FOLDER / "Dockerfile.web").read_text()
    assert json.loads(re.findall(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)[0])[1:] == ["-m", "elude.handlers.web"]
    plain = parser().parse_args(json.loads(re.findall(r"^CMD (.*)$", dockerfile, re.MULTILINE)[0]))
    assert (plain.served, plain.port) == (given.served, given.port)
    assert f"EXPOSE {given.port}\n" in dockerfile


def test_probes_ask_for_routes_that_need_no_key() -> None:
    free = {route.path for route in ROUTES if WEB in route.fronts and route.method == "GET" and not route.key}
    probes = [container()[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert {probe["path"] for probe in probes} <= free
    assert {probe["port"] for probe in probes} == {container()["ports"][0]["name"]}


def test_traffic_reaches_the_server_s_port_and_no_other() -> None:
    manifests, port = resources(), container()["ports"][0]
    (service,) = manifests["Service"]["spec"]["ports"]
    (rule,) = manifests["NetworkPolicy"]["spec"]["ingress"]
    assert (service["targetPort"], rule["ports"]) == (port["name"], [{"port": port["containerPort"]}])
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [manifests["Deployment"]["spec"]["selector"]["matchLabels"], manifests["Service"]["spec"]["selector"]]
    selectors += [manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]]
    selectors += [manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]]
    assert all(selector.items() <= labels.items() for selector in selectors)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_are_clean_and_pinned(path: Path) -> None:
    text = path.read_text()
    assert re.search(r"^FROM \S+:\d\S+$", text, re.MULTILINE)
    (installed,) = re.findall(r"pip install (.*?)&&", text, re.DOTALL)
    packages = [word for word in installed.split() if not word.startswith(("-", "http", "\\"))]
    assert len(packages) >= 5
    assert all("==" in package for package in packages)
    if shutil.which("hadolint"):
        done = subprocess.run(["hadolint", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_container_s_torchserve_listens_as_the_documents_say() -> None:
    lines = (FOLDER / "config.properties").read_text().splitlines()
    properties = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert properties["management_address"].startswith("http://127.0.0.1")
    assert "disable_token_authorization" not in properties
    # TorchServe decodes %2e%2e after it has compared: a pattern of a folder allows every file.
    assert re.fullmatch(properties["allowed_urls"], "file:///home/serve/store/elude.mar")
    assert not re.fullmatch(properties["allowed_urls"], "file:///home/serve/store/%2e%2e/evil.mar")


def test_alerts_pass_prometheus_s_own_check() -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        ["promtool", "check", "rules", str(FOLDER / "alerts.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
