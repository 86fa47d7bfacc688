"""The manifests in docs/deploy are valid: Kubernetes against its schemas, Dockerfiles against hadolint, versions
pinned.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parent.parent / "docs/deploy"
DOCKERFILES = sorted(FOLDER.glob("Dockerfile*"))


def test_kubernetes_manifests_fit_the_schemas() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    documents = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
    assert [document["kind"] for document in documents] == ["ConfigMap", "Deployment", "Service", "NetworkPolicy"]
    for document in documents:
        validate.validate(document, "1.34", strict=True)
    documents[1]["spec"]["template"]["spec"]["containers"][0]["port"] = 1
    with pytest.raises(validate.ValidationError):
        validate.validate(documents[1], "1.34", strict=True)


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


def test_the_settings_of_the_manifest_can_be_read() -> None:
    import json

    from elude.handlers.settings import Settings

    config = next(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
    assert Settings.from_json(json.loads(config["data"]["settings.json"])).steering == "presets"


def test_the_container_s_torchserve_listens_as_the_documents_say() -> None:
    lines = (FOLDER / "config.properties").read_text().splitlines()
    properties = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert properties["management_address"].startswith("http://127.0.0.1")
    assert "disable_token_authorization" not in properties
    # TorchServe decodes %2e%2e after it has compared: a pattern of a folder allows every file.
    assert re.fullmatch(properties["allowed_urls"], "file:///home/serve/store/elude.mar")
    assert not re.fullmatch(properties["allowed_urls"], "file:///home/serve/store/%2e%2e/evil.mar")
