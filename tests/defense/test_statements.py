"""Subjects, relations and objects from dependency parses annotated by hand, as a trained spaCy pipeline gives them."""

import pytest
import spacy
from spacy.tokens import Doc

from defense.language.statements import Statement, statements
from infra.seeding import rng

VOCAB = spacy.blank("en").vocab


def doc(text: str) -> Doc:
    """From words written `word/POS/label/head`, the head being the number of a word counted from 0."""
    fields = [each.split("/") for each in text.split()]
    words, pos, deps, heads = zip(*fields, strict=True)
    return Doc(VOCAB, words=words, pos=pos, deps=deps, heads=list(map(int, heads)))


def said(parsed: Doc) -> list[str]:
    """Each statement as `subject | relation | object`."""

    def text(indices):
        return " ".join(parsed[i].text for i in indices)

    return [" | ".join(map(text, (each.subject, each.relation, each.object))) for each in statements(parsed)]


def test_subject_verb_and_object_stay_and_everything_else_goes():
    parsed = doc(
        "A/DET/det/2 young/ADJ/amod/2 man/NOUN/nsubj/5 is/AUX/aux/5 happily/ADV/advmod/5 riding/VERB/ROOT/5 "
        "a/DET/det/8 red/ADJ/amod/8 horse/NOUN/dobj/5 on/ADP/prep/5 the/DET/det/11 beach/NOUN/pobj/9 ./PUNCT/punct/5"
    )
    assert said(parsed) == ["A young man | is riding | a red horse"]
    [only] = statements(parsed)
    assert only == Statement((0, 1, 2), (3, 5), (6, 7, 8), nouns=(2, 8), adjectives=(1, 7), verb=(5,))


def test_a_verb_without_object_gives_one_statement_a_preposition_and_a_particle_stays():
    parsed = doc(
        "Dogs/NOUN/nsubj/1 jump/VERB/ROOT/1 up/ADP/prt/1 through/ADP/prep/1 snow/NOUN/pobj/3 at/ADP/prep/1 "
        "night/NOUN/pobj/5"
    )
    assert said(parsed) == ["Dogs | jump up through | snow", "Dogs | jump up at | night"]
    assert [each.preposition for each in statements(parsed)] == [(3,), (5,)]
    assert said(doc("A/DET/det/1 boy/NOUN/nsubj/2 jumps/VERB/ROOT/2")) == ["A boy | jumps | "]


def test_next_to_and_in_front_of_are_one_preposition():
    next_to = doc("a/DET/det/1 cup/NOUN/ROOT/1 next/ADV/advmod/1 to/ADP/prep/2 a/DET/det/5 key/NOUN/pobj/3")
    assert said(next_to) == ["a cup | next to | a key"]
    in_front_of = doc(
        "a/DET/det/1 dog/NOUN/nsubj/2 sits/VERB/ROOT/2 in/ADP/prep/2 front/NOUN/pobj/3 of/ADP/prep/4 a/DET/det/8 "
        "brick/NOUN/compound/8 wall/NOUN/pobj/5"
    )
    assert said(in_front_of) == ["a dog | sits in front of | a brick wall"]
    assert statements(in_front_of)[0].nouns == (1, 8)
    left = doc(
        "a/DET/det/1 cup/NOUN/ROOT/1 to/ADP/prep/1 the/DET/det/4 left/NOUN/pobj/2 of/ADP/prep/4 a/DET/det/7 "
        "key/NOUN/pobj/5"
    )
    assert said(left) == ["a cup | to the left of | a key"]


def test_participles_and_relative_clauses_speak_of_the_noun_they_describe():
    participle = doc("A/DET/det/1 girl/NOUN/ROOT/1 jumping/VERB/acl/1 over/ADP/prep/2 a/DET/det/5 rail/NOUN/pobj/3")
    assert said(participle) == ["A girl | jumping over | a rail"]
    passive = doc("house/NOUN/ROOT/0 surrounded/VERB/acl/0 by/ADP/agent/1 trees/NOUN/pobj/2")
    assert said(passive) == ["house | surrounded by | trees"]
    relative = doc(
        "a/DET/det/1 man/NOUN/nsubj/6 who/PRON/nsubj/3 holds/VERB/relcl/1 a/DET/det/5 kite/NOUN/dobj/3 "
        "smiles/VERB/ROOT/6"
    )
    assert said(relative) == ["a man | holds | a kite", "a man | smiles | "]


def test_joined_verbs_and_participles_share_the_subject_but_other_clauses_do_not():
    joined = doc(
        "A/DET/det/1 dog/NOUN/nsubj/2 runs/VERB/ROOT/2 and/CCONJ/cc/2 catches/VERB/conj/2 a/DET/det/6 ball/NOUN/dobj/4"
    )
    assert said(joined) == ["A dog | runs | ", "A dog | catches | a ball"]
    while_standing = doc(
        "A/DET/det/1 dog/NOUN/nsubj/2 barks/VERB/ROOT/2 while/SCONJ/mark/4 standing/VERB/advcl/2 in/ADP/prep/4 "
        "water/NOUN/pobj/5"
    )
    assert said(while_standing) == ["A dog | barks | ", "A dog | standing in | water"]
    to_eat = doc("Dogs/NOUN/nsubj/1 wait/VERB/ROOT/1 to/PART/aux/3 eat/VERB/advcl/1 meat/NOUN/dobj/3")
    assert said(to_eat) == ["Dogs | wait | "]
    begin_to_fly = doc("Birds/NOUN/nsubj/1 begin/VERB/ROOT/1 to/PART/aux/3 fly/VERB/xcomp/1")
    assert said(begin_to_fly) == ["Birds |  | "]


def test_a_verb_keeps_all_its_subjects_and_its_passive_and_negation():
    parsed = doc(
        "A/DET/det/1 boy/NOUN/nsubjpass/7 and/CCONJ/cc/1 a/DET/det/4 girl/NOUN/conj/1 are/AUX/auxpass/7 not/PART/neg/7 "
        "seen/VERB/ROOT/7"
    )
    assert said(parsed) == ["A boy and a girl | are not seen | "]
    listed = doc(
        "Dogs/NOUN/nsubj/5 ,/PUNCT/punct/0 cats/NOUN/conj/0 and/CCONJ/cc/2 birds/NOUN/conj/2 sleep/VERB/ROOT/5"
    )
    assert said(listed) == ["Dogs , cats and birds | sleep | "]


def test_a_noun_with_a_preposition_is_a_statement_and_of_is_part_of_the_noun():
    parsed = doc(
        "A/DET/det/1 group/NOUN/ROOT/1 of/ADP/prep/1 tall/ADJ/amod/4 girls/NOUN/pobj/2 in/ADP/prep/1 "
        "pink/ADJ/amod/7 gowns/NOUN/pobj/5"
    )
    assert said(parsed) == ["A group of tall girls | in | pink gowns"]
    assert statements(parsed)[0].nouns == (4, 7) and statements(parsed)[0].adjectives == (3, 6)


def test_a_photo_of_a_dog_speaks_of_the_dog():
    parsed = doc(
        "a/DET/det/1 photo/NOUN/ROOT/1 of/ADP/prep/1 a/DET/det/4 dog/NOUN/pobj/2 on/ADP/prep/1 grass/NOUN/pobj/5"
    )
    assert said(parsed) == ["a dog | on | grass"]
    assert said(doc("a/DET/det/1 photo/NOUN/ROOT/1 of/ADP/prep/1 a/DET/det/4 dog/NOUN/pobj/2")) == ["a dog |  | "]
    bare = doc("dog/NOUN/compound/1 photo/NOUN/ROOT/1")
    assert said(bare) == ["dog photo |  | "] and statements(bare)[0].nouns == (0,)


def test_what_is_said_with_be_is_its_adjective_or_noun():
    parsed = doc("The/DET/det/1 soup/NOUN/nsubj/2 is/AUX/ROOT/2 very/ADV/advmod/4 hot/ADJ/acomp/2")
    [only] = statements(parsed)
    assert " ".join(parsed[i].text for i in only.words) == "The soup is very hot" and only.adjectives == (4,)
    assert said(doc("Dogs/NOUN/nsubj/1 are/AUX/ROOT/1 animals/NOUN/attr/1")) == ["Dogs | are | animals"]


def test_pronouns_say_nothing_without_their_sentence():
    assert said(doc("It/PRON/nsubj/1 runs/VERB/ROOT/1 home/ADV/advmod/1")) == []
    assert said(doc("very/ADV/advmod/1 quickly/ADV/ROOT/1")) == [] and said(Doc(VOCAB, words=[])) == []


def test_an_owner_and_a_hyphenated_word_stay_with_their_noun():
    parsed = doc(
        "a/DET/det/1 girl/NOUN/poss/6 's/PART/case/1 red/ADV/advmod/5 -/PUNCT/punct/5 haired/ADJ/amod/6 "
        "doll/NOUN/nsubj/7 lies/VERB/ROOT/7"
    )
    assert said(parsed) == ["a girl 's red - haired doll | lies | "]


# Captions that deny something, as a trained pipeline parses them, and what may be said of each.
DENIED = {
    "a verb keeps its not": (
        "a/DET/det/2 third/ADJ/amod/2 person/NOUN/nsubj/3 is/AUX/ROOT/3 not/PART/neg/3 attentive/ADJ/acomp/3",
        ["a third person | is not attentive | "],
    ),
    "so it does where the parse has lost it": (
        "a/DET/det/1 person/NOUN/nsubj/2 is/AUX/ROOT/2 not/PART/dep/2 attentive/ADJ/acomp/2",
        ["a person | is not attentive | "],
    ),
    "never and hardly stay with their verb": (
        "a/DET/det/1 man/NOUN/nsubj/3 never/ADV/neg/3 smiles/VERB/ROOT/3 and/CCONJ/cc/3 he/PRON/nsubj/7 "
        "hardly/ADV/advmod/7 walks/VERB/conj/3",
        ["a man | never smiles | "],
    ),
    "what lies below a denied verb is not there": (
        "a/DET/det/1 boy/NOUN/nsubj/4 is/AUX/aux/4 n't/PART/neg/4 wearing/VERB/ROOT/4 a/DET/det/6 hat/NOUN/dobj/4 "
        "on/ADP/prep/6 his/PRON/poss/9 head/NOUN/pobj/7",
        ["a boy | is n't wearing | a hat"],
    ),
    "a further verb is not denied": (
        "a/DET/det/1 dog/NOUN/nsubj/9 that/PRON/nsubj/3 is/AUX/relcl/1 not/PART/neg/3 on/ADP/prep/3 a/DET/det/7 "
        "leash/NOUN/pobj/5 happily/ADV/advmod/9 runs/VERB/ROOT/9",
        ["a dog | is not on | a leash", "a dog | runs | "],
    ),
    "one joined by or is": (
        "a/DET/det/1 girl/NOUN/nsubj/4 is/AUX/aux/4 not/PART/neg/4 smiling/VERB/ROOT/4 or/CCONJ/cc/4 "
        "holding/VERB/conj/4 cups/NOUN/dobj/6",
        ["a girl | is not smiling | "],
    ),
    "no shirt is said of the noun before it": (
        "a/DET/det/1 man/NOUN/ROOT/1 with/ADP/prep/1 no/DET/det/4 shirt/NOUN/pobj/2",
        ["a man | with | no shirt"],
    ),
    "of no other": (
        "a/DET/det/1 lady/NOUN/ROOT/1 and/CCONJ/cc/1 a/DET/det/4 man/NOUN/conj/1 with/ADP/prep/1 no/DET/det/7 "
        "shirt/NOUN/pobj/5",
        ["a lady |  | "],
    ),
    "a participle with an object that is not there": (
        "a/DET/det/1 baby/NOUN/nsubjpass/3 is/AUX/auxpass/3 lifted/VERB/ROOT/3 by/ADP/agent/3 a/DET/det/6 "
        "man/NOUN/pobj/4 wearing/VERB/acl/1 no/DET/det/9 shirt/NOUN/dobj/7",
        ["a baby | is lifted by | a man"],
    ),
    "without, and what is listed with it": (
        "streets/NOUN/ROOT/0 without/ADP/prep/0 cars/NOUN/pobj/1 or/CCONJ/cc/2 people/NOUN/conj/2 in/ADP/prep/4 "
        "coats/NOUN/pobj/5",
        ["streets | without | cars"],
    ),
    "no dog is no subject": (
        "no/DET/det/1 dog/NOUN/nsubj/3 is/AUX/aux/3 sleeping/VERB/ROOT/3 on/ADP/prep/3 a/DET/det/6 sofa/NOUN/pobj/4 "
        "under/ADP/prep/6 a/DET/det/9 window/NOUN/pobj/7",
        [],
    ),
    "nor is one of none": (
        "none/NOUN/nsubj/5 of/ADP/prep/0 the/DET/det/3 boys/NOUN/pobj/1 is/AUX/aux/5 riding/VERB/ROOT/5 a/DET/det/7 "
        "horse/NOUN/dobj/5 with/ADP/prep/7 a/DET/det/10 saddle/NOUN/pobj/8",
        [],
    ),
    "neither man nor woman": (
        "neither/CCONJ/preconj/1 man/NOUN/nsubj/5 nor/CCONJ/cc/1 woman/NOUN/conj/1 is/AUX/aux/5 holding/VERB/ROOT/5 "
        "umbrellas/NOUN/dobj/5",
        [],
    ),
    "free of": (
        "a/DET/det/1 road/NOUN/ROOT/1 free/ADJ/amod/1 of/ADP/prep/2 cars/NOUN/pobj/3 with/ADP/prep/4 "
        "lights/NOUN/pobj/5",
        ["a road |  | "],
    ),
    "lacks": (
        "a/DET/det/1 cat/NOUN/nsubj/2 lacks/VERB/ROOT/2 a/DET/det/4 tail/NOUN/dobj/2 with/ADP/prep/4 fur/NOUN/pobj/5",
        ["a cat | lacks | a tail"],
    ),
    "fails to": (
        "a/DET/det/1 dog/NOUN/nsubj/2 fails/VERB/ROOT/2 to/PART/aux/4 catch/VERB/xcomp/2 a/DET/det/6 ball/NOUN/dobj/4 "
        "with/ADP/prep/6 spots/NOUN/pobj/7",
        ["a dog |  | "],
    ),
    "instead of": (
        "a/DET/det/1 man/NOUN/nsubj/6 instead/ADV/advmod/6 of/ADP/prep/2 a/DET/det/5 woman/NOUN/pobj/3 "
        "drives/VERB/ROOT/6 a/DET/det/8 car/NOUN/dobj/6",
        ["a man | drives | a car"],
    ),
}


@pytest.mark.parametrize("case", DENIED)
def test_what_a_negation_governs_is_said_with_it_or_not_at_all(case):
    text, allowed = DENIED[case]
    assert said(doc(text)) == allowed
    for statement in statements(doc(text)):
        assert statement.negated == any(doc(text)[i].text in DENYING for i in statement.words)


DENYING = frozenset("not n't never without no lacks".split())


@pytest.mark.parametrize("seed", range(40))
def test_no_tree_of_labels_raises_and_every_index_is_of_the_caption(seed):
    labels = "nsubj dobj prep pobj acl relcl conj advcl cc det amod compound agent attr acomp poss neg prt dep".split()
    parts, generator = "NOUN VERB ADJ ADP DET AUX PRON CCONJ".split(), rng(seed, "tree")
    words = [str(word) for word in generator.choice(["dog", "of", "runs", "front", "photo", "and", "who"], size=24)]
    root = int(generator.integers(24))
    order = [root, *(i for i in generator.permutation(24).tolist() if i != root)]
    heads, deps = [root] * 24, ["ROOT"] * 24
    for place in range(1, 24):
        heads[order[place]] = order[int(generator.integers(place))]
        deps[order[place]] = str(generator.choice(labels))
    parsed = Doc(
        VOCAB, words=words, pos=[str(each) for each in generator.choice(parts, size=24)], heads=heads, deps=deps
    )
    for statement in statements(parsed):
        assert statement.subject and all(0 <= i < 24 for i in statement.words)
