"""The benchmarks of retrieval and of serving run, and count what they say that they count."""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from benchmarks import retrieval_speed, serving_load

THREADS = str(torch.get_num_threads())


def test_retrieval_beside_faiss(tmp_path, capsys):
    out = tmp_path / "new" / "speed.json"
    retrieval_speed.main(["--smoke", "--threads", THREADS, "--out", str(out)])
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads(out.read_text())
    assert result["same_lists"] is True
    assert result["search"]["faiss"]["times_faiss"] == 1.0
    assert set(result["search"]) == {"faiss", "faiss_topk", "faiss_topk_exclude_seen"}
    ratio = result["search"]["faiss_topk"]["times_faiss"]
    assert result["goal"]["times_faiss"]["measured"] == ratio > 0
    assert "Top 20 of 2,000 items" in printed.err


def test_memory_of_the_index_is_that_of_its_vectors():
    memory = retrieval_speed.measure(items=40_000, users=4, k=5, width=64, slice_=2)["memory"]
    assert memory["vectors_mib"] == pytest.approx(40_000 * 64 * 4 / 2**20, abs=0.1)
    assert memory["on_disk_mib"] == pytest.approx(memory["vectors_mib"], rel=0.01)


def test_the_sides_search_the_same_slices_in_turn():
    rows = torch.arange(5).split(2)
    calls = {"a": [], "b": []}
    steps = {name: retrieval_speed._step(lambda r, c=c: c.append(r.tolist()), rows) for name, c in calls.items()}
    assert [steps[name]() for _ in range(3) for name in "ab"] == [2, 2, 2, 2, 1, 1]
    assert calls["a"] == calls["b"] == [[0, 1], [2, 3], [4]]


def test_histories_name_items_of_the_index():
    seen = retrieval_speed._histories(200, 30, torch.Generator().manual_seed(1))
    assert len(seen) == 200 and seen.values.max() < 30
    assert 0.8 * retrieval_speed.SEEN < seen.lengths().double().mean() < 1.2 * retrieval_speed.SEEN


def test_service_under_load(tmp_path, capsys):
    out = tmp_path / "load.json"
    serving_load.main(["--smoke", "--out", str(out)])
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads(out.read_text())
    assert len(result["runs"]) == 2
    for found in result["runs"]:
        assert found["requests"] == 40 and found["errors"] == 0
        assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] <= found["max_ms"]
        assert 0 < found["rate"] <= 41 and result["goal"]["rate"]["reached"] is False
    assert result["goal"]["p99_ms"]["measured"] == max(found["p99_ms"] for found in result["runs"])
    assert result["recall_of_exact@100"] == pytest.approx(1.0)
    assert "One user, top 10, of 500 items (flat)" in printed.err


class Stalling(BaseHTTPRequestHandler):
    """The second request and those after it get no answer until half a second after the second came."""

    protocol_version = "HTTP/1.1"
    count, until, lock = 0, 0.0, threading.Lock()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        with Stalling.lock:
            Stalling.count += 1
            if Stalling.count == 2:
                Stalling.until = time.monotonic() + 0.5
        time.sleep(max(0.0, Stalling.until - time.monotonic()))
        body = json.dumps({"lists": [{"items": [1, 2]}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("k, errors", [(2, 0), (3, 20)])
def test_a_stall_counts_for_all_that_it_delays_and_short_lists_are_errors(monkeypatch, k, errors):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(Stalling, "count", 0)
    monkeypatch.setattr(serving_load, "WARM_UP_SECONDS", 0.05)  # one request
    args = argparse.Namespace(rate=20.0, seconds=1.0, users=5, items=9, k=k)
    monkeypatch.setattr(serving_load.gc, "freeze", lambda: None)  # of this process, whose other tests go on
    try:
        found = asyncio.run(serving_load.load(f"http://127.0.0.1:{server.server_address[1]}", ["d"], args, 0))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert found["requests"] == 20 and found["errors"] == errors
    # Due every 50 ms, the first ten wait 500, 450, ..., 50 ms; were requests sent one by one, only the first would.
    assert found["max_ms"] >= 490 and found["p95_ms"] > 350


@pytest.mark.parametrize("module", [retrieval_speed, serving_load])
def test_sizes_must_be_positive(module, capsys):
    with pytest.raises(SystemExit):
        module.main(["--items", "0"])
    assert "--items must be more than 0" in capsys.readouterr().err


def test_a_service_that_does_not_start_is_reported(tmp_path, capfd):
    with pytest.raises(RuntimeError, match="the service did not start"), serving_load.service(tmp_path):
        pass
    assert "has no index" in capfd.readouterr().err
