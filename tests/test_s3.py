"""Sources on S3, read from a server that speaks its language on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from imagesets import CIFAR10_COPY, FORMS, PNG, encoded, images_of, map_table, maps_of, refusal, table_of
from pyarrow.fs import LocalFileSystem, S3FileSystem, copy_files
from serving import LOGIN, require_login, s3_server
from serving import s3_uri as uri

from ltsd.config import DataConfig
from ltsd.data.sources import load_source


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address, HOST:PORT."""
    with s3_server(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> S3FileSystem:
    """A client of the server, with a bucket named `bucket`; sources find the login in the environment."""
    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)
    client = S3FileSystem(endpoint_override=server, scheme="http", region="us-east-1", allow_bucket_creation=True)
    client.create_dir("bucket")
    return client


def put(s3: S3FileSystem, path: str, table: pa.Table, form: str = "parquet") -> None:
    with s3.open_output_stream(path) as stream:
        FORMS[form](table, stream)


@pytest.mark.parametrize("form", FORMS)
def test_a_bucket_gives_the_bits_of_a_disk(server: str, s3: S3FileSystem, tmp_path: Path, form: str) -> None:
    table = table_of([encoded(image) for image in images_of(12)], [0, 1, 2] * 4, ["cat", "dog", "owl"])
    suffix = form.split()[0]
    for name, part in (
        (f"train-0.{suffix}", table[:6]),
        (f"train-1.{suffix}", table[6:9]),
        (f"val.{suffix}", table[9:]),
    ):
        FORMS[form](part, tmp_path / name)
        put(s3, f"bucket/{form}/{name}", part, form)
    local = load_source(DataConfig(source=str(tmp_path)))
    remote = load_source(DataConfig(source=uri(server, f"bucket/{form.replace(' ', '%20')}")))
    assert (len(remote.train.labels), len(remote.test.labels)) == (9, 3)
    assert remote.train.fingerprint == local.train.fingerprint
    assert remote.test.fingerprint == local.test.fingerprint


def test_a_bucket_gives_label_maps(server: str, s3: S3FileSystem, tmp_path: Path) -> None:
    table = map_table([*map(encoded, images_of(12))], [*map(encoded, maps_of(12))], ["ground", "cat", "dog"])
    for name, part in (("train.parquet", table[:9]), ("test.parquet", table[9:])):
        FORMS["parquet"](part, tmp_path / name)
        put(s3, f"bucket/maps/{name}", part)
    local = load_source(DataConfig(source=str(tmp_path)))
    remote = load_source(DataConfig(source=uri(server, "bucket/maps")))
    assert remote.train.labels.shape == (9, 6, 6)
    assert remote.fingerprint == local.fingerprint


def test_objects_that_change_are_read_again_and_others_are_not(server: str, s3: S3FileSystem) -> None:
    data = DataConfig(source=uri(server, "bucket/changing.parquet"))
    addresses = []
    for count in (4, 8):
        put(
            s3,
            "bucket/changing.parquet",
            table_of([encoded(image) for image in images_of(count)], [0, 1] * (count // 2)),
        )
        sources = [load_source(data), load_source(data)]
        assert [len(source.train.labels) + len(source.test.labels) for source in sources] == [count, count]
        addresses.append(sources[0].train.fingerprint)
    assert addresses[0] != addresses[1]


def test_what_is_missing_or_wrong_on_s3_is_named(server: str, s3: S3FileSystem) -> None:
    put(s3, "bucket/broken/one.parquet", table_of([PNG, PNG, PNG[:40]], [0, 1, 0]))
    put(s3, "bucket/words/readme.txt", table_of([PNG], [0]))
    assert "names no bucket" in refusal(uri(server, ""))
    assert "there is no bucket 'nothing'" in refusal(uri(server, "nothing/here"))
    assert "the bucket 'bucket' holds nothing named 'here'" in refusal(uri(server, "bucket/here"))
    assert refusal(uri(server, "bucket/broken/one.parquet")).startswith(
        "s3://bucket/broken/one.parquet row 2: a broken"
    )
    assert "folders of images are read from local disks" in refusal(uri(server, "bucket/words"))


def test_a_login_that_is_wrong_is_told_and_not_shown(server: str, s3: S3FileSystem) -> None:
    put(s3, "bucket/closed.parquet", table_of([PNG], [0]))
    require_login(server, True)
    try:
        said = refusal(uri(server, "bucket/closed.parquet"))
    finally:
        require_login(server, False)
    assert "access is denied" in said
    assert "credentials are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said
    assert "Tell-No-One" not in said


@pytest.mark.parametrize(
    "source",
    [
        "s3://key:Tell-No-One@bucket/folder",
        "s3://key:Tell-No-One/+@bucket/folder?scheme=http",
        "s3://bucket/folder?secret_key=Tell-No-One",
        "abfs://files@account.example/folder?sas_token=Tell-No-One",
    ],
)
def test_a_uri_that_holds_credentials_is_refused_without_showing_them(source: str) -> None:
    said = refusal(source)
    assert "the URI holds credentials" in said
    assert "Tell-No-One" not in said


@pytest.mark.parametrize("source", ["https://example.org/a.parquet", "s3://bucket/a?endpont=1", "s3://a b/c"])
def test_a_uri_that_nothing_reads_is_refused(source: str) -> None:
    assert refusal(source).startswith(f"--data.source {source}: cannot be used (")


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10_COPY.exists(), reason=f"the JPEG copy of CIFAR-10 is not in {CIFAR10_COPY}")
def test_real_images_from_a_bucket_are_those_of_the_disk(server: str, s3: S3FileSystem) -> None:
    file = CIFAR10_COPY / "test.parquet"
    copy_files(str(file), "bucket/cifar.parquet", source_filesystem=LocalFileSystem(), destination_filesystem=s3)
    local = load_source(DataConfig(source=str(file)))
    remote = load_source(DataConfig(source=uri(server, "bucket/cifar.parquet")))
    assert len(remote.train.labels) + len(remote.test.labels) == 10_000
    assert remote.train.fingerprint == local.train.fingerprint
    assert remote.test.fingerprint == local.test.fingerprint
