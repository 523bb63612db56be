"""Downloads: checked, atomic, with one clear error for each way to fail. The network is replaced by a function."""

import hashlib
import subprocess

import pytest
import requests

from adi_lite.data import download
from adi_lite.data.download import DataFileError, RemoteFile, cache_dir, fetch, file_hash, verify
from adi_lite.data.xmarket_files import HASHES

CONTENT = b"userId\titemId\trating\nU1\tP1\t1.0\n"
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
FILE = RemoteFile("set/m/train.tsv", "https://example.org/train.tsv", SHA256)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no mirror, no memory of earlier failures."""
    monkeypatch.setenv("ADI_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ADI_LITE_MIRROR", raising=False)
    monkeypatch.setattr(download, "_unreachable", {})
    return tmp_path / "cache"


@pytest.fixture
def network(monkeypatch):
    """A network that answers with ``answer["content"]`` (bytes, or an exception) and counts its calls."""
    answer = {"content": CONTENT, "calls": 0}

    class Downloader:
        def __init__(self, **_):
            pass

        def __call__(self, url, output, _):
            answer["calls"] += 1
            if isinstance(answer["content"], Exception):
                with open(output, "wb") as file:
                    file.write(b"half of")
                raise answer["content"]
            with open(output, "wb") as file:
                file.write(answer["content"])

    monkeypatch.setattr(download.pooch, "HTTPDownloader", Downloader)
    return answer


def files_in(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_the_git_hash_is_the_blob_id_of_git(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT * 1000)
    blob = subprocess.run(["git", "hash-object", "--no-filters", str(path)], capture_output=True, text=True, check=True)
    assert file_hash(path, "git") == blob.stdout.strip()
    assert file_hash(path, "md5") == hashlib.md5(CONTENT * 1000).hexdigest()
    with pytest.raises(ValueError, match="unknown kind of hash 'crc'"):
        file_hash(path, "crc")


def test_a_download_is_kept_and_not_repeated(cache, network):
    first, again = fetch(FILE), fetch(FILE)
    assert first == again
    assert first.path == cache / "set/m/train.tsv"
    assert first.path.read_bytes() == CONTENT
    assert first.check == "sha256 as published"
    assert network["calls"] == 1
    assert files_in(cache) == ["train.tsv"]


def test_a_file_without_a_known_hash_is_accepted_and_said_so(cache, network):
    assert fetch(RemoteFile("set/t9/train.tsv", FILE.url)).check == "no published hash known"


def test_a_bad_download_is_not_kept(cache, network):
    network["content"] = CONTENT[:-5]
    found = hashlib.sha256(CONTENT[:-5]).hexdigest()
    with pytest.raises(DataFileError) as error:
        fetch(FILE)
    for part in (FILE.url, "train.tsv", SHA256.removeprefix("sha256:"), found):
        assert part in str(error.value)
    assert files_in(cache) == []


@pytest.mark.parametrize("kind", ["sha256", "git", "md5"])
def test_one_changed_byte_is_found_by_every_kind_of_hash(tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    expected = f"{kind}:{file_hash(path, kind)}"
    assert verify(path, expected).endswith("as published")
    path.write_bytes(CONTENT.replace(b"P1", b"P2"))
    with pytest.raises(DataFileError, match="not the published file"):
        verify(path, expected)


def test_a_bad_cached_file_is_fetched_again(cache, network):
    path = fetch(FILE).path
    path.write_bytes(b"altered")
    assert fetch(FILE).path.read_bytes() == CONTENT
    assert network["calls"] == 2


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (requests.ConnectionError("a long chain of causes"), "(no connection)"),
        (requests.ConnectTimeout("a long chain of causes"), "(no answer within 20 s)"),
        (requests.HTTPError("503 Server Error: Busy"), "(503 Server Error: Busy)"),
    ],
)
def test_offline_without_a_mirror_says_what_to_do(cache, network, failure, words):
    network["content"] = failure
    with pytest.raises(DataFileError) as error:
        fetch(FILE)
    for part in (FILE.path, FILE.url, words, "ADI_LITE_MIRROR", str(cache / FILE.path)):
        assert part in str(error.value)
    assert files_in(cache) == []


def test_an_optional_file_may_be_absent_and_is_asked_for_once(cache, network):
    network["content"] = requests.HTTPError("404 Client Error: Not Found")
    assert fetch(FILE, required=False) is None
    assert fetch(FILE, required=False) is None
    assert network["calls"] == 1
    network["content"] = CONTENT
    assert fetch(FILE).path.read_bytes() == CONTENT  # a required file is always asked for


def test_a_mirror_replaces_the_network_and_is_verified(cache, network, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    (mirror / "set/m").mkdir(parents=True)
    (mirror / FILE.path).write_bytes(CONTENT)
    monkeypatch.setenv("ADI_LITE_MIRROR", str(mirror))
    assert fetch(FILE).path == mirror / FILE.path
    (mirror / FILE.path).write_bytes(CONTENT + b"U2\tP1\t1.0\n")
    with pytest.raises(DataFileError, match="not the published file"):
        fetch(FILE)
    (mirror / FILE.path).unlink()
    assert fetch(FILE, required=False) is None
    with pytest.raises(DataFileError, match="does not have it, and a mirror replaces the network"):
        fetch(FILE)
    assert network["calls"] == 0
    assert not cache.exists()


def test_a_bad_cached_file_is_an_error_where_it_cannot_be_fetched(cache, network, tmp_path, monkeypatch):
    path = fetch(FILE).path
    path.write_bytes(b"altered")
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("ADI_LITE_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(DataFileError, match="not the published file"):
        fetch(FILE)


def test_a_mirror_that_is_not_a_folder_is_named(cache, monkeypatch):
    monkeypatch.setenv("ADI_LITE_MIRROR", "/nowhere/at/all")
    with pytest.raises(DataFileError, match="ADI_LITE_MIRROR names /nowhere/at/all"):
        fetch(FILE)


def test_a_cache_that_cannot_be_written_is_named(cache, network):
    cache.write_text("a file where the folder should be")
    with pytest.raises(DataFileError, match="cannot write to the cache .*set ADI_LITE_CACHE"):
        fetch(FILE)


def test_a_file_behind_a_login_gives_its_hint(cache):
    with pytest.raises(DataFileError, match=r"without a login\. Fetch it from the project's page, or put the file at"):
        fetch(RemoteFile("set/x.zip", hint="Fetch it from the project's page"))


def test_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("ADI_LITE_CACHE", raising=False)
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(download, "CHECKOUT", tmp_path)
    assert cache_dir() == download.Path(download.pooch.os_cache("adi-lite"))
    (tmp_path / "pyproject.toml").touch()
    assert cache_dir() == tmp_path / "data" / "raw"
    monkeypatch.setenv("ADI_LITE_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


def test_the_readme_lists_the_same_hashes():
    readme = (download.CHECKOUT / "data" / "README.md").read_text(encoding="utf-8")
    for name, digest in HASHES.items():
        assert f"| {name} | {digest} |" in readme
