"""cluster.yaml, taken by Ray's own launcher to an AWS that moto plays: what it asks for, and what it does not open."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler.tags import TAG_RAY_LAUNCH_CONFIG, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

FILE = Path(__file__).parent.parent.parent / "cluster.yaml"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An account with a default network and nothing else; keys that Ray makes go to a home folder of the test's."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setattr("ray.autoscaler._private.aws.config.time.sleep", lambda _: None)  # until roles are known
    with mock_aws():
        yield


def edited(group: str) -> dict[str, Any]:
    """The file with the line filled in that a user has to."""
    text = FILE.read_text()
    assert text.count("EDIT:") == 3
    config: dict[str, Any] = yaml.safe_load(text.replace("sg-0123456789abcdef0", group))
    return config


def with_a_bucket(config: dict[str, Any]) -> dict[str, Any]:
    """The file with the line that lets the GPU machines at a bucket."""
    line = "# IamInstanceProfile:"
    text = FILE.read_text()
    assert text.count(line) == 1
    kinds = yaml.safe_load(text.replace(line, line.removeprefix("# ")))["available_node_types"]
    profile = kinds["gpu"]["node_config"]["IamInstanceProfile"]
    boto3.client("iam").create_instance_profile(InstanceProfileName=profile["Name"])
    config["available_node_types"]["gpu"]["node_config"]["IamInstanceProfile"] = profile
    return config


def own_group(ec2: Any) -> str:
    """The security group that the head of the file tells to make."""
    group: str = ec2.create_security_group(GroupName="ltsd", Description="ltsd sweeps")["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "198.51.100.7/32"}]}
    each_other = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ssh, each_other])
    return group


def test_what_it_says_ray_and_ec2_understand() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = edited("sg-1")
    validate_config(prepare_config(config))
    model = boto3.client("ec2", region_name="us-west-2").meta.service_model
    known = set(model.operation_model("RunInstances").input_shape.members)
    for kind in config["available_node_types"].values():
        assert set(kind["node_config"]) <= known
    assert set(config["provider"]) <= {"type", "region", "cache_stopped_nodes"}


@pytest.mark.usefixtures("aws")
def test_the_leader_is_on_demand_workers_are_spot_and_nothing_is_opened() -> None:
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider

    given = edited("")
    ec2 = boto3.client("ec2", region_name=given["provider"]["region"])
    group = own_group(ec2)
    groups = ec2.describe_security_groups()["SecurityGroups"]
    config = _bootstrap_config(with_a_bucket(edited(group)), no_config_cache=True)
    assert ec2.describe_security_groups()["SecurityGroups"] == groups
    assert config["head_node"]["IamInstanceProfile"]["Arn"].endswith("ray-autoscaler-v1")

    provider = _get_node_provider(config["provider"], config["cluster_name"], use_cache=False)
    for kind in ("leader", "gpu"):
        node = config["available_node_types"][kind]["node_config"]
        provider.create_node(
            node, {TAG_RAY_USER_NODE_TYPE: kind, TAG_RAY_NODE_KIND: kind, TAG_RAY_LAUNCH_CONFIG: ""}, 1
        )
    made = {}
    for reservation in ec2.describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
            assert tags["ray-cluster-name"] == config["cluster_name"]
            assert [one["GroupId"] for one in instance["SecurityGroups"]] == [group]
            profile = instance.get("IamInstanceProfile", {}).get("Arn", "").rpartition("/")[2]
            made[tags[TAG_RAY_USER_NODE_TYPE]] = (instance["InstanceType"], instance.get("InstanceLifecycle"), profile)
    assert made == {"leader": ("m6i.large", None, ""), "gpu": ("g5.xlarge", "spot", "ltsd")}
    volumes = ec2.describe_volumes()["Volumes"]
    assert [volume["Size"] for volume in volumes] == [150, 150]
    key = Path(config["auth"]["ssh_private_key"])
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.is_relative_to(os.environ["HOME"])
