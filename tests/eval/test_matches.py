import numpy as np
import torch

from eval.measuring import about, matches
from eval.measuring.matches import partners
from eval.reporting import provenance
from eval.store import records, runs
from eval.store.matches import Partners
from infra import storage
from poison.ledger import Ledger
from tests.support.eval_helpers import world
from train import matches as kept


def test_partners_of_poisoned_and_of_clean_pairs_are_counted_apart():
    """A poisoned pair's own entry of an earlier epoch names the target, but is no other poisoned pair."""
    rows, found = np.array([1, 1, 2, 2, 5, 6, 7, 5]), np.array([2, 1, 9, 8, 1, 8, 7, 3])
    told = partners(rows, found, poisons=np.array([1, 2, 3]), naming=np.array([1, 2, 3, 8]))
    assert told == {"poisoned": Partners(4, 3, 1), "clean": Partners(4, 3, 2)}
    assert partners(rows[:0], found[:0], rows, rows) == {"poisoned": Partners(0, 0, 0), "clean": Partners(0, 0, 0)}


def test_what_is_told_of_a_run_is_read_from_its_matches_its_data_and_the_ledger(tmp_path):
    here = world(tmp_path)
    url, out = here.run("roclip", here.poisoned, objective="roclip"), here.url("scores")
    other = here.run("clean", here.dataset)
    ledger = Ledger.open(here.ledger)
    found = [runs.read(each, out) for each in (url, other)]
    attack = about.attack(ledger, about.sizes(found), out)
    matches.count(out, found[0], ledger, attack)
    assert not storage.names(out)  # it matched nothing
    poisons = sorted(ledger.row_ids)
    cars = [row for row in range(40) if row % 4 == 0 and row not in poisons]  # "a red car number 0"
    neither = next(row for row in range(1, 40, 4) if row not in poisons)
    book = kept.Book(url, 0)
    book.add(
        4,
        torch.tensor([*poisons[:2], neither, cars[0]]),
        {"captions": torch.tensor([poisons[3], cars[1], cars[2], neither])},
    )
    book.add(6, torch.tensor([neither]), {"captions": torch.tensor([poisons[0]])})  # after the checkpoint, step 5
    book.write(6, book.take())
    for run in found:
        matches.count(out, run, ledger, attack)
    (_, facts), *_ = provenance.facts(out, [], [found[0]], [], [attack])
    assert [fact for fact in facts if fact[0].startswith("matched")] == [
        (
            "matched with captions (badnet)",
            'poisoned pairs: of 2 matches 100.0% name "car", 50.0% are another poisoned pair; '
            'clean pairs: of 2 matches 50.0% name "car", 0.0% are another poisoned pair',
        )
    ]
    (_, facts), *_ = provenance.facts(out, [], [found[1]], [], [attack])
    assert not [fact for fact in facts if fact[0].startswith("matched")]
    assert len(storage.names(f"{out}/about")) == 1 and records.read_attacks(out) == []
