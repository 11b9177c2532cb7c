import open_clip
import pytest
import torch

from pipeline.images import open_image
from tests.support.drawn import samples
from train import checkpoint, model

TINY = model.architecture("tiny-vit")


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    states = one.state_dict(), two.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


@pytest.mark.parametrize(
    ("name", "near"), [("ViT-B32", "ViT-B-32"), ("tiny-vitt", "tiny-vit"), ("RN50_quickgelu", "RN50-quickgelu")]
)
def test_an_unknown_model_is_answered_with_the_nearest_names(name, near):
    with pytest.raises(
        ValueError, match=rf"no model is named '{name}': perhaps you meant .*{near}.*; ours are .*tiny-vit"
    ):
        model.architecture(name)


@pytest.mark.parametrize("name", ["coca_ViT-B-32", "roberta-ViT-B-32"])
def test_models_that_are_no_plain_clip_or_must_be_downloaded_are_refused(name):
    with pytest.raises(ValueError, match=f"model '{name}' cannot be trained here"):
        model.architecture(name)


def test_ours_and_open_clips_are_among_the_names():
    assert {"tiny-vit", "RN50-quickgelu", "ViT-B-32"} <= set(model.names())


@pytest.mark.parametrize("path", sorted(model.OURS.glob("*.json")), ids=lambda path: path.stem)
def test_every_model_of_ours_can_be_created(path):
    architecture = model.architecture(path.stem)
    clip = model.create(architecture)
    size = model.image_size(architecture)
    images = clip.encode_image(torch.zeros(2, 3, size, size))
    texts = clip.encode_text(model.tokenizer(architecture)(["a cat", "a dog"]))
    assert images.shape == texts.shape == (2, architecture["model_cfg"]["embed_dim"])


def test_a_model_is_a_function_of_its_seed_and_leaves_torchs_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = model.create(TINY, 0), model.create(TINY, 0), model.create(TINY, 1)
    assert torch.equal(before, torch.get_rng_state())
    assert same(one, two)
    assert not same(one, other)


def test_the_papers_model_has_quickgelu_and_their_logit_scale():
    config = model.architecture("RN50-quickgelu")["model_cfg"]
    assert config["quick_gelu"] is True
    assert config["embed_dim"] == 1024
    assert model.create(TINY).logit_scale.item() == pytest.approx(2.6593, abs=1e-4)


def test_equal_weights_are_equal_bytes():
    data = model.to_bytes(model.create(TINY, 3))
    other = model.create(TINY, 4)
    model.load_bytes(other, data)
    assert model.to_bytes(other) == data


def test_the_export_opens_in_open_clip_and_gives_the_same_embeddings(tmp_path):
    ours = model.create(TINY, 7).eval()
    folder = model.export(ours, TINY, str(tmp_path / "run"))
    model.save_architecture(TINY, str(tmp_path / "run"))
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    theirs.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    pictures = [open_image(sample.image) for sample in samples(4, size=40)]
    captions = [sample.caption for sample in samples(4)]
    assert torch.equal(tokenizer(captions), model.tokenizer(TINY)(captions))
    with torch.no_grad():
        a = ours.encode_image(torch.stack([model.preprocess(picture, TINY) for picture in pictures]), normalize=True)
        b = theirs.encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=True)
        assert torch.allclose(a, b, atol=1e-6)
        assert torch.equal(ours.encode_text(tokenizer(captions)), theirs.encode_text(tokenizer(captions)))
    assert same(ours, open_clip.create_model(f"local-dir:{folder}"))


def test_a_run_opens_at_its_latest_or_a_named_checkpoint(tmp_path):
    run = str(tmp_path / "run")
    with pytest.raises(ValueError, match="no run at"):
        model.load_run(run)
    model.save_architecture(TINY, run)
    with pytest.raises(ValueError, match="holds no whole checkpoint yet"):
        model.load_run(run)
    for step in (5, 10):
        checkpoint.save(run, step, model.to_bytes(model.create(TINY, step)), {"step": step})
    latest, named = model.load_run(run), model.load_run(run, "step-0000005")
    assert (latest.checkpoint, named.checkpoint) == ("step-0000010", "step-0000005")
    assert same(latest.model, model.create(TINY, 10))
    assert same(named.model, model.create(TINY, 5))
    assert latest.sha256 == checkpoint.find(run).sha256(checkpoint.MODEL)
    assert not latest.model.training
    assert latest.preprocess(open_image(samples(1, size=50)[0].image)).shape == (3, 32, 32)
    assert latest.tokenizer(["a", "b"]).shape == (2, 16)
    with pytest.raises(ValueError, match="no whole checkpoint named step-0000007"):
        model.load_run(run, "step-0000007")
