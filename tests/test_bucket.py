"""What the machines of a sweep exchange by a bucket, on a server that speaks the language of S3."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from pyarrow.fs import FileSelector, FileType, S3FileSystem
from serving import LOGIN, require_login, s3_server, s3_uri
from sweeping import SMALL, run_search
from torch import Tensor, nn

import sweeps.journal.bucket
from ltsd.attacks.autoattack import Round, Shard
from ltsd.checkpoint import load_checkpoint, save_checkpoint
from ltsd.config import AttackConfig, Config
from ltsd.data import Splits
from ltsd.data.longtail import class_groups
from ltsd.errors import UserError
from ltsd.evaluation import shards
from ltsd.evaluation.exam import attack_shard, examine
from sweeps.journal.bucket import Bucket, UnreachableError
from sweeps.journal.exchange import SharedBucket
from sweeps.journal.jobs import Job, Report, keep_checkpoint, newest_checkpoint
from sweeps.journal.journal_backup import Safe, restore
from sweeps.journal.record import Record, epochs_kept
from sweeps.settings.flags import Settings
from sweeps.settings.sweep import SETTINGS_FILE


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address, HOST:PORT."""
    with s3_server(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3FileSystem]:
    """A client of the server, with an empty bucket named `bucket`; nobody is patient."""
    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sweeps.journal.bucket, "PATIENCE_S", 1.0)
    client = S3FileSystem(endpoint_override=server, scheme="http", region="us-east-1", allow_bucket_creation=True)
    client.create_dir("bucket")
    yield client
    client.delete_dir_contents("bucket")


@pytest.fixture
def bucket(server: str, s3: S3FileSystem) -> Bucket:
    return Bucket(s3_uri(server, "bucket/ltsd"))


def objects(s3: S3FileSystem, folder: str = "bucket") -> set[str]:
    found = s3.get_file_info(FileSelector(folder, recursive=True))
    return {file.path.removeprefix("bucket/ltsd/") for file in found if file.type == FileType.File}


def trial(root: Path, number: int = 0) -> Job:
    return Job("trial", f"trial-{number:04d}", Config.preset("digits"), "train", str(root / "night"))


def train(exchange: SharedBucket, job: Job, epochs: int) -> None:
    """Do what a worker does: keep and publish a checkpoint an epoch, from where the job is."""
    with exchange.at_hand(job) as (here, own):
        path = newest_checkpoint(here)
        history = load_checkpoint(path)["history"] if path else []
        for epoch in range(len(history) + 1, epochs + 1):
            history.append({"epoch": epoch, "values": {"val/robust_acc": epoch / 100}, "per_class": {}})
            content = {"history": list(history)}
            keep_checkpoint(here, lambda path, content=content: save_checkpoint(path, content))
            own.publish(here.checkpoint, epoch)


def test_a_job_goes_on_elsewhere_from_what_is_only_in_the_bucket(
    bucket: Bucket, s3: S3FileSystem, tmp_path: Path
) -> None:
    exchange, job = SharedBucket(bucket, tmp_path), trial(tmp_path)
    train(exchange, job, 3)
    assert not list(tmp_path.iterdir())
    assert [report.epoch for report in epochs_kept(job, exchange)] == [1, 2, 3]
    with exchange.at_hand(job) as (here, _):
        assert not here.checkpoint.is_relative_to(tmp_path)
        assert len(load_checkpoint(here.spare)["history"]) == 2
    assert not here.checkpoint.exists()
    with s3.open_output_stream("bucket/ltsd/night/checkpoints/trial-0000/000003.pt") as stream:
        stream.write(b"ltsd-checkpoint-1\ndamaged")
    assert [report.epoch for report in epochs_kept(job, exchange)] == [1, 2]
    train(exchange, job, 5)
    assert objects(s3) == {f"night/checkpoints/trial-0000/00000{epoch}.pt" for epoch in (4, 5)}
    exchange.settle(job)
    assert objects(s3) == {"night/checkpoints/trial-0000/000005.pt"}
    exchange.bring_checkpoint(job)
    assert len(load_checkpoint(job.checkpoint)["history"]) == 5


def test_a_worker_on_another_machine_attacks_shards_of_an_exam_through_the_bucket(
    bucket: Bucket,
    s3: S3FileSystem,
    tmp_path: Path,
    splits: Splits,
    teacher: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attacked, attack = list[str](), Round.attacked

    def noted(one: Round, shard: Shard) -> Tensor:
        attacked.append(str(shard))
        return attack(one, shard)

    monkeypatch.setattr(Round, "attacked", noted)
    monkeypatch.setattr(shards, "CHUNK", 9)
    exchange, test, budget = SharedBucket(bucket, tmp_path), splits.test, AttackConfig(eps=0.05)
    final = Job("final", "final-at-s0", Config.preset("digits"), "complete", str(tmp_path / "night"), exam="apgd-ce+t")
    helped = set[str]()
    with exchange.at_hand(final) as (here, own), exchange.at_hand(final.for_shard("a")) as (there, other):
        keep = here.correctness
        for _, result in examine(
            teacher.eval(), test, class_groups([9] * 10), budget, final.exam, keep=keep, sharing=own
        ):
            own.publish(keep, result.measured)
            for name in {*result.left} - helped:
                attack_shard(teacher, test, budget, final.exam, name, keep=there.correctness, sharing=other)
                helped.add(name)
    assert len(helped) > 2
    assert len(attacked) == len({*attacked}), "a shard that was attacked there is not attacked here"
    assert any(name.startswith("night/correctness/final-at-s0.shards/") for name in objects(s3))
    exchange.drop_shards(final)
    exchange.drop_shards(final)
    assert {name.rpartition("/")[0] for name in objects(s3)} == {"night/correctness/final-at-s0"}


HOLDS = """
import os, signal
from sweeps.journal.exchange import scratch_folder
with scratch_folder() as folder:
    (folder / "night").mkdir()
    print(folder)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_worker_left_is_removed_by_the_next_one(bucket: Bucket, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-uc", HOLDS], capture_output=True, text=True, check=False)
    left = Path(killed.stdout.strip())
    assert (left / "night").exists()
    exchange = SharedBucket(bucket, tmp_path)
    with exchange.at_hand(trial(tmp_path)) as (_, first), exchange.at_hand(trial(tmp_path)) as (_, second):
        assert not left.exists()
        assert isinstance(first, SharedBucket)
        assert isinstance(second, SharedBucket)
        assert first.root.exists()
        assert first.root != second.root
    assert not first.root.exists()


def test_a_file_of_one_machine_is_no_file_of_all(bucket: Bucket, tmp_path: Path) -> None:
    """A teacher that an earlier sweep left on the leader's disk is trained again, or published by who has it."""
    teacher, exchange = tmp_path / "teachers" / "0123.pt", SharedBucket(bucket, tmp_path)
    save_checkpoint(teacher, {"history": []})
    assert not exchange.bring(teacher)
    exchange.publish(teacher, 4)
    teacher.unlink()
    assert exchange.bring(teacher)
    assert load_checkpoint(teacher) == {"history": []}
    assert not SharedBucket(bucket, tmp_path / "moved").bring(teacher)


def test_a_worker_that_was_given_up_and_lives_does_not_hide_what_its_successor_did(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put("file.pt", 1, b"of both")
    for rank in (2, 3, 1_000_000):
        bucket.put("file.pt", rank, b"of the successor")
    bucket.put("file.pt", 2, b"of the one that was given up")
    assert list(bucket.newest("file.pt")) == [b"of the successor"] * 2


PUT = """
import os, sys
from sweeps.journal.bucket import Bucket
Bucket(sys.argv[1]).put(sys.argv[2], 2, os.urandom(80_000_000))
"""


def test_an_object_is_whole_or_is_not(bucket: Bucket, s3: S3FileSystem, server: str) -> None:
    """Larger than what goes up in one request, and with a name that wants care in a URI; then killed on its way."""
    name, content = "checkpoints/final-ltsd+robustlt-s0.pt", os.urandom(15_000_000)
    bucket.put(name, 1, content)
    client = boto3.client("s3", endpoint_url=f"http://{server}", region_name="us-east-1")
    killed = subprocess.Popen([sys.executable, "-c", PUT, bucket.uri, name])
    while "Uploads" not in client.list_multipart_uploads(Bucket="bucket"):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert list(bucket.newest(name)) == [content]


def test_what_is_refused_for_a_while_is_asked_for_again(bucket: Bucket, server: str) -> None:
    bucket.put("file.pt", 1, b"content")
    require_login(server, True)
    try:
        with pytest.raises(UnreachableError, match="INVALID_ACCESS_KEY_ID") as raised:
            bucket.put("file.pt", 2, b"content")
    finally:
        require_login(server, False)
    assert "Tell-No-One" not in str(raised.value)
    bucket.put("file.pt", 2, b"content")


@pytest.mark.parametrize(
    ("shared", "says"),
    [
        ("s3://nothing/here", "there is no bucket 'nothing'"),
        ("s3://", "names no bucket"),
        ("s3://key:Tell-No-One@bucket/folder", "the URI holds credentials"),
        ("runs", "is no bucket of S3"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_told_before_anything_begins(
    server: str, s3: S3FileSystem, tmp_path: Path, shared: str, says: str
) -> None:
    place = s3_uri(server, shared.removeprefix("s3://")) if shared.startswith("s3://") else shared
    with pytest.raises(UserError) as raised:
        SharedBucket(Bucket(place), tmp_path).begin(Settings(name="night"), is_new=True)
    assert str(raised.value).startswith("--shared ")
    assert says in str(raised.value)
    assert "Tell-No-One" not in str(raised.value)
    assert not objects(s3)


@pytest.mark.slow
def test_a_login_that_is_refused_ends_the_command_with_one_message_and_leaves_nothing(
    server: str, s3: S3FileSystem, tmp_path: Path
) -> None:
    require_login(server, True)
    try:
        refused = run_search(tmp_path, "--shared", s3_uri(server, "bucket/ltsd"), *SMALL)
    finally:
        require_login(server, False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(
        f"error: --shared {s3_uri(server, 'bucket/ltsd')}: cannot be used (access is denied"
    )
    assert "AWS_ACCESS_KEY_ID" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
    assert not objects(s3)


def test_a_sweep_whose_leaders_disk_is_lost_is_taken_from_the_bucket(
    bucket: Bucket, s3: S3FileSystem, tmp_path: Path
) -> None:
    leader, other = tmp_path / "leader", tmp_path / "other"
    exchange = SharedBucket(bucket, leader)
    folder = leader / "night"
    record = Record.open(folder)
    (folder / SETTINGS_FILE).write_text("{}")
    known, ended, unknown = (trial(leader, number) for number in range(3))
    safe = Safe(exchange, folder, print)
    for job in (known, ended):
        record.started(job, 0)
        train(exchange, job, 2)
        record.reported(job, Report(1, values={"val/robust_acc": 0.01}))
    ended.pictures.mkdir(parents=True)
    (ended.pictures / "learning_curves.png").write_bytes(b"picture")
    exchange.publish(ended.pictures / "learning_curves.png", 2)
    record.ended(ended, "done", "")
    safe.ended(record.jobs[ended.key])
    safe.close(10)
    before = (folder / "journal.jsonl").read_bytes()
    record.started(unknown, 0)
    train(exchange, unknown, 1)
    for job in (known, unknown):
        job.shards.mkdir(parents=True)
        (job.shards / "a.parquet").write_bytes(b"shard")
        exchange.publish(job.shards / "a.parquet", 1)

    settings = Settings(name="night", storage=str(other), shared=bucket.uri)
    with pytest.raises(UserError, match="has a sweep of that name already; add --resume"):
        SharedBucket(bucket, other).begin(settings, is_new=True)
    restore(settings)
    assert (other / "night" / "journal.jsonl").read_bytes() == before
    assert (other / "night" / SETTINGS_FILE).read_text() == "{}"
    assert (other / "night" / "pictures" / "trial-0001" / "learning_curves.png").read_bytes() == b"picture"
    assert not any("trial-0002" in name for name in objects(s3))
    assert "night/correctness/trial-0000.shards/a/000001.parquet" in objects(s3)
    assert [report.epoch for report in epochs_kept(trial(other, 0), SharedBucket(bucket, other))] == [1, 2]
    with pytest.raises(UserError, match="has no journal of a sweep named day"):
        restore(replace(settings, name="day"))
