"""What `ray up` sends of a checkout: the code, and nothing that its user has beside it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import PROJECT, code_of, make_checkout

SSH = """#!/bin/bash
while [[ $1 == -* ]]; do [[ $1 == -tt ]] || shift; shift; done
cd "$HOST" && HOME=$HOST exec bash -c "${*:2}"
"""
"""Stands for ssh: what it is given for a host runs here, with a home folder of the host's."""


def config_of(file: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((PROJECT / file).read_text())
    return config


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of a host, to which the `ssh` on the path leads."""
    folder, tools = tmp_path / "host", tmp_path / "tools"
    for new in (folder, tools, tmp_path / ".ray"):
        new.mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("token")
    (tools / "ssh").write_text(SSH)
    (tools / "ssh").chmod(0o755)
    environment = {"HOME": tmp_path, "HOST": folder, "RAY_TMPDIR": tmp_path, "PATH": f"{tools}:{os.environ['PATH']}"}
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    return folder


def send(config: dict[str, Any]) -> None:
    """What Ray does with files when it brings a machine up, by its own updater and rsync."""
    from ray.autoscaler._private.local.node_provider import LocalNodeProvider
    from ray.autoscaler._private.updater import NodeUpdater

    provider = {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []}
    updater = NodeUpdater(
        node_id="127.0.0.1",
        provider_config=provider,
        provider=LocalNodeProvider(provider, "sent"),
        auth_config={"ssh_user": "somebody"},
        cluster_name="sent",
        file_mounts=config["file_mounts"],
        initialization_commands=[],
        setup_commands=[],
        ray_start_commands=[],
        runtime_hash="",
        file_mounts_contents_hash="",
        is_head_node=True,
        rsync_options={name: config.get(name) for name in ("rsync_exclude", "rsync_filter")},
    )
    updater.sync_file_mounts(updater.rsync_up)


@pytest.mark.skipif(shutil.which("rsync") is None, reason="not installed: rsync")
def test_the_code_alone_is_sent_and_runs_there(tmp_path: Path, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    make_checkout(checkout)
    monkeypatch.chdir(checkout)
    send(config_of("cluster-onprem.yaml"))
    code = code_of(checkout)
    assert Path("ltsd/methods/at.py") in code
    sent = {path.relative_to(host) for path in host.rglob("*") if path.is_file()}
    assert sent == {"ltsd" / path for path in code} | {Path(".ray/auth_token")}
    program = "import ltsd.__main__, sweeps.search; print(ltsd.__file__, sweeps.__file__)"
    environment = os.environ | {"PYTHONPATH": str(host / "ltsd")}
    done = subprocess.run([sys.executable, "-c", program], cwd=host, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [str(host / "ltsd" / name / "__init__.py") for name in ("ltsd", "sweeps")], (
        done.stderr
    )


def test_to_machines_on_aws_the_same_is_sent() -> None:
    aws, onprem = config_of("cluster.yaml"), config_of("cluster-onprem.yaml")
    for name in ("file_mounts", "rsync_exclude", "rsync_filter"):
        assert aws.get(name) == onprem.get(name)
