"""English words of the closed classes: few, fixed, and no business of WordNet's, which knows them only as
homographs ("a" the angstrom, "he" helium, "in" the inch).

STOP_WORDS are what text augmentation leaves alone (EDA; Wei and Zou 2019): all of them.
"""

ARTICLES_AND_DETERMINERS = frozenset(
    "a an the this that these those each every either neither some any no all both half several few many much more most"
    " less least other another such same own enough".split()
)
PRONOUNS = frozenset(
    "i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers"
    " herself it its itself they them their theirs themselves one ones who whom whose which what whoever whatever"
    " someone somebody something anyone anybody anything everyone everybody everything nobody nothing".split()
)
PREPOSITIONS = frozenset(
    "of at by for with about against between into through during before after above below to from up down in out on off"
    " over under beside besides beneath behind near onto upon across around along among amongst amid toward towards"
    " within without inside outside past per via like unlike despite throughout underneath atop alongside until till"
    " since except than as".split()
)
CONJUNCTIONS = frozenset("and or but nor so yet because if unless while although though whereas whether".split())
ADVERBS = frozenset(
    "not very too just only then there here now when where why how"
    " again further once also even still ever never".split()
)
# With the apostrophe deleted, as captions are cleaned: "dont", "isnt"; single letters are what "it's" leaves elsewhere.
AUXILIARIES = frozenset(
    "am is are was were be been being have has had having do does did doing done will would shall should can could may"
    " might must ought cannot cant dont doesnt didnt isnt arent wasnt werent wont wouldnt shouldnt couldnt hasnt havent"
    " hadnt im ive ill id youre hes shes theyre s t d ll m re ve".split()
)

FUNCTION_WORDS = ARTICLES_AND_DETERMINERS | PRONOUNS | PREPOSITIONS | CONJUNCTIONS | ADVERBS
STOP_WORDS = FUNCTION_WORDS | AUXILIARIES
