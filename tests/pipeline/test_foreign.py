"""Shards of someone else, in which samples are odd: counted, named, and refused where they are too many."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from infra.errors import Lost
from pipeline import dataset, foreign, shards
from pipeline.dataset import Dataset
from pipeline.shards import write_shard
from pipeline.verification import Verification
from tests.support.drawn import drawn, samples
from tests.support.odd_tars import corpus, in_json, keys_of, pair, tar

ODD = (("no-text.jpg", samples(1)[0].image), ("no-image.txt", b"alone"))


def verification(folder: str, **more) -> Verification:
    return Verification(dataset=folder, backend="local", **more)


def test_one_odd_sample_is_counted_under_its_own_outcome(tmp_path):
    made = Dataset.open(corpus(tmp_path / "bare", *ODD, cut=0))
    assert made.samples == 38
    assert made.outcomes == {"no_caption": 1, "no_image": 1, "success": 38}
    odd = {
        row["key"]: row["outcome"] for row in made.index(made.shards[1]).to_pylist() if row["key"] not in keys_of(made)
    }
    assert odd == {"no-text": "no_caption", "no-image": "no_image"}


def test_verify_names_them_by_key_and_says_how_many(tmp_path, capsys):
    folder = corpus(tmp_path / "bare", *ODD, cut=0)
    said = verification(folder).run()
    assert said == f"verified: 38 pairs in 2 shards at {folder}; left out: 1 no_caption, 1 no_image"
    told = capsys.readouterr().err
    assert "shard 1 (00001.tar), no-text: no_caption" in told
    assert "shard 1 (00001.tar), no-image: no_image" in told


def test_too_many_are_refused_with_counts_examples_and_the_way_past(tmp_path):
    folder = corpus(tmp_path / "bare", *ODD, ("list.json", b"[1]"), good=18, cut=0)
    for _ in range(2):  # once more from the index in our cache
        with pytest.raises(ValueError, match="cannot be used") as caught:
            Dataset.open(folder)
        said = str(caught.value)
        assert said.startswith(f"{folder}: 3 of 21 samples cannot be used (2 no_image, 1 no_caption): ")
        assert "00001.tar: 'no-text' is not an image with a .txt caption (it has ['jpg'])" in said
        assert "More than 5% are refused" in said
        assert said.endswith(f"antidote verify --dataset {folder} --decode --max-bad-share 0.15 --leave-out NEW")


def test_the_way_past_leads_past(tmp_path):
    folder, new = corpus(tmp_path / "bare", *ODD, good=18, cut=1), str(tmp_path / "new")
    with pytest.raises(ValueError, match=r"2 of 21 samples .*--max-bad-share 0\.1 --leave-out NEW"):
        verification(folder, leave_out=new).run()
    with pytest.raises(
        ValueError, match=r"3 of 21 samples .*1 no_caption, 1 no_image, 1 truncated.*More than 10%.*0\.15"
    ):
        verification(folder, leave_out=new, decode=True, max_bad_share=0.1).run()
    said = verification(folder, leave_out=new, decode=True, max_bad_share=0.15).run()
    assert said == (f"left out 3 of 21 samples (1 no_caption, 1 no_image, 1 truncated): 18 pairs in 2 shards at {new}")
    made = Dataset.open(new)
    assert made.outcomes == {"no_caption": 1, "no_image": 1, "success": 18, "truncated": 1}
    assert "verified: 18 pairs" in verification(new, decode=True).run()
    again = verification(folder, leave_out=new, decode=True, max_bad_share=0.15).run()
    assert again == f"nothing to do: 18 pairs in 2 shards at {new}"
    assert sorted(path.name for path in Path(folder).iterdir()) == ["00000.tar", "00001.tar"]


def test_where_decoding_finds_nothing_the_new_dataset_is_the_old_one(tmp_path):
    folder, new = corpus(tmp_path / "bare", *ODD, cut=0), str(tmp_path / "new")
    verification(folder, leave_out=new).run()
    made = Dataset.open(new)
    assert made.mask is None
    assert made.digest == Dataset.open(folder).digest


def test_a_truncated_image_is_named_by_decoding_with_key_and_way_past(tmp_path):
    folder = corpus(tmp_path / "bare", good=38, cut=2)
    assert verification(folder).run() == f"verified: 40 pairs in 2 shards at {folder}"
    with pytest.raises(Lost) as caught:
        verification(folder, decode=True).run()
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 of 40 pairs cannot be decoded (2 truncated):"
    for line, key in zip(lines[1:3], ("000000038", "000000039"), strict=True):
        assert line.startswith(f"  shard 1 (00001.tar), {key}: not a readable JPEG")
    assert lines[3].endswith(f"antidote verify --dataset {folder} --decode --leave-out NEW")


def test_of_a_dataset_of_ours_they_are_left_out_too(tmp_path):
    pairs = samples(40)
    made = drawn(str(tmp_path / "ours"), 40, 2)
    url, new = str(tmp_path / "broken"), str(tmp_path / "new")
    dataset.claim(url, {})
    broken = [replace(one, image=one.image[:-60]) if one.row == 7 else one for one in pairs]
    dataset.commit(url, 0, write_shard(tmp_path / "s.tar", broken))
    dataset.finalise(url, 1)
    assert verification(url, decode=True, leave_out=new).run().startswith("left out 1 of 40 samples (1 truncated): 39")
    assert Dataset.open(new).mask.to_pylist() == [{"shard": 0, "row": 7, "key": "000000007", "reason": "truncated"}]
    assert keys_of(Dataset.open(new)) == [key for key in keys_of(made) if key != "000000007"]


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="--max-bad-share is a share of all pairs, from 0 to 1"):
        verification("x", max_bad_share=share)


def test_a_caption_in_the_json_alone_is_read(tmp_path):
    one, two = samples(2)
    tar(tmp_path / "bare" / "0.tar", *pair(one), *in_json(two))
    made = Dataset.open(str(tmp_path / "bare"))
    assert made.index_of_samples(["caption"])["caption"].to_pylist() == [one.caption, two.caption]
    assert "verified: 2 pairs" in verification(made.url, decode=True).run()
    tar(tmp_path / "plain" / "0.tar", *pair(one), *pair(two))
    plain = Dataset.open(str(tmp_path / "plain"))
    assert plain.index_of_samples(["row"])["row"].equals(made.index_of_samples(["row"])["row"]), "one pair, one row id"


def test_the_caption_is_read_from_where_it_is_stored(tmp_path):
    one = samples(1)[0]
    tar(tmp_path / "bare" / "0.tar", *in_json(one))
    made = Dataset.open(str(tmp_path / "bare"))
    index = made.index(made.shards[0]).to_pylist()[0]
    with open(tmp_path / "bare" / "0.tar", "rb") as file:
        assert shards.stored_caption(file, index) == one.caption.encode()
        assert shards.stored_caption(file, index | {"json_offset": None, "json_bytes": None}) is None


def test_empty_shards_are_counted_and_passed_over(tmp_path, capsys):
    folder = corpus(tmp_path / "bare", good=6, cut=0)
    tar(tmp_path / "bare" / "00002.tar")
    (tmp_path / "bare" / "00003.tar").write_bytes(b"")
    made = Dataset.open(folder)
    assert (made.samples, made.outcomes) == (6, {"empty_shard": 2, "success": 6})
    assert [shard.samples for shard in made.shards] == [3, 3, 0, 0]
    assert verification(folder).run().endswith("left out: 2 empty_shard")
    assert "shard 3 (00003.tar), 00003.tar: empty_shard" in capsys.readouterr().err


def test_files_that_a_system_left_are_passed_over_and_counted_in_one_line(tmp_path, capsys):
    hidden = (("._000000000.jpg", b"x"), (".DS_Store", b"x"), ("__MACOSX/._1.jpg", b"x"), ("Thumbs.db", b"x"))
    folder = corpus(tmp_path / "bare", *hidden, good=6, cut=0)
    (tmp_path / "bare" / "._00000.tar").write_bytes(b"x")
    assert Dataset.open(folder).outcomes == {"success": 6}
    assert capsys.readouterr().err.count("passed over 5 hidden files in ") == 1


def test_tars_in_subfolders_are_read_and_those_of_datasets_are_not(tmp_path):
    root = tmp_path / "root"
    corpus(root, good=4, cut=0)
    corpus(root / "part" / "deep", good=6, cut=0, first=100)
    drawn(str(root / "ours"), 4, 1)
    made = Dataset.open(str(root))
    assert [shard.name for shard in made.shards] == [
        "00000.tar", "00001.tar", "part/deep/00000.tar", "part/deep/00001.tar",
    ]  # fmt: skip
    assert made.samples == 10
    assert "verified: 10 pairs in 4 shards" in verification(str(root), decode=True).run()
    for name in ("00000.tar", "00001.tar"):
        (root / name).unlink()
    assert Dataset.open(str(root)).samples == 6
    (root / "part" / "deep" / "00000.tar").write_bytes(b"x" * 2000)
    with pytest.raises(Lost, match=f"^{root}/part/deep: 00000.tar is no tar"):
        Dataset.open(str(root))
    drawn(str(tmp_path / "up" / "ours"), 2, 1)
    with pytest.raises(ValueError, match=rf"no dataset at {tmp_path}/up: .*give one of the datasets in it: ours"):
        Dataset.open(str(tmp_path / "up"))


@pytest.mark.parametrize("beside", [True, False])
def test_a_compressed_tar_is_refused_with_what_to_do(tmp_path, beside):
    folder = tmp_path / "bare"
    path = tar(folder / "00000.tar", *pair(samples(1)[0]))
    (folder / "00001.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    if not beside:
        path.unlink()
    with pytest.raises(ValueError, match=r"00001\.tar\.gz is compressed.*decompress all 1 such files \(gunzip"):
        Dataset.open(str(folder))


def test_keys_with_dots_are_refused_in_a_short_line_that_names_one(tmp_path):
    many = [member for n in range(3000) for member in ((f"2024.{n}.jpg", b"x"), (f"2024.{n}.txt", b"x"))]
    tar(tmp_path / "bare" / "0.tar", *many)
    with pytest.raises(ValueError, match=r"'2024\.0\.jpg' has a dot inside its key: .* be '2024'") as caught:
        Dataset.open(str(tmp_path / "bare"))
    assert len(str(caught.value)) < 500


def test_a_folder_of_foreign_tars_is_called_by_its_own_name(tmp_path):
    folder = corpus(tmp_path / "bare", cut=0)
    made = Dataset.open(folder)
    assert made.url == folder
    assert made.is_foreign
    assert str(dataset.cache_folder()) in made.bases[0]
    assert verification(folder).run().endswith(folder)


def test_an_index_of_before_examples_were_kept_is_refused_without_them(tmp_path):
    folder = corpus(tmp_path / "bare", *ODD, good=18, cut=0)
    made = Dataset.open(folder, max_bad_share=1)
    Path(made.bases[0], foreign.EXAMPLES).unlink()
    with pytest.raises(ValueError, match="2 of 20 samples cannot be used"):
        Dataset.open(folder)
