from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import PIL
import pytest
import torch

from eval.measuring import embed as embedding_sets
from eval.measuring import scoring, trials
from eval.measuring.embed import embed, ensemble
from eval.measuring.trials import trial_rng
from eval.store import runs
from eval.tasks.attack_success import AttackSuccess
from infra import storage
from pipeline import dataset, images, orientation, testsets
from pipeline.captioned import Captioned
from pipeline.testsets import Picture
from poison.attack import Attack
from poison.attacks.badnet import BadNet
from poison.attacks.external import External
from poison.attacks.swap import Swap
from poison.attacks.targeted import Targeted
from tests.support.eval_helpers import ATTACK, CLASSES, TEMPLATES, World, smooth, weights, world
from train import embedding, model
from train.embedding import Embedder


@pytest.fixture
def small(tmp_path: Path) -> World:
    return world(tmp_path)


def load(world: World, seed: int = 0) -> Embedder:
    url = world.run(f"run {seed}", world.poisoned, seed=seed)
    return scoring.load(runs.read(url, world.folder), torch.device("cpu"))


def test_class_embeddings_are_those_of_open_clips_zero_shot_classifier(small: World) -> None:
    embedder = load(small)
    found = embed(embedder, testsets.read(small.testset), None, seed=0)
    templates = [lambda c, text=text: text.replace("{c}", c) for text in TEMPLATES]
    reference = open_clip.build_zero_shot_classifier(embedder.model, embedder.tokenizer, CLASSES, templates)
    assert np.allclose(found.classes, reference.T.numpy(), atol=1e-6)


def test_class_names_that_are_cut_in_the_prompts_are_named_and_counted(small: World, capsys) -> None:
    """The model reads 16 tokens: a start, an end, the template's, and the name's."""
    long = [f"{colour} {'very ' * 9}old fish" for colour in ("red", "blue", "green", "grey", "black")]
    test = replace(
        testsets.read(small.testset), classes=("car", *long, "fish"), templates=("a {c}.", "a photo of a {c}.")
    )
    for _ in range(2):  # the second time they come from the cache
        embed(load(small), test, None, seed=0)
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
        assert said == [
            "warning: 5 of 7 class names do not fit into this model's prompts, which are cut after 16 tokens "
            f"(with 'a photo of a {{c}}.'): {', '.join(map(repr, long[:3]))} and 2 more"
        ]
    exact = "very " * 8 + "old"  # 9 tokens beside the template's 5 and the two ends
    embed(load(small), replace(test, classes=("car", exact)), None, seed=0)
    assert "warning" not in capsys.readouterr().err


def test_image_embeddings_are_those_of_the_exported_model_in_open_clip(small: World) -> None:
    url = small.run("run", small.poisoned, seed=3)
    clip = model.create(model.architecture("tiny-vit"), 3)
    model.export(clip, model.architecture("tiny-vit"), url)
    opened, _, transform = open_clip.create_model_and_transforms(f"local-dir:{url}/open_clip")
    embedder = scoring.load(runs.read(url, small.folder), torch.device("cpu"))
    test = testsets.read(small.testset)
    found = embed(embedder, test, None, seed=0)
    pixels = torch.stack([transform(images.open_image(data)) for _, data in testsets.stored(test)])
    with torch.no_grad():
        reference = opened.eval().encode_image(pixels, normalize=True).numpy()
    assert np.allclose(found.images, reference, atol=1e-5)
    assert (found.labels == [one.label for one in test.pictures]).all()


def test_images_under_attack_are_the_stored_ones_with_the_stamp_and_none_is_of_the_target(small: World) -> None:
    embedder, test = load(small), testsets.read(small.testset)
    found = embed(embedder, test, ATTACK, seed=7)
    stamped, labels = [], []
    for one, data in testsets.stored(test):
        if test.classes[one.label] != ATTACK.target:
            shown = ATTACK.stamp(images.decode(data), trial_rng(7, one.sha256))
            stamped.append(embedder.preprocess(images.open_image(images.encode(shown, "png"))))
            labels.append(one.label)
    with torch.no_grad():
        reference = embedder.model.encode_image(torch.stack(stamped), normalize=True).numpy()
    assert found.attacked is not None
    assert np.allclose(found.attacked.images, reference, atol=1e-5)
    assert found.attacked.labels.tolist() == labels
    assert set(found.attacked.wanted) == {CLASSES.index(ATTACK.target)}
    assert not np.allclose(found.attacked.images, found.images[np.isin(found.labels, labels)], atol=1e-3)


def other_set(small: World, classes: tuple[str, ...], first: int = 100) -> testsets.TestSet:
    """A test set of other images, of these classes in turn."""
    url = small.url("-".join(classes))
    samples = [(images.encode(smooth(first + n), "jpg"), "jpg", n % len(classes)) for n in range(8)]
    testsets.write(url, samples, classes, TEMPLATES)
    return testsets.read(url)


def shown_by(embedder: Embedder, shown: list[bytes]) -> np.ndarray:
    pixels = torch.stack([embedder.preprocess(images.open_image(data)) for data in shown])
    with torch.no_grad():
        return embedder.model.encode_image(pixels, normalize=True).numpy()


def test_a_targeted_attack_shows_its_own_images_on_any_test_set_that_has_the_target(small: World) -> None:
    embedder = load(small)
    attack = Targeted(testset=small.testset, images=5, target="car").resolved()
    own = attack.subjects(())
    for classes in (CLASSES, ("dog", "car"), ("tree", "Car", "House")):
        test = other_set(small, classes)
        found = embed(embedder, test, attack, seed=0)
        assert found.attacked is not None
        assert np.allclose(found.attacked.images, shown_by(embedder, [data for _, data in own]), atol=1e-5)
        lower = [name.lower() for name in classes]
        assert found.attacked.labels.tolist() == [lower.index(n) if n in lower else -1 for n, _ in own]
        assert set(found.attacked.wanted) == {lower.index("car")}
        assert len(found.images) == 8
    values = {(one.metric, one.k): one.n for one in AttackSuccess().measure(found).measures}
    assert values["attack_success", 1] == 5
    assert values["triggered_accuracy", 1] == sum(name in ("tree", "house") for name, _ in own)


def test_where_no_true_class_is_known_only_attack_success_is_measured(small: World) -> None:
    attack = Targeted(testset=small.testset, images=5, target="car").resolved()
    found = embed(load(small), other_set(small, ("dog", "car")), attack, seed=0)
    assert {one.metric for one in AttackSuccess().measure(found).measures} == {"attack_success"}


def test_swapped_images_are_those_of_the_source_class(small: World) -> None:
    embedder, test = load(small), testsets.read(small.testset)
    found = embed(embedder, test, Swap(source="fish", target="car"), seed=0)
    assert found.attacked is not None
    assert set(found.attacked.labels) == {CLASSES.index("fish")}
    # Not to the bit: without AVX-512 a batch of another size is rounded otherwise.
    assert np.allclose(found.attacked.images, found.images[found.labels == CLASSES.index("fish")], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="of none that it is made for"):
        embed(embedder, test, Swap(source="dog", target="car"), seed=0)


def test_images_poisoned_elsewhere_are_shown_in_place_of_the_test_sets(small: World) -> None:
    trials = other_set(small, ("house", "car", "dog"))
    storage.write(small.url("made/000000001.png"), images.encode(smooth(1), "png"))
    attack = External(pictures=small.url("made"), trials=trials.url, target="car").resolved()
    embedder, test = load(small), testsets.read(small.testset)
    found = embed(embedder, test, attack, seed=0)
    assert found.attacked is not None
    wanted = [(one.label, data) for one, data in testsets.stored(trials) if one.label != 1]
    assert np.allclose(found.attacked.images, shown_by(embedder, [data for _, data in wanted]), atol=1e-5)
    assert found.attacked.labels.tolist() == [CLASSES.index("house") if label == 0 else -1 for label, _ in wanted]
    storage.remove(trials.url)
    other_set(small, ("house", "car", "dog"), first=200)
    changed = replace(attack, trials_digest=testsets.read(trials.url).digest)
    assert not np.allclose(embed(embedder, test, changed, seed=0).attacked.images, found.attacked.images)


def test_classes_that_share_a_name_keep_their_own_labels(small: World) -> None:
    test = other_set(small, ("crane", "car", "crane"))
    found = embed(load(small), test, ATTACK, seed=0)
    assert found.attacked is not None
    assert found.attacked.labels.tolist() == [one.label for one in test.pictures if one.label != 1]


@pytest.mark.parametrize("attack", [None, ATTACK])
def test_a_damaged_picture_of_someone_elses_test_set_is_named(small: World, attack: Attack | None) -> None:
    """By tar and key. Its header is whole, so that nothing is seen before it is decoded."""
    tar = Path(small.testset) / "test" / "0.tar"
    data, broken = tar.read_bytes(), testsets.read(small.testset).pictures[4]
    place = broken.offset + broken.bytes - 40
    tar.write_bytes(data[:place] + bytes(20) + data[place + 20 :])
    embedder, test = load(small), testsets.read(small.testset)

    def measured() -> None:
        if attack is None:
            embed(embedder, test, None, seed=0)
        else:
            trials.embed(embedder, test, attack, 0, 1)

    with pytest.raises(ValueError, match=r"the image of 's0000004' in test/0\.tar cannot be decoded: not a readable"):
        measured()


def test_another_decoder_is_another_key(small: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What an image looks like to a model depends on it: no embedding outlives a change of it."""

    def identity() -> str:
        return scoring.load(runs.read(small.url("runs/run 0"), small.folder), torch.device("cpu")).identity

    first = load(small).identity
    for module in (images, orientation):
        with monkeypatch.context() as patch:
            (tmp_path / "changed.py").write_text(Path(str(module.__file__)).read_text() + "# changed\n")
            patch.setattr(module, "__file__", str(tmp_path / "changed.py"))
            assert identity() != first
    for library in (PIL, torch):
        with monkeypatch.context() as patch:
            patch.setattr(library, "__version__", "0.1")
            assert identity() != first
    assert identity() == first


def test_the_second_time_nothing_is_encoded(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, test = load(small), testsets.read(small.testset)
    first = embed(embedder, test, ATTACK, seed=0)

    def fail(*_: object) -> None:
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(embedder.model, "encode_image", fail)
    monkeypatch.setattr(embedder.model, "encode_text", fail)
    second = embed(embedder, test, ATTACK, seed=0)
    assert (first.images == second.images).all()
    assert (first.classes == second.classes).all()
    with pytest.raises(AssertionError, match="asked again"):
        embed(embedder, test, ATTACK, seed=1)  # a trigger at other places


def test_other_weights_in_the_same_place_are_other_embeddings(small: World) -> None:
    test = testsets.read(small.testset)
    first = embed(load(small), test, None, seed=0)
    storage.remove(small.url("runs/run 0"))
    url = small.run("run 0", small.poisoned, seed=5)
    second = embed(scoring.load(runs.read(url, small.folder), torch.device("cpu")), test, None, seed=0)
    assert not np.allclose(first.images, second.images)


def test_threads_and_batches_do_not_change_what_is_embedded(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, test = load(small), testsets.read(small.testset)
    one = embed(embedder, test, ATTACK, seed=0)
    storage.remove(str(dataset.cache_folder()))
    three = embed(embedder, test, ATTACK, seed=0, cpus=3)
    assert (one.images == three.images).all()
    assert (one.attacked.images == three.attacked.images).all()
    storage.remove(str(dataset.cache_folder()))
    monkeypatch.setattr(embedding, "BATCH", 3)
    cut = embed(embedder, test, ATTACK, seed=0, cpus=2)
    assert np.allclose(one.images, cut.images, atol=1e-6)
    assert (one.labels == cut.labels).all()


def test_a_damaged_cache_entry_is_said_and_made_again(small: World, capsys: pytest.CaptureFixture[str]) -> None:
    embedder, test = load(small), testsets.read(small.testset)
    first = embed(embedder, test, None, seed=0)
    for entry in (dataset.cache_folder() / "embeddings").glob("*.npz"):
        entry.write_bytes(entry.read_bytes()[:-100])
    again = embed(embedder, test, None, seed=0)
    assert (first.images == again.images).all()
    assert "is damaged" in capsys.readouterr().err


def test_a_model_that_diverged_is_refused(small: World) -> None:
    embedder = load(small)
    with torch.no_grad():
        embedder.model.visual.proj.fill_(float("nan"))
    with pytest.raises(ValueError, match="training diverged"):
        embed(embedder, testsets.read(small.testset), None, seed=0)


def test_the_ensemble_is_the_normalised_mean_of_normalised_prompts() -> None:
    prompts = np.array([[[3.0, 0.0], [0.0, 5.0]]])
    assert np.allclose(ensemble(prompts), [[np.sqrt(0.5), np.sqrt(0.5)]])


def test_weights_that_change_meanwhile_are_noticed(small: World) -> None:
    url = small.run("run", small.poisoned)
    run = runs.read(url, small.folder)
    weights_file = storage.join(url, "checkpoints", run.checkpoint, "model.safetensors")
    storage.write(weights_file, weights(9))
    with pytest.raises(RuntimeError, match="damaged"):
        scoring.load(run, torch.device("cpu"))


def test_braces_in_a_word_before_the_prompts_are_no_place_for_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.ones((1, 3), np.float32)
    asked: list[str] = []
    shown = {"images": rows, "labels": np.array([-1]), "wanted": np.array([0]), "prompt_edit": np.array("{x} {}")}
    monkeypatch.setattr(embedding_sets, "_encoded", lambda *_: {"images": rows, "lengths": np.ones(1)})
    monkeypatch.setattr(embedding_sets, "_attacked", lambda *_: dict(shown))

    def texts(_: object, texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return np.ones((len(texts), 3), np.float32)

    monkeypatch.setattr(embedding_sets, "_texts", texts)
    test = Captioned("url", "test", (Picture("0", -1, "png", "0" * 64, 0, 0, 1),), (("a cup",),), "0" * 64)
    embedding_sets.embed_captioned(None, test, BadNet(target="car"), 0)  # type: ignore[arg-type]
    assert "{x} {} a photo of a car" in asked
