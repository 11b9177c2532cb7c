import copy
import io
import json
import sys

import numpy as np
import pytest
import torch

from defense import search
from defense.pool import Pool
from defense.search import choose, dot, nearest
from infra.errors import Lost
from infra.seeding import rng
from tests.support import gpu
from tests.support.pooled import batch, pushed
from tests.support.several_ranks import on_ranks


def unit(label: str, count: int, width: int) -> torch.Tensor:
    drawn = torch.from_numpy(rng(0, label).standard_normal((count, width)))
    return torch.nn.functional.normalize(drawn, dim=1).float()


def oracle(queries: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
    """The rule, spelled out in numpy: the lowest place within 1e-11 of the largest float64 similarity."""
    scores = queries.double().numpy() @ entries.double().numpy().T
    return torch.from_numpy((scores >= scores.max(axis=1, keepdims=True) - 1e-11).argmax(axis=1))


def adversarial(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """10,000 queries and 3,000 entries where float32 alone goes wrong.

    Groups of 1 to 2,000 exact duplicates, scattered; neighbours one unit in the last place apart; opposite ones.
    """
    origins, generator = unit("origins", 300, width), rng(0, "groups")
    group = np.minimum(generator.geometric(0.02, 3000) - 1, 299)
    group[generator.permutation(3000)[:400]] = 7  # more of one than there are candidates
    entries = origins[torch.from_numpy(group)]
    nudged = torch.from_numpy(generator.permutation(3000)[:600])
    column = torch.from_numpy(generator.integers(0, width, 600))
    entries[nudged, column] = torch.nextafter(entries[nudged, column], torch.tensor(2.0))
    near = origins[torch.from_numpy(generator.integers(0, 300, 9000))]
    near += 0.02 * unit("noise", 9000, width)
    queries = torch.cat([near, entries[:500], -entries[500:1000]])
    return torch.nn.functional.normalize(queries, dim=1), entries


# ------------------------------------------------------------------------------------------ the ring


def held(pool: Pool) -> list[int]:
    """Row ids, oldest first."""
    order = (int(pool.position) - pool.count + torch.arange(pool.count)) % pool.capacity
    return pool.rows[order].tolist()


def test_pushes_of_any_size_keep_the_newest_in_order_across_the_end_of_the_buffer():
    """Against a plain list; half of the batches cross the end, some are empty, some larger than the whole pool."""
    pool, listed, unwritten = Pool(23, 5), [], 0
    sizes = rng(0, "sizes").integers(0, 31, 200).tolist()
    for step, size in enumerate(sizes):
        embeddings, rows = batch(step, size, 5)
        pool.push(embeddings, rows)
        listed = (listed + list(zip(rows.tolist(), embeddings, strict=True)))[-23:]
        assert held(pool) == [row for row, _ in listed]
        assert pool.count == len(listed)
        for row, embedding in listed:
            (place,) = (pool.rows == row).nonzero()[:, 0].tolist()
            wanted = embedding.float() / embedding.float().norm()
            torch.testing.assert_close(pool.embeddings[place], wanted, rtol=0, atol=1e-7)
        unwritten += int((pool.rows < 0).sum())
    assert len(listed) == 23 and unwritten > 0


def test_a_batch_lies_behind_the_one_before_it_whether_in_parts_or_at_once():
    parts, once = Pool(10, 4), Pool(10, 4)
    embeddings, rows = batch(0, 37, 4)
    for start, end in ((0, 3), (3, 9), (9, 14), (14, 14), (14, 37)):
        parts.push(embeddings[start:end], rows[start:end])
    once.push(embeddings, rows)
    assert all(torch.equal(one, other) for one, other in zip(parts.buffers(), once.buffers(), strict=True))
    assert int(once.position) == 7 and held(once) == rows[-10:].tolist()


def test_a_checkpoint_restores_it_to_the_bit_and_it_goes_on_alike():
    pool, restored = Pool(50, 8), Pool(50, 8)
    for step in range(9):
        pool.push(*batch(step, 7, 8))
    buffer = io.BytesIO()
    torch.save(pool.state_dict(), buffer)
    restored.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert sorted(pool.state_dict()) == ["embeddings", "filled", "position", "rows"]
    assert pool.embeddings.dtype == torch.float32 and pool.rows.dtype == torch.int64
    for step in range(9, 20):
        one, other = pool.search(batch(step, 7, 8)[0]), restored.search(batch(step, 7, 8)[0])
        assert torch.equal(one.rows, other.rows) and torch.equal(one.similarities, other.similarities)
        for each in (pool, restored):
            each.push(*batch(step, 7, 8))
        assert all(torch.equal(a, b) for a, b in zip(pool.buffers(), restored.buffers(), strict=True))


def test_a_checkpoint_of_another_capacity_is_refused():
    with pytest.raises(RuntimeError, match="size mismatch"):
        Pool(51, 8).load_state_dict(Pool(50, 8).state_dict())


def test_two_ranks_hold_and_match_the_same_as_one_process_after_a_thousand_pushes():
    """Batches that cross the end of the buffer, and one above its capacity; the ranks' own generators differ."""
    alone = pushed(1000, 37, 6, [12, 4, 50])
    assert int(alone["filled"]) == 37 and len(alone["matched"]) > 20_000
    for rank in on_ranks(2, pushed, 1000, 37, 6, [12, 4, 50]):
        assert rank.keys() == alone.keys()
        assert all(torch.equal(rank[name], alone[name]) for name in alone)


# ------------------------------------------------------------------------------------------ matching


@pytest.mark.parametrize("way", ["torch", "faiss-cpu"])
def test_what_was_never_pushed_is_never_matched(way):
    """A query opposite to everything is nearer to an unwritten entry of zeros than to any that was pushed."""
    pool = Pool(100, 16, search=way)
    with pytest.raises(ValueError, match="the pool is empty, so nothing can be matched: push a batch first"):
        pool.search(unit("queries", 3, 16))
    for step in range(5):
        embeddings, rows = batch(step, 13, 16)
        pool.push(embeddings.abs(), rows)
        found = pool.search(-unit("queries", 30, 16).abs())
        assert (found.similarities < 0).all() and (found.rows >= 0).all() and (found.places < pool.count).all()


def test_a_match_is_told_by_row_id_embedding_and_cosine_and_no_push_changes_it():
    pool = Pool(6, 4, search="torch")
    pool.push(torch.eye(4) * 5, torch.tensor([11, 22, 33, 44]))
    queries = torch.tensor([[0.0, 9.0, 0.1, 0.0], [0.0, 0.0, -1.0, 0.0], [2.0, 2.0, 0.0, 0.0]])
    found = pool.search(queries)
    assert found.rows.tolist() == [22, 11, 11]  # the second is equally far from three, the third equally near to two
    pool.push(-torch.ones(6, 4), torch.arange(6))
    assert torch.equal(found.embeddings, torch.eye(4)[[1, 0, 0]])
    assert found.similarities.tolist() == pytest.approx([9 / (81.01**0.5), 0.0, 0.5**0.5])


def test_no_gradient_flows_into_the_pool_and_the_caller_keeps_that_of_the_queries():
    pool, queries = Pool(8, 4), torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    pushed = torch.randn(8, 4, requires_grad=True)
    pool.push(pushed * 2, torch.arange(8))
    found = pool.search(queries)
    assert not found.embeddings.requires_grad and not any(buffer.requires_grad for buffer in pool.buffers())
    (queries * found.embeddings).sum().backward()
    assert torch.equal(queries.grad, found.embeddings) and pushed.grad is None
    assert not list(pool.parameters())


def test_an_embedding_that_is_not_finite_ends_the_run_and_stays_out():
    pool = Pool(8, 4)
    pool.push(torch.ones(2, 4), torch.arange(2))
    before = copy.deepcopy(pool.state_dict())
    for value in (torch.nan, torch.inf):
        bad = torch.full((2, 4), value)
        with pytest.raises(Lost, match="not finite: set --lr lower"):
            pool.push(bad, torch.arange(2))
        with pytest.raises(Lost, match="not finite"):
            pool.search(bad)
    assert all(torch.equal(before[name], value) for name, value in pool.state_dict().items())


# ------------------------------------------------------------------------------------------ the ways of searching


def both(queries: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
    """Places, after torch and FAISS gave the same ones and the same similarities."""
    ours, theirs = nearest(queries, entries, "torch"), nearest(queries, entries, "faiss-cpu")
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    torch.testing.assert_close(
        ours[1].double(), (queries.double() * entries[ours[0]].double()).sum(1), rtol=0, atol=1e-7
    )
    return ours[0]


def test_torch_and_faiss_agree_on_ten_thousand_random_queries_and_are_right():
    queries, entries = unit("queries", 10_000, 128), unit("entries", 4001, 128)
    assert torch.equal(both(queries, entries), oracle(queries, entries))


@pytest.mark.parametrize("width", [24, 128])
def test_torch_and_faiss_agree_on_adversarially_tied_queries(width):
    queries, entries = adversarial(width)
    found = both(queries, entries)
    assert torch.equal(found, oracle(queries, entries))
    rough = (queries @ entries.T).argmax(dim=1)
    assert (rough != found).float().mean() > 0.3  # else the test would ask for nothing


def test_a_pool_of_one_repeated_embedding_answers_with_its_first_entry():
    """A collapsed model; no list of candidates is long enough for it."""
    one = unit("one", 1, 64)
    assert both(unit("queries", 200, 64), one.expand(3000, 64).contiguous()).tolist() == [0] * 200


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 31, 32, 33, 100])
def test_small_pools_are_searched_like_large_ones(count):
    queries, entries = unit("queries", 50, 16), unit("entries", count, 16)
    assert torch.equal(both(queries, entries), oracle(queries, entries))


def test_the_size_of_the_pieces_changes_nothing(monkeypatch):
    queries, entries = adversarial(24)
    queries = queries[::4]
    whole = nearest(queries, entries, "torch")
    monkeypatch.setattr(search, "QUERIES", 700)
    monkeypatch.setattr(search, "SCORES", 100_000)
    assert all(torch.equal(a, b) for a, b in zip(nearest(queries, entries, "torch"), whole, strict=True))


def test_neither_autocast_nor_a_lower_matmul_precision_changes_an_answer():
    """Entries about one direction, queries across it: bfloat16 rounds away more than the similarities differ by."""
    centre = unit("centre", 1, 24)
    entries = torch.nn.functional.normalize(centre + 0.02 * unit("others", 1000, 24), dim=1)
    queries = unit("queries", 500, 24)
    queries = torch.nn.functional.normalize(queries - queries @ centre.T * centre, dim=1)
    whole = nearest(queries, entries, "torch")
    assert torch.equal(whole[0], oracle(queries, entries))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = nearest(queries, entries, "torch")
    assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))
    torch.set_float32_matmul_precision("medium")
    try:
        found = nearest(queries, entries, "torch")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))


@pytest.mark.parametrize("width", [1, 2, 3, 100, 1024])
def test_a_similarity_is_the_same_to_the_bit_at_every_shape(width):
    left, right = unit("left", 40, width), unit("right", 40, width)
    whole = dot(left, right)
    assert whole.dtype == torch.float64
    assert torch.allclose(whole, (left.double() * right.double()).sum(dim=1), rtol=0, atol=1e-15)
    assert torch.equal(whole, torch.stack([dot(a, b) for a, b in zip(left, right, strict=True)]))


# ------------------------------------------------------------------------------------------ the choice


def test_the_start_says_how_it_is_searched(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ANTIDOTE_LOG", str(tmp_path / "events.jsonl"))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert Pool(2000, 4).way == "torch"
    told = capsys.readouterr().err
    assert "pool of 2,000 embeddings on cpu, searched by torch (the fastest exact one on a CPU with AVX512)" in told
    event = json.loads((tmp_path / "events.jsonl").read_text())
    assert (event["capacity"], event["device"], event["search"]) == (2000, "cpu", "torch")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    Pool(2000, 4)
    assert not capsys.readouterr().err


def test_a_cpu_without_avx_512_is_searched_by_faiss_where_it_is_there(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(search, "_no_faiss", lambda: "")
    assert choose("auto", cpu) == ("faiss-cpu", "the fastest exact one on a CPU with AVX2")
    monkeypatch.setattr(search, "_no_faiss", lambda: "faiss cannot be imported (gone)")
    assert choose("auto", cpu) == ("torch", "faiss cannot be imported (gone)")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert choose("auto", cpu) == ("torch", "not compared with FAISS on such a CPU")
    with pytest.raises(ValueError, match=r"imported \(gone\): install clip-antidote\[faiss-cpu\], or set torch"):
        choose("faiss-cpu", cpu)


def test_a_gpu_is_searched_by_faiss_where_its_build_is_there_and_by_torch_where_not(monkeypatch):
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(search, "_no_gpu_search", lambda: "")
    assert choose("auto", gpu) == ("faiss-gpu", "in place")
    monkeypatch.setattr(search, "_no_gpu_search", lambda: "this build of faiss has no GPU code")
    assert choose("auto", gpu) == ("torch", "this build of faiss has no GPU code")
    with pytest.raises(ValueError, match=r"no GPU code: install clip-antidote\[faiss-gpu\], or set torch"):
        choose("faiss-gpu", gpu)


@pytest.mark.parametrize(
    ("wanted", "device", "words"),
    [
        ("faiss-gpu", "cpu", "the pool lies on cpu: set torch or faiss-cpu"),
        ("faiss-cpu", "cuda:0", "would copy the pool from cuda:0 in every step: set faiss-gpu or torch"),
        ("annoy", "cpu", "'annoy' is no way to search: set auto, faiss-gpu, faiss-cpu or torch"),
    ],
)
def test_a_way_that_cannot_be_had_is_refused_with_what_to_do(wanted, device, words):
    with pytest.raises(ValueError, match=words):
        choose(wanted, torch.device(device))


def test_a_faiss_that_misses_nvidias_libraries_is_one_that_cannot_be_imported(tmp_path, monkeypatch):
    """faiss-gpu without them raises a RuntimeError on import."""
    (tmp_path / "faiss.py").write_text("raise RuntimeError('faiss-gpu installed but nvidia-cublas-cu12 is missing')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "faiss"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ValueError, match="nvidia-cublas-cu12 is missing"):
        choose("faiss-cpu", torch.device("cpu"))
    assert "nvidia-cublas-cu12 is missing" in search._no_gpu_search.__wrapped__()


def test_a_pool_of_nothing_is_refused():
    for capacity, width in ((0, 4), (4, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            Pool(capacity, width)


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["torch", "faiss-gpu"])
def test_a_pool_on_a_gpu_gives_the_matches_of_one_here(way):
    """Skipped where there is no GPU or no GPU build; where both are there, whatever goes wrong is a failure."""
    device = gpu.device(why_not_cpu="faiss-gpu searches on GPUs" if way == "faiss-gpu" else "")
    if way == "faiss-gpu":
        faiss = pytest.importorskip("faiss", reason="FAISS ON THE GPU NOT TESTED: faiss is not installed")
        if not hasattr(faiss, "StandardGpuResources"):
            pytest.skip("FAISS ON THE GPU NOT TESTED: this build of faiss has no GPU code")
        assert choose("auto", device)[0] == "faiss-gpu"
    cases = [adversarial(24), adversarial(128)]
    if device.type == "cuda":
        cases.append((unit("queries", 5000, 1024), unit("entries", 21845, 1024)))
    for queries, entries in cases:
        here = nearest(queries, entries, "torch")
        there = nearest(queries.to(device), entries.to(device), way)
        assert all(torch.equal(a, b.cpu()) for a, b in zip(here, there, strict=True))
    pools = Pool(300, 24, way, device=device), Pool(300, 24, device="cpu")
    for step in range(50):
        embeddings, rows = batch(step, 64, 24)
        for pool in pools:
            pool.push(embeddings.to(pool.rows.device), rows.to(pool.rows.device))
    assert pools[0].way == way and torch.equal(pools[0].rows.cpu(), pools[1].rows)
    torch.testing.assert_close(pools[0].embeddings.cpu(), pools[1].embeddings, rtol=0, atol=1e-6)
